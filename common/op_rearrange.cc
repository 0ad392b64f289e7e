// Rows of ops that repeat or rearrange dims, and of those that take nothing but
// a shape from an operand.
#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/op_builders.h"
#include "common/op_rules.h"

namespace shardplane {
namespace {}  // namespace

absl::Status BuildBroadcast(const OpRow& row, const OpCall& call,
                            OpInstance* op) {
  SP_RETURN_IF_ERROR(BuildPointwise(row, call, op));
  op->results.resize(call.operands.size(), op->results[0]);
  for (size_t i = 0; i < call.operands.size(); ++i) {
    op->results[i].type.dtype = call.operands[i].dtype;
  }
  return absl::OkStatus();
}

absl::Status BuildRepeat(const OpRow&, const OpCall& call, OpInstance* op) {
  SP_RETURN_IF_ERROR(OneTensor(call));
  const TensorType& in = call.operands[0];
  std::vector<int64_t> repeats =
      IntsArgument(call, 1, "repeats")
          .value_or(IntsArgument(call, 1, "dims").value_or(Shape{-1}));
  if (call.target == "aten.tile.default" && repeats.size() < in.shape.size()) {
    repeats.insert(repeats.begin(), in.shape.size() - repeats.size(), 1);
  }
  const int skip = static_cast<int>(repeats.size()) - Rank(in);
  if (skip < 0 || *std::min_element(repeats.begin(), repeats.end()) < 0) {
    return BadCall(call, absl::StrCat(Rank(in), " numbers of repeats or more"),
                   ShapeToString(repeats));
  }
  op->operands.push_back({FactorsAround(in.shape, -1, op), 0, /*linear=*/true});
  ResultRule result{{in.dtype, {}}, {}};
  for (int d = 0; d < static_cast<int>(repeats.size()); ++d) {
    const int64_t size = d < skip ? 1 : in.shape[d - skip];
    result.type.shape.push_back(repeats[d] * size);
    std::vector<int> factors;
    if (repeats[d] != 1) {
      factors.push_back(AddFactor(op, repeats[d], FactorKind::kWhole));
    }
    if (d >= skip && (repeats[d] == 1 || size != 1)) {
      factors.push_back(op->operands[0].dims[d - skip][0]);
    }
    result.dims.push_back(std::move(factors));
  }
  op->results.push_back(std::move(result));
  return absl::OkStatus();
}

absl::Status BuildShapeOf(const OpRow& row, const OpCall& call,
                          OpInstance* op) {
  SP_RETURN_IF_ERROR(Tensors(call, 2, 2));
  // The same with the other's sizes written out, and the other beside it.
  OpCall sized = call;
  sized.operands.pop_back();
  ArgumentList sizes;
  for (const int64_t size : call.operands[1].shape) sizes.push_back({size});
  sized.args = {call.args[0], Argument{std::move(sizes)}};
  if (row.spec == "expand") {
    SP_RETURN_IF_ERROR(BuildExpand(row, sized, op));
  } else {
    SP_RETURN_IF_ERROR(BuildView({row.target, nullptr, "sizes"}, sized, op));
  }
  op->operands.push_back({op->results[0].dims});
  return absl::OkStatus();
}

absl::Status BuildMoveDim(const OpRow&, const OpCall& call, OpInstance* op) {
  SP_RETURN_IF_ERROR(OneTensor(call));
  const int rank = Rank(call.operands[0]);
  const auto from = IntsArgument(call, 1, "source");
  const auto to = IntsArgument(call, 2, "destination");
  std::vector<int64_t> order(rank, -1);
  std::vector<bool> moved(rank, false);
  bool fits = from && to && from->size() == to->size();
  for (size_t i = 0; fits && i < from->size(); ++i) {
    const int64_t a = (*from)[i] < 0 ? (*from)[i] + rank : (*from)[i];
    const int64_t b = (*to)[i] < 0 ? (*to)[i] + rank : (*to)[i];
    fits =
        a >= 0 && a < rank && b >= 0 && b < rank && !moved[a] && order[b] < 0;
    if (!fits) break;
    order[b] = a;
    moved[a] = true;
  }
  if (!fits) return BadCall(call, absl::StrCat("dims of ", rank), "others");
  int next = 0;
  for (int64_t& dim : order) {
    if (dim >= 0) continue;
    while (moved[next]) ++next;
    dim = next++;
  }
  ArgumentList dims;
  for (const int64_t dim : order) dims.push_back({dim});
  OpCall permuted = call;
  permuted.args = {call.args[0], Argument{std::move(dims)}};
  permuted.kwargs.clear();
  op->target = "aten.permute.default";
  op->args = permuted.args;
  op->kwargs.clear();
  return BuildPermute({call.target, nullptr, "dims"}, permuted, op);
}

absl::Status BuildMeshgrid(const OpRow&, const OpCall& call, OpInstance* op) {
  if (call.operands.empty()) return BadCall(call, "tensors", "none");
  ResultRule grid{{call.operands[0].dtype, {}}, {}};
  for (const TensorType& type : call.operands) {
    if (Rank(type) > 1) return BadCall(call, "1-dim tensors", ToString(type));
    const int64_t size = NumElements(type.shape);
    const int factor = AddFactor(op, size, FactorKind::kPass);
    op->operands.push_back(
        {Rank(type) == 0 ? DimFactors{} : DimFactors{{factor}}});
    grid.type.shape.push_back(size);
    grid.dims.push_back({factor});
  }
  const Argument* indexing = FindArgument(call, 1, "indexing");
  if (indexing != nullptr && grid.dims.size() > 1 &&
      indexing->value == Argument{std::string("xy")}.value) {
    std::swap(grid.type.shape[0], grid.type.shape[1]);
    std::swap(grid.dims[0], grid.dims[1]);
  }
  for (const TensorType& type : call.operands) {
    grid.type.dtype = type.dtype;
    op->results.push_back(grid);
  }
  return absl::OkStatus();
}

absl::Status BuildDiagonal(const OpRow&, const OpCall& call, OpInstance* op) {
  SP_RETURN_IF_ERROR(OneTensor(call));
  const TensorType& in = call.operands[0];
  const int64_t offset = IntArgument(call, 1, "offset").value_or(0);
  int64_t a = IntArgument(call, 2, "dim1").value_or(0);
  int64_t b = IntArgument(call, 3, "dim2").value_or(1);
  if (a < 0) a += Rank(in);
  if (b < 0) b += Rank(in);
  if (a == b || std::min(a, b) < 0 || std::max(a, b) >= Rank(in)) {
    return BadCall(call, absl::StrCat("two dims of ", ToString(in)),
                   absl::StrCat(a, " and ", b));
  }
  OperandRule operand{FactorsAround(in.shape, -1, op), 0, /*linear=*/true};
  ResultRule result{{in.dtype, {}}, {}};
  for (int d = 0; d < Rank(in); ++d) {
    if (d == a || d == b) {
      op->factors[operand.dims[d][0]].kind = FactorKind::kWhole;
      continue;
    }
    result.type.shape.push_back(in.shape[d]);
    result.dims.push_back(operand.dims[d]);
  }
  const int64_t size = offset >= 0
                           ? std::min(in.shape[a], in.shape[b] - offset)
                           : std::min(in.shape[a] + offset, in.shape[b]);
  result.type.shape.push_back(std::max<int64_t>(size, 0));
  result.dims.push_back(
      {AddFactor(op, result.type.shape.back(), FactorKind::kWhole)});
  op->operands.push_back(std::move(operand));
  op->results.push_back(std::move(result));
  return absl::OkStatus();
}

absl::Status BuildNewOf(const OpRow& row, const OpCall& call, OpInstance* op) {
  if (call.operands.empty()) return BadCall(call, "a tensor", "none");
  const auto size = IntsArgument(call, 1, "size");
  if (!size) return BadCall(call, "a shape", "none");
  for (const TensorType& type : call.operands) {
    op->operands.push_back({FactorsAround(type.shape, -1, op)});
  }
  const Argument* asked = FindArgument(call, kKeywordOnly, "dtype");
  const auto* dtype =
      asked == nullptr ? nullptr : std::get_if<DType>(&asked->value);
  op->results.push_back(
      {{dtype == nullptr ? call.operands[0].dtype : *dtype, *size},
       FactorsAround(*size, -1, op)});
  op->differentiable = false;
  if (!row.spec.empty()) op->target = std::string(row.spec);
  return absl::OkStatus();
}

}  // namespace shardplane
