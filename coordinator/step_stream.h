// The steps of one gang on their way to one worker.
#ifndef SHARDPLANE_COORDINATOR_STEP_STREAM_H_
#define SHARDPLANE_COORDINATOR_STEP_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/step_outbox.h"
#include "coordinator/worker_client.h"
#include "grpcpp/alarm.h"
#include "shardplane/v1/worker.pb.h"

namespace shardplane {

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

// The steps of one gang on their way to one worker, and its answers, whatever
// carries them: the subclasses know. Steps that come while a message is on its
// way are collected in the next one. Answers come in the order of the steps;
// when the stream ends, however it does, all that is under way ends with it.
// Thread-safe.
class StepStream : public std::enable_shared_from_this<StepStream> {
 public:
  virtual ~StepStream();
  StepStream(const StepStream&) = delete;
  StepStream& operator=(const StepStream&) = delete;

  // As WorkerClient::Step.
  void Add(const GangRef& gang, const std::shared_ptr<const TrainStep>& step,
           uint64_t expected_hash, const CallOptions& options,
           WorkerClient::Answer<StepOutcome> done);
  // No further steps. What is under way ends as Cancelled.
  void Close() { End(absl::CancelledError("the gang was left")); }
  // Steps that are added from now on fail.
  bool ended() const;

 protected:
  // `max_bytes`: see StepOutbox.
  StepStream(std::shared_ptr<StreamCount> count, size_t max_bytes)
      : token_(std::move(count)), outbox_(max_bytes) {}

  // What carries it.
  // Writes one message, and no second one before it is written. False: that is
  // later, and Written will be called.
  virtual bool Write(std::vector<OutgoingStep> message) = 0;
  // The connection ends soon, as ReadEnded and Over say.
  virtual void Cancel() = 0;
  // Nothing is written any more: called once, after ReadEnded.
  virtual void NothingToWrite() = 0;

  // What the connection says; no two of the answers at once.
  void Written(bool ok) ABSL_LOCKS_EXCLUDED(mu_);
  void Answered(const v1::StepsResponse& response) ABSL_LOCKS_EXCLUDED(mu_);
  void ReadEnded() ABSL_LOCKS_EXCLUDED(mu_);
  // The last word: how it has ended.
  void Over(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_);
  // From our side, for that reason.
  void End(absl::Status reason) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Pending {
    StepNumber number;
    absl::Duration timeout;
    WorkerClient::Answer<StepOutcome> done;
    Cancellation::Registration registration;
  };
  // Writes what there is to be written now.
  void WriteOn() ABSL_LOCKS_EXCLUDED(mu_);
  void ReleaseIfOver() ABSL_LOCKS_EXCLUDED(mu_);
  // The oldest step has become another one.
  void WatchOldest() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnAlarm() ABSL_LOCKS_EXCLUDED(mu_);
  bool Answer(const v1::StepsResponse::Step& response) ABSL_LOCKS_EXCLUDED(mu_);

  const StreamCount::Token token_;  // first: goes last

  mutable absl::Mutex mu_;
  std::deque<std::unique_ptr<Pending>> pending_ ABSL_GUARDED_BY(mu_);
  StepOutbox outbox_ ABSL_GUARDED_BY(mu_);
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  bool released_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status reason_ ABSL_GUARDED_BY(mu_);  // why we ended it
  absl::Time oldest_since_ ABSL_GUARDED_BY(mu_);
  absl::Time alarm_at_ ABSL_GUARDED_BY(mu_) = absl::InfiniteFuture();
  std::unique_ptr<grpc::Alarm> alarm_ ABSL_GUARDED_BY(mu_);
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_STEP_STREAM_H_
