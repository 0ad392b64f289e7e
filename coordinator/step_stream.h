// The steps of one gang on their way to one worker.
#ifndef SHARDPLANE_COORDINATOR_STEP_STREAM_H_
#define SHARDPLANE_COORDINATOR_STEP_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/worker_client.h"
#include "grpcpp/alarm.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/client_callback.h"
#include "grpcpp/support/slice.h"
#include "shardplane/v1/worker.pb.h"

namespace shardplane {

// Steps that wait to be written. A message costs much more than a step in it:
// so a worker that has enough to do gets further ones together. One thread at a
// time.
class StepOutbox {
 public:
  // A worker takes messages of up to 4 MiB; the largest step has a little over
  // 3 of them.
  static constexpr size_t kMaxMessageBytes = size_t{7} << 19;
  static constexpr size_t kEnoughToDo = 8;  // steps
  static constexpr size_t kTogether = 8;

  // Two parts of one element of StepsRequest.steps.
  void Add(grpc::Slice head, grpc::Slice shared);
  // The next message, of all that waits and fits in, where the worker has so
  // many steps that it has not answered; false: there is nothing, or one is on
  // its way, or it can wait.
  bool Take(size_t unanswered, grpc::ByteBuffer* message);
  size_t size() const { return steps_.size(); }
  void Sent() { writing_ = false; }  // what was taken
  bool writing() const { return writing_; }

 private:
  struct Step {
    grpc::Slice head;
    grpc::Slice shared;
    size_t size() const { return head.size() + shared.size(); }
  };
  std::deque<Step> steps_;
  bool writing_ = false;
};

// Counts streams that are there. Thread-safe.
class StreamCount {
 public:
  class Token {
   public:
    explicit Token(std::shared_ptr<StreamCount> count)
        : count_(std::move(count)) {
      count_->Change(1);
    }
    ~Token() { count_->Change(-1); }
    Token(const Token&) = delete;
    Token& operator=(const Token&) = delete;

   private:
    const std::shared_ptr<StreamCount> count_;  // shared with who waits
  };
  // A channel must not go with the last of its calls: gRPC 1.51 would then
  // wait on a thread of its own for that thread.
  void AwaitNone();

 private:
  void Change(int by) {
    absl::MutexLock lock(&mu_);
    count_ += by;
  }
  absl::Mutex mu_;
  int count_ ABSL_GUARDED_BY(mu_) = 0;
};

// One call of Worker.Steps. Steps that come while a message is on its way are
// collected in the next one. Answers come in the order of the steps; when the
// stream ends, however it does, all that is under way ends with it.
// Thread-safe.
class StepStream final
    : public grpc::ClientBidiReactor<grpc::ByteBuffer, v1::StepsResponse>,
      public std::enable_shared_from_this<StepStream> {
 public:
  // Shared with gRPC until the call is over.
  static std::shared_ptr<StepStream> Open(
      const std::shared_ptr<grpc::Channel>& channel,
      std::shared_ptr<StreamCount> count);
  ~StepStream() override;

  // As WorkerClient::Step.
  void Add(const GangRef& gang, const std::shared_ptr<const TrainStep>& step,
           uint64_t expected_hash, const CallOptions& options,
           WorkerClient::Answer<StepOutcome> done);
  // No further steps. What is under way ends as Cancelled.
  void Close();
  // Steps that are added from now on fail.
  bool ended() const;

  // gRPC's calls.
  void OnWriteDone(bool ok) override;
  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  struct Pending {
    StepNumber number;
    absl::Duration timeout;
    WorkerClient::Answer<StepOutcome> done;
    Cancellation::Registration registration;
  };
  explicit StepStream(std::shared_ptr<StreamCount> count)
      : token_(std::move(count)) {}
  // gRPC may end the call once nobody outside starts anything any more.
  void ReleaseIfOver() ABSL_LOCKS_EXCLUDED(mu_);
  void End(absl::Status reason) ABSL_LOCKS_EXCLUDED(mu_);
  // The oldest step has become another one.
  void WatchOldest() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnAlarm() ABSL_LOCKS_EXCLUDED(mu_);
  // Fills the next message; false: there is none to be written now.
  bool TakeMessage() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool Answer(const v1::StepsResponse::Step& response) ABSL_LOCKS_EXCLUDED(mu_);

  const StreamCount::Token token_;  // first: goes last
  grpc::ClientContext context_;
  std::shared_ptr<StepStream> self_;  // until OnDone
  v1::StepsResponse response_;        // the reader's
  grpc::ByteBuffer message_;          // the writer's

  mutable absl::Mutex mu_;
  std::deque<std::unique_ptr<Pending>> pending_ ABSL_GUARDED_BY(mu_);
  StepOutbox outbox_ ABSL_GUARDED_BY(mu_);
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  bool held_ ABSL_GUARDED_BY(mu_) = true;
  absl::Status reason_ ABSL_GUARDED_BY(mu_);  // why we ended it
  absl::Time oldest_since_ ABSL_GUARDED_BY(mu_);
  absl::Time alarm_at_ ABSL_GUARDED_BY(mu_) = absl::InfiniteFuture();
  std::unique_ptr<grpc::Alarm> alarm_ ABSL_GUARDED_BY(mu_);
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_STEP_STREAM_H_
