#include "worker/shm/schedule.h"

#include <algorithm>

namespace shardplane {

ShmStep ShmSchedule::step() const {
  if (stage_ == 0) return ShmStep::kWrite;
  return stage_ == stages_ - 1 ? ShmStep::kRead : ShmStep::kReduce;
}

void ShmSchedule::Advance() {
  if (step() != ShmStep::kRead) ++published_;
  do {
    if (++stage_ == stages_) {
      stage_ = 0;
      ++round_;
    }
  } while (!done() && (chunk() < 0 || chunk() >= chunks_));
}

int64_t ShmSchedule::WritePublication(int64_t chunk) const {
  if (stages_ == 2) return chunk;
  // Before it: the writing of all earlier chunks, and the reducing of all but
  // the last of them.
  return chunk + std::max<int64_t>(0, chunk - 1);
}

int64_t ShmSchedule::LastPublication(int64_t chunk) const {
  if (stages_ == 2) return chunk;
  // Before it: the reducing of all earlier chunks, the writing up to the next.
  return chunk + std::min(chunk + 2, chunks_);
}

}  // namespace shardplane
