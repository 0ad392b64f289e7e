#include "coordinator/step_history.h"

#include <algorithm>
#include <utility>

namespace shardplane {

void StepHistory::Add(const StepAnswer& answer) {
  if (steps_.size() == kept_) steps_.pop_front();
  steps_.push_back({.number = answer.number,
                    .epoch = answer.epoch,
                    .loss = answer.loss,
                    .seconds = answer.seconds,
                    .gradient_norm = answer.gradient_norm,
                    .timing = answer.timing});
}

std::vector<StepAnswer> StepHistory::After(StepNumber after,
                                           size_t limit) const {
  const auto begin =
      std::upper_bound(steps_.begin(), steps_.end(), after,
                       [](StepNumber number, const StepAnswer& step) {
                         return number < step.number;
                       });
  const size_t there = static_cast<size_t>(steps_.end() - begin);
  return {begin, begin + static_cast<ptrdiff_t>(std::min(there, limit))};
}

void StepHistory::Mark(StepMarks marks) {
  if (marks_.size() == kKeptAnswers) marks_.pop_front();
  marks_.push_back(std::move(marks));
}

std::optional<StepMarks> StepHistory::MarksOf(StepNumber number) const {
  for (const StepMarks& marks : marks_) {
    if (marks.number == number) return marks;
  }
  return std::nullopt;
}

}  // namespace shardplane
