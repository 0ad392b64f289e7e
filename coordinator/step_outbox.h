// Steps that wait to be written to one worker.
#ifndef SHARDPLANE_COORDINATOR_STEP_OUTBOX_H_
#define SHARDPLANE_COORDINATOR_STEP_OUTBOX_H_

#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/worker_client.h"

namespace shardplane {

// One element of StepsRequest.steps: `head`, then what `step` is encoded as;
// `bytes` together.
struct OutgoingStep {
  std::string head;
  std::shared_ptr<const TrainStep> step;  // shared by all ranks' messages
  size_t bytes = 0;
};

// A message costs much more than a step in it: so a worker that has enough to
// do gets further ones together. One thread at a time.
class StepOutbox {
 public:
  static constexpr size_t kEnoughToDo = 8;  // steps
  static constexpr size_t kTogether = 8;

  // Messages have up to `max_bytes`; a larger step has one to itself.
  explicit StepOutbox(size_t max_bytes) : max_bytes_(max_bytes) {}

  void Add(OutgoingStep step);
  // The next message, of all that waits and fits in, where the worker has so
  // many steps that it has not answered. Empty: there is nothing, or one is on
  // its way, or it can wait.
  std::vector<OutgoingStep> Take(size_t unanswered);
  size_t size() const { return steps_.size(); }
  void Sent() { writing_ = false; }  // what was taken
  bool writing() const { return writing_; }

 private:
  const size_t max_bytes_;
  std::deque<OutgoingStep> steps_;
  bool writing_ = false;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_STEP_OUTBOX_H_
