// Rows of losses: by element, and then perhaps a mean or a sum over everything.
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "common/errors.h"
#include "common/loss_reduction.h"
#include "common/op_builders.h"
#include "common/op_rules.h"

namespace shardplane {
namespace {

int64_t Reduction(const OpCall& call, int index) {
  return IntArgument(call, index, "reduction").value_or(kMeanReduction);
}

// The result is one number, summed over what passed so far.
void Reduce(int64_t reduction, int index, OpInstance* op) {
  for (Factor& factor : op->factors) {
    if (factor.kind == FactorKind::kPass) factor.kind = FactorKind::kReduced;
  }
  op->mean_count = NumElements(op->results[0].type.shape);
  op->results[0].type.shape.clear();
  op->results[0].dims.clear();
  if (reduction == kSumReduction) return;
  op->lowering = Lowering::kMean;
  op->partial_target = op->target;
  op->partial_args = op->args;
  if (index < static_cast<int>(op->args.size())) {
    op->partial_args[index] = {kSumReduction};
    return;
  }
  op->partial_kwargs = op->kwargs;
  op->partial_kwargs["reduction"] = {kSumReduction};
}

}  // namespace

absl::Status BuildElementLoss(const OpRow& row, const OpCall& call,
                              OpInstance* op) {
  OpRow by_element = row;
  by_element.spec = "";
  SP_RETURN_IF_ERROR(BuildPointwise(by_element, call, op));
  int index = 0;
  if (!absl::SimpleAtoi(row.spec, &index)) {
    return absl::InternalError("a loss whose row names no reduction");
  }
  const int64_t reduction = Reduction(call, index);
  if (reduction != kNoReduction) Reduce(reduction, index, op);
  return absl::OkStatus();
}

absl::Status BuildClassLoss(const OpRow&, const OpCall& call, OpInstance* op) {
  if (call.operands.size() < 2) return BadCall(call, "two tensors", "others");
  const TensorType& scores = call.operands[0];
  const TensorType& target = call.operands[1];
  if (Rank(scores) == 0) return BadCall(call, "[c] or [n, c, *]", "[]");
  const int dim = Rank(scores) > 1 ? 1 : 0;
  const DimFactors dims = FactorsAround(scores.shape, dim, op);
  ResultRule rows{scores, dims};
  rows.type.shape.erase(rows.type.shape.begin() + dim);
  rows.dims.erase(rows.dims.begin() + dim);
  op->operands.push_back({dims});
  // Of class ids, or of probabilities.
  op->operands.push_back({Rank(target) == Rank(scores) ? dims : rows.dims});
  if (op->operands[1].dims.size() != target.shape.size()) {
    return BadCall(call, "a target for " + ToString(scores), ToString(target));
  }
  for (size_t i = 2; i < call.operands.size(); ++i) {
    op->operands.push_back({{dims[dim]}});
  }
  const int64_t reduction = Reduction(call, kNllReductionArgument);
  op->results.push_back(std::move(rows));
  if (reduction == kNoReduction) return absl::OkStatus();
  Reduce(kSumReduction, kNllReductionArgument, op);
  // The mean counts rows by their classes' weights, and not those ignored.
  for (Factor& factor : op->factors) {
    if (reduction == kMeanReduction) factor.kind = FactorKind::kWhole;
  }
  return absl::OkStatus();
}

}  // namespace shardplane
