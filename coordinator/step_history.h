// What is remembered of a deployment's steps for a loss curve.
#ifndef SHARDPLANE_COORDINATOR_STEP_HISTORY_H_
#define SHARDPLANE_COORDINATOR_STEP_HISTORY_H_

#include <cstddef>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/deployment_state.h"
#include "coordinator/ids.h"

namespace shardplane {

// Where the coordinator's time for one step went.
struct StepMarks {
  StepNumber number;
  absl::Time received;
  absl::Duration queue;     // until it was its turn
  absl::Duration dispatch;  // from then, until all ranks had been told
  absl::Duration total;     // from its coming to its answer
  std::string traceparent;  // that the client sent; "": none
  ProgramId program;
};

// The last steps, oldest first, each without what is large: collectives, peaks
// and timelines. Owned and guarded by its deployment.
class StepHistory {
 public:
  static constexpr size_t kDefaultKept = 4096;
  explicit StepHistory(size_t kept = kDefaultKept) : kept_(kept) {}

  void Add(const StepAnswer& answer);
  // Those with a number above `after`, at most `limit`.
  std::vector<StepAnswer> After(StepNumber after, size_t limit) const;

  // The same for the times of training steps; the last kKeptAnswers.
  void Mark(StepMarks marks);
  std::optional<StepMarks> MarksOf(StepNumber number) const;

 private:
  size_t kept_;
  std::deque<StepAnswer> steps_;
  std::deque<StepMarks> marks_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_STEP_HISTORY_H_
