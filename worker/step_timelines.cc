#include "worker/step_timelines.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {
namespace {

size_t BytesOf(const StepTimeline& timeline) {
  return timeline.run.spans.size() * sizeof(InstructionSpan);
}

}  // namespace

void StepTimelines::Add(StepTimeline timeline) {
  absl::MutexLock lock(&mutex_);
  bytes_ += BytesOf(timeline);
  kept_.push_back(std::move(timeline));
  while (kept_.size() > 1 &&
         (kept_.size() > max_steps_ || bytes_ > max_bytes_)) {
    bytes_ -= BytesOf(kept_.front());
    kept_.pop_front();
  }
}

absl::StatusOr<StepTimeline> StepTimelines::Find(uint64_t step) const {
  absl::MutexLock lock(&mutex_);
  for (const StepTimeline& timeline : kept_) {
    if (timeline.step == step) return timeline;
  }
  return MakeError(
      absl::StatusCode::kNotFound,
      absl::StrCat("step ", step,
                   ": expected a training step whose timeline is kept, got: ",
                   kept_.empty() ? std::string("none yet")
                                 : absl::StrCat(kept_.front().step, " to ",
                                                kept_.back().step)),
      {.reason = "TIMELINE_NOT_KEPT", .metadata = {}});
}

void StepTimelines::Clear() {
  absl::MutexLock lock(&mutex_);
  kept_.clear();
  bytes_ = 0;
}

}  // namespace shardplane
