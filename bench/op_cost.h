// What the executor adds to an operator: a segment that a PreparedSegment runs,
// beside a plain loop of the same at:: calls.
#ifndef SHARDPLANE_BENCH_OP_COST_H_
#define SHARDPLANE_BENCH_OP_COST_H_

#include <functional>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/sharded_program.h"

namespace shardplane {

inline constexpr int kOpsPerSegment = 200;

// Value 0 goes through the operators one after the other; the other inputs are
// read by each of them. Value inputs.size() is the output.
struct OpChain {
  std::string name;  // "linear"
  Segment segment;
  std::vector<at::Tensor> inputs;
  // The same on `inputs`: the output.
  std::function<at::Tensor(absl::Span<const at::Tensor>)> direct;
};

// Tiny operators of the kinds that a program has: arguments that are tensors,
// numbers, lists of numbers and lists of tensors.
std::vector<OpChain> OpChains();

// kForward: nothing is recorded. kRecorded: forward with recording on, on
// detached inputs that ask for a gradient; both sides do that. kTrain: that,
// and its backward.
enum class OpCostMode { kForward, kRecorded, kTrain };
inline constexpr OpCostMode kOpCostModes[] = {
    OpCostMode::kForward, OpCostMode::kRecorded, OpCostMode::kTrain};
const char* ToString(OpCostMode mode);

// Nanoseconds an operator, one entry a round.
struct OpCost {
  std::vector<double> executor;
  std::vector<double> direct;
  std::vector<double> difference;  // executor - direct
};

// Each round runs one segment of kOpsPerSegment operators on each side, whose
// order changes from round to round. What is measured is this thread's CPU
// time: another process that takes the core in between does not count. At
// least one round. InvalidArgument, NotFound: as PreparedSegment::Create.
// Internal: the two sides compute different values. Throws what torch throws.
absl::StatusOr<OpCost> MeasureOpCost(const OpChain& chain, OpCostMode mode,
                                     int rounds);

// At `fraction` of the sorted values, 0.5 the median; not empty.
double Quantile(std::vector<double> values, double fraction);

}  // namespace shardplane

#endif  // SHARDPLANE_BENCH_OP_COST_H_
