#include "coordinator/step_outbox.h"

#include <utility>

namespace shardplane {

void StepOutbox::Add(OutgoingStep step) { steps_.push_back(std::move(step)); }

std::vector<OutgoingStep> StepOutbox::Take(size_t unanswered) {
  std::vector<OutgoingStep> message;
  if (writing_ || (unanswered >= kEnoughToDo && steps_.size() < kTogether)) {
    return message;
  }
  size_t size = 0;
  while (!steps_.empty() &&
         (size == 0 || size + steps_.front().bytes <= max_bytes_)) {
    size += steps_.front().bytes;
    message.push_back(std::move(steps_.front()));
    steps_.pop_front();
  }
  writing_ = !message.empty();
  return message;
}

}  // namespace shardplane
