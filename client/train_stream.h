// Steps of one deployment, one after the other, without waiting for answers.
#ifndef SHARDPLANE_CLIENT_TRAIN_STREAM_H_
#define SHARDPLANE_CLIENT_TRAIN_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/support/async_stream.h"
#include "shardplane/v1/coordinator.grpc.pb.h"

namespace shardplane {

struct TrainStreamOptions {
  // How long nothing may come while results are due.
  absl::Duration idle_limit = absl::Minutes(10);
  // Of steps that travel in one message; a larger step travels alone.
  size_t max_message_bytes = size_t{1} << 20;
};

// Any thread may call any method at any time. Usually one thread writes some
// steps ahead and reads, or one writes and another reads:
//
//   const std::unique_ptr<TrainStream> stream = client->Train();
//   for (uint64_t n = 1; n <= steps; ++n) {
//     status = stream->Write(StepOf(n));
//     if (n > ahead) result = stream->Read();
//   }
//   status = stream->Finish();
//
// A stream is not resumed: where it has failed, Client::GetDeployment tells the
// last step that took effect, Client::GetStep its answer, and another stream
// goes on from there. Nothing takes effect twice, since steps are numbered.
class TrainStream {
 public:
  // Starts the call. `stub` is borrowed.
  TrainStream(v1::ShardingCoordinator::Stub* stub,
              const TrainStreamOptions& options);
  // Ends the call, also while steps are due: those may or may not take effect.
  ~TrainStream();
  TrainStream(const TrainStream&) = delete;
  TrainStream& operator=(const TrainStream&) = delete;

  // Takes a step: its action is `train`, its number one more than the last
  // one's. Never waits. Steps are collected, to leave in one message, while
  // another message is on its way, and while more steps are under way than
  // collected: with n of them unanswered, messages have up to n / 2, and the
  // coordinator is never without. They leave in a later call of any method.
  // There is no limit: who writes far ahead keeps steps in memory. The
  // stream's error if it has failed; FailedPrecondition after Finish.
  absl::Status Write(v1::StepRequest step);

  // The next result, in the order of the steps; waits for it. nullopt: the
  // stream has finished, and all results have been read. Results of steps that
  // came before a failure are given first, then the failure: that of the first
  // step that failed, with its number in the metadata ("step");
  // DeadlineExceeded after `idle_limit`; Unavailable for a lost connection.
  absl::StatusOr<std::optional<v1::StepResult>> Read();

  // No more steps will come. Waits until all are answered or one has failed,
  // and returns OK or that failure; results stay to be read.
  absl::Status Finish();

 private:
  enum class Event : intptr_t;

  // What happens to the call is handled by one thread at a time, which has set
  // `driving_`: that which waits in Read or Finish, since passing a result from
  // thread to thread costs more than all else here, or `helper_` where a
  // message is on its way and nobody waits. Methods that need the lock give it
  // back while they call gRPC.
  void Help();
  // Until `done`, drives or waits for who does.
  void DriveUntil(absl::FunctionRef<bool()> done)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Sends what is due, and handles the next event that comes before `deadline`;
  // false: none came.
  bool DriveOnce(absl::Time deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Handle(Event event, bool ok) ABSL_LOCKS_EXCLUDED(mu_);
  void OnSent(bool ok) ABSL_LOCKS_EXCLUDED(mu_);
  void OnReceived(bool ok) ABSL_LOCKS_EXCLUDED(mu_);
  void OnFinished() ABSL_LOCKS_EXCLUDED(mu_);
  void OnIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Whether a message is to leave: with what has been collected, or that there
  // will be no more.
  bool IsDue() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SendIfDue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const TrainStreamOptions options_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<
      grpc::ClientAsyncReaderWriter<v1::TrainRequest, v1::TrainResponse>>
      call_;
  v1::TrainRequest sent_;       // while `sending_`, of who has set it
  v1::TrainResponse received_;  // of who drives
  grpc::Status grpc_status_;    // of who drives

  mutable absl::Mutex mu_;
  bool driving_ ABSL_GUARDED_BY(mu_) = true;
  // Until the call has started, and while a message is on its way.
  bool sending_ ABSL_GUARDED_BY(mu_) = true;
  bool broken_ ABSL_GUARDED_BY(mu_) = false;     // nothing can be sent
  bool finishing_ ABSL_GUARDED_BY(mu_) = false;  // Finish was called
  bool half_closed_ ABSL_GUARDED_BY(mu_) = false;
  bool idle_ ABSL_GUARDED_BY(mu_) = false;     // given up for `idle_limit`
  bool closing_ ABSL_GUARDED_BY(mu_) = false;  // no more help is needed
  int64_t due_ ABSL_GUARDED_BY(mu_) = 0;       // steps written and not answered
  std::deque<v1::StepRequest> collected_ ABSL_GUARDED_BY(mu_);
  std::deque<v1::StepResult> results_ ABSL_GUARDED_BY(mu_);
  std::optional<absl::Status> status_ ABSL_GUARDED_BY(mu_);  // once ended
  std::thread helper_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_TRAIN_STREAM_H_
