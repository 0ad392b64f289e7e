// One stream of Worker.Steps: reads steps, has them run, writes the answers.
#ifndef SHARDPLANE_WORKER_STEPS_STREAM_H_
#define SHARDPLANE_WORKER_STEPS_STREAM_H_

#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/support/server_callback.h"
#include "shardplane/v1/worker.pb.h"
#include "worker/gang_worker.h"

namespace shardplane {

// Whether answers, those of steps `first` to `last`, leave now. A message costs
// more than a short step: while further steps are under way, those that follow
// one another fast travel together, on all ranks up to the same number, since
// only what all have answered is over. `since_last`: since the message before
// left.
bool AnswersLeave(uint64_t first, uint64_t last, int under_way,
                  absl::Duration since_last);

// Never blocks, whatever carries it: the subclasses know. It reads on while
// steps run on the executor's thread, in order. Answers that become ready while
// a message is on its way leave together in the next one, and so do those that
// AnswersLeave holds back, at the latest with the next step's. With kMaxOpen
// steps whose answers have not left it reads no more, so that whoever sends
// faster than it trains, or does not read the answers, waits.
//
// A step whose message is refused is answered with the error, in its turn; one
// without a number, which nobody could answer, ends the stream, once all that
// came before is answered. When the client goes away, steps that have been read
// are still run, and recorded; nobody gets their answers. Thread-safe.
class StepsStream : public std::enable_shared_from_this<StepsStream> {
 public:
  static constexpr int kMaxOpen = 64;

  virtual ~StepsStream() = default;
  StepsStream(const StepsStream&) = delete;
  StepsStream& operator=(const StepsStream&) = delete;

  // Takes no further steps; ends with `status` once what came is answered.
  void End(const absl::Status& status);

 protected:
  // Borrows `worker`, which outlives the stream.
  explicit StepsStream(GangWorker* worker) : worker_(worker) {}

  // What carries it. One thread at a time calls, and nothing after Finish.
  // Reads a message; ReadDone follows.
  virtual void Read(v1::StepsRequest* request) = 0;
  // Writes a message; WriteDone follows, maybe before it returns.
  virtual void Write(const v1::StepsResponse* response) = 0;
  virtual void Finish(const absl::Status& status) = 0;

  // Begins to read.
  void Begin() { Advance(); }
  // Not ok: nothing comes any more. The client may be gone.
  void ReadDone(bool ok);
  // Not ok: nobody reads answers any more.
  void WriteDone(bool ok);

 private:
  enum class Action { kNothing, kRead, kWrite, kFinish };

  // Hands one step to the worker; false: it takes no further ones.
  bool Take(v1::StepsRequest::Step step);
  // An answer is there; any thread.
  void Answer(v1::StepsResponse::Step answer);
  // Does what the state asks for. One thread at a time tells the carrier what
  // to do: nothing may come behind Finish.
  void Advance();
  void Do(Action action);
  Action Next();
  bool HasToWrite() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  GangWorker* const worker_;
  v1::StepsRequest request_;    // the carrier's while reading_
  v1::StepsResponse response_;  // the carrier's while writing_

  absl::Mutex mutex_;
  bool advancing_ ABSL_GUARDED_BY(mutex_) = false;
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;     // no further steps
  bool dead_ ABSL_GUARDED_BY(mutex_) = false;      // nobody reads answers
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;  // the carrier was told
  int open_ ABSL_GUARDED_BY(mutex_) = 0;  // read, and their answers not sent
  v1::StepsResponse collected_ ABSL_GUARDED_BY(mutex_);
  absl::Time last_left_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  absl::Status status_ ABSL_GUARDED_BY(mutex_);  // to end with
};

// Over gRPC. Owns itself until gRPC is done with it.
class GrpcStepsStream final
    : public StepsStream,
      public grpc::ServerBidiReactor<v1::StepsRequest, v1::StepsResponse> {
 public:
  // Begins to read. Borrows `worker`, which outlives the server.
  static std::shared_ptr<GrpcStepsStream> Start(GangWorker* worker);

  // gRPC's calls.
  void OnReadDone(bool ok) override { ReadDone(ok); }
  void OnWriteDone(bool ok) override { WriteDone(ok); }
  void OnDone() override;

 private:
  explicit GrpcStepsStream(GangWorker* worker) : StepsStream(worker) {}

  void Read(v1::StepsRequest* request) override { StartRead(request); }
  void Write(const v1::StepsResponse* response) override {
    StartWrite(response);
  }
  void Finish(const absl::Status& status) override;

  std::shared_ptr<StepsStream> self_;  // until OnDone
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_STEPS_STREAM_H_
