// Rows of ops that need some dims whole, or sum over them.
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/op_builders.h"
#include "common/op_rules.h"

namespace shardplane {
absl::Status BuildReduce(const OpRow& row, const OpCall& call, OpInstance* op) {
  if (call.operands.size() != 1) return BadCall(call, "one tensor", "others");
  const TensorType& in = call.operands[0];
  std::vector<int64_t> dims =
      IntsArgument(call, 1, "dim").value_or(std::vector<int64_t>{});
  const Argument* keep = FindArgument(call, 2, "keepdim");
  const bool* kept =
      keep == nullptr ? nullptr : std::get_if<bool>(&keep->value);
  const bool keepdim = kept != nullptr && *kept;
  std::vector<bool> reduced(in.shape.size(), dims.empty());
  for (int64_t d : dims) {
    d = d < 0 ? d + Rank(in) : d;
    if (d < 0 || d >= Rank(in)) {
      return BadCall(call, absl::StrCat("dims of ", ToString(in)),
                     absl::StrCat(d));
    }
    reduced[d] = true;
  }
  const bool whole = row.spec == "whole";
  ResultRule result;
  result.type.dtype = call.results.empty() ? in.dtype : call.results[0].dtype;
  OperandRule operand;
  operand.linear = !whole && result.type.dtype == in.dtype;
  for (int d = 0; d < Rank(in); ++d) {
    const FactorKind kind = !reduced[d]                ? FactorKind::kPass
                            : whole || !operand.linear ? FactorKind::kWhole
                                                       : FactorKind::kReduced;
    operand.dims.push_back({AddFactor(op, in.shape[d], kind)});
    if (!reduced[d]) {
      result.type.shape.push_back(in.shape[d]);
      result.dims.push_back(operand.dims.back());
      continue;
    }
    op->mean_count *= in.shape[d];
    if (keepdim) {
      result.type.shape.push_back(1);
      result.dims.push_back({});
    }
  }
  if (row.spec == "mean") op->lowering = Lowering::kMean;
  op->operands.push_back(std::move(operand));
  op->results.push_back(std::move(result));
  return absl::OkStatus();
}

absl::Status BuildAlongDim(const OpRow& row, const OpCall& call,
                           OpInstance* op) {
  SP_RETURN_IF_ERROR(BuildPointwise(row, call, op));
  const int rank = Rank(call.operands[0]);
  std::optional<int64_t> dim = IntArgument(call, 1, "dim");
  if (!dim || *dim < -rank || *dim >= rank) {
    return BadCall(call, absl::StrCat("a dim of ", ToString(call.operands[0])),
                   dim ? absl::StrCat(*dim) : "none");
  }
  for (const int factor : op->operands[0].dims[*dim < 0 ? *dim + rank : *dim]) {
    op->factors[factor].kind = FactorKind::kWhole;
  }
  return absl::OkStatus();
}

absl::Status BuildClassLoss(const OpRow& row, const OpCall& call,
                            OpInstance* op) {
  if (!call.results.empty() || call.operands.empty()) {
    return BuildWhole(row, call, op);
  }
  constexpr int64_t kNone = 0;
  constexpr int64_t kMean = 1;
  const TensorType& scores = call.operands[0];
  TensorType loss{scores.dtype, {}};
  if (IntArgument(call, 3, "reduction").value_or(kMean) == kNone &&
      !scores.shape.empty()) {
    loss.shape = scores.shape;
    loss.shape.erase(loss.shape.begin() + (Rank(scores) > 1 ? 1 : 0));
  }
  OpCall typed = call;
  typed.results = {std::move(loss)};
  return BuildWhole(row, typed, op);
}

absl::Status BuildWhole(const OpRow&, const OpCall& call, OpInstance* op) {
  if (call.results.empty()) {
    return BadCall(call, "results recorded by the exporter", "none");
  }
  for (const TensorType& type : call.operands) {
    OperandRule operand;
    for (const int64_t size : type.shape) {
      operand.dims.push_back({AddFactor(op, size, FactorKind::kWhole)});
    }
    op->operands.push_back(std::move(operand));
  }
  for (const TensorType& type : call.results) {
    op->results.push_back({type, DimFactors(type.shape.size())});
  }
  return absl::OkStatus();
}

}  // namespace shardplane
