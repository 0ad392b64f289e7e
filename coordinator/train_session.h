// The calls of ShardingCoordinator.Train.
#ifndef SHARDPLANE_COORDINATOR_TRAIN_SESSION_H_
#define SHARDPLANE_COORDINATOR_TRAIN_SESSION_H_

#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/coordinator.h"
#include "coordinator/stream_watch.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "shardplane/v1/coordinator.pb.h"

namespace shardplane {

// One call. It has two threads, since steps wait for their turn and for their
// ranks, and gRPC's own threads must not: the first begins steps as they come,
// the second finishes them in order and sends the results; those that are there
// while a message is on its way leave together in the next one.
//
// The first step that fails ends the call with its error, metadata "step";
// those behind it do nothing. When the client goes away, steps that have begun
// are finished and recorded, and no further one begins. While
// kMaxStepsUnderWay are under way no more is read.
//
// Codes: as Coordinator::BeginTrain and FinishTrain. InvalidArgument: an action
// that is not `train`, a step of another deployment than the first one's.
// Unavailable, reason SHUTTING_DOWN: End was called.
//
// gRPC's until OnDone, and until then its own; shared with TrainSessions.
class TrainSession final
    : public grpc::ServerBidiReactor<v1::TrainRequest, v1::TrainResponse>,
      public std::enable_shared_from_this<TrainSession> {
 public:
  // Borrows all; `context` until OnDone.
  static std::shared_ptr<TrainSession> Start(
      Coordinator* coordinator, StreamWatch* streams,
      grpc::CallbackServerContext* context);
  ~TrainSession() override;

  // No further steps begin; the call ends once all that have are over.
  void End();
  // Whether the threads have nothing to do any more.
  bool over() const;
  void Join();

  // gRPC's calls.
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  static constexpr int kTogether = 16;  // results in one message, or more
  struct Begun {
    uint64_t number = 0;
    absl::StatusOr<std::unique_ptr<TrainUnderWay>> step;
  };

  TrainSession(Coordinator* coordinator, StreamWatch* streams,
               grpc::CallbackServerContext* context);

  // The first thread.
  void BeginSteps();
  std::optional<v1::TrainRequest> NextRequest();
  bool Begin(v1::StepRequest request);  // false: none may come behind it
  absl::StatusOr<std::unique_ptr<TrainUnderWay>> BeginStep(
      v1::StepRequest request);
  // The second.
  void FinishSteps();
  std::optional<Begun> NextBegun();
  absl::StatusOr<v1::StepResult> Finished(Begun& begun);
  void Deliver(uint64_t number, absl::StatusOr<v1::StepResult> result);
  bool WriteMore();
  void Close();

  // A step that came is over.
  void CloseOne() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Whether the next result need not be waited for.
  bool NextIsOver() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Whether no further step may begin.
  bool Stopping() const ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return gone_ || ending_ || !status_.ok();
  }
  // Puts what was collected into the next message; false: there is nothing,
  // or one is on its way.
  bool TakeMessage() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Coordinator* const coordinator_;
  std::shared_ptr<TrainSession> self_;  // until OnDone
  v1::TrainRequest reading_;            // gRPC's while it reads
  v1::TrainResponse message_;           // gRPC's while it writes
  std::string deployment_;              // of the first step; its thread's
  const std::string traceparent_;       // of the call

  mutable absl::Mutex mu_;
  std::optional<StreamWatch::Stream> watched_ ABSL_GUARDED_BY(mu_);
  std::optional<v1::TrainRequest> request_ ABSL_GUARDED_BY(mu_);  // the next
  bool read_all_ ABSL_GUARDED_BY(mu_) = false;  // nothing more will come
  bool gone_ ABSL_GUARDED_BY(mu_) = false;      // so is the client
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mu_);  // of the first that failed
  std::deque<Begun> begun_ ABSL_GUARDED_BY(mu_);
  bool begun_all_ ABSL_GUARDED_BY(mu_) = false;
  int open_ ABSL_GUARDED_BY(mu_) = 0;  // steps that came and are not over
  v1::TrainResponse collected_ ABSL_GUARDED_BY(mu_);
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool over_ ABSL_GUARDED_BY(mu_) = false;

  std::thread beginner_;
  std::thread finisher_;
};

// All calls of a service. Thread-safe. The destructor waits for their threads;
// gRPC must be done with them.
class TrainSessions {
 public:
  TrainSessions(Coordinator* coordinator, StreamWatch* streams)
      : coordinator_(coordinator), streams_(streams) {}
  ~TrainSessions();

  TrainSession* Start(grpc::CallbackServerContext* context);
  // Ends all, and every later one at once.
  void End();

 private:
  Coordinator* const coordinator_;
  StreamWatch* const streams_;
  absl::Mutex mu_;
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  // Also some that are over.
  std::list<std::shared_ptr<TrainSession>> sessions_ ABSL_GUARDED_BY(mu_);
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_TRAIN_SESSION_H_
