// Rows of ops that join, part and pick along a dim, and of factories.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/op_builders.h"
#include "common/op_rules.h"

namespace shardplane {
namespace {

// A result like the operand, but for another size along `dim`.
ResultRule Resized(const OpCall& call, int dim, int64_t size, OpInstance* op) {
  ResultRule result{call.operands[0], op->operands[0].dims};
  result.type.shape[dim] = size;
  result.dims[dim] = {AddFactor(op, size, FactorKind::kWhole)};
  return result;
}

// The sizes of the parts that a split makes of `size` elements.
std::optional<std::vector<int64_t>> PartSizes(absl::string_view how,
                                              const OpCall& call,
                                              int64_t size) {
  if (how == "sizes") return IntsArgument(call, 1, "split_sizes");
  const bool chunks = how == "chunk";
  const auto asked = IntArgument(call, 1, chunks ? "chunks" : "split_size");
  if (!asked || *asked <= 0) return std::nullopt;
  const int64_t part =
      std::max<int64_t>(1, chunks ? (size + *asked - 1) / *asked : *asked);
  std::vector<int64_t> sizes;
  for (int64_t at = 0; at < size; at += part) {
    sizes.push_back(std::min(part, size - at));
  }
  if (sizes.empty()) sizes.push_back(0);
  return sizes;
}

// Start or end of a slice, within [0, size].
int64_t ClampIndex(std::optional<int64_t> index, int64_t otherwise,
                   int64_t size) {
  int64_t at = index.value_or(otherwise);
  if (at < 0) at += size;
  return std::clamp<int64_t>(at, 0, size);
}

DType DTypeArgument(const OpCall& call, DType otherwise) {
  const Argument* asked = FindArgument(call, kKeywordOnly, "dtype");
  const auto* dtype =
      asked == nullptr ? nullptr : std::get_if<DType>(&asked->value);
  return dtype == nullptr ? otherwise : *dtype;
}

}  // namespace

absl::Status BuildCat(const OpRow&, const OpCall& call, OpInstance* op) {
  if (call.operands.empty()) return BadCall(call, "tensors", "none");
  const Shape& first = call.operands[0].shape;
  SP_ASSIGN_OR_RETURN(const int dim,
                      DimArgument(call, 1, static_cast<int>(first.size()), 0));
  bool one_dtype = true;
  int64_t size = 0;
  for (const TensorType& type : call.operands) {
    OperandRule operand;
    operand.dims = op->operands.empty() ? FactorsAround(first, dim, op)
                                        : op->operands[0].dims;
    bool fits = type.shape.size() == first.size();
    for (int d = 0; fits && d < Rank(type); ++d) {
      fits = d == dim || type.shape[d] == first[d];
    }
    if (!fits) {
      return BadCall(call,
                     absl::StrCat("tensors like ", ToString(call.operands[0]),
                                  " but for dim ", dim),
                     ToString(type));
    }
    operand.dims[dim] = {AddFactor(op, type.shape[dim], FactorKind::kWhole)};
    operand.term = static_cast<int>(op->operands.size());
    one_dtype = one_dtype && type.dtype == call.operands[0].dtype;
    size += type.shape[dim];
    op->operands.push_back(std::move(operand));
  }
  for (OperandRule& operand : op->operands) operand.linear = one_dtype;
  ResultRule result = Resized(call, dim, size, op);
  for (const TensorType& type : call.operands) {
    result.type.dtype = Promote(result.type.dtype, type.dtype);
  }
  op->results.push_back(std::move(result));
  return absl::OkStatus();
}

absl::Status BuildStack(const OpRow&, const OpCall& call, OpInstance* op) {
  if (call.operands.empty()) return BadCall(call, "tensors", "none");
  const TensorType& first = call.operands[0];
  SP_ASSIGN_OR_RETURN(const int dim, DimArgument(call, 1, Rank(first) + 1, 0));
  const DimFactors dims = FactorsAround(first.shape, -1, op);
  for (const TensorType& type : call.operands) {
    if (type != first) return BadCall(call, ToString(first), ToString(type));
    op->operands.push_back(
        {dims, static_cast<int>(op->operands.size()), /*linear=*/true});
  }
  const auto count = static_cast<int64_t>(call.operands.size());
  ResultRule result{first, dims};
  result.type.shape.insert(result.type.shape.begin() + dim, count);
  result.dims.insert(result.dims.begin() + dim,
                     {AddFactor(op, count, FactorKind::kWhole)});
  op->results.push_back(std::move(result));
  return absl::OkStatus();
}

namespace {

// Along `dim`, one after the other.
DimFactors PartedAlong(const Shape& shape, int dim,
                       const std::vector<int64_t>& sizes, OpInstance* op) {
  DimFactors dims = FactorsAround(shape, -1, op);
  PartedFactor parted{dims[dim][0], {}};
  for (const int64_t size : sizes) {
    parted.parts.push_back(AddFactor(op, size, FactorKind::kPass));
  }
  op->parted.push_back(std::move(parted));
  op->parted_dim = dim;
  return dims;
}

// Part `index` of what PartedAlong has parted.
ResultRule PartedResult(const TensorType& in, int dim, int index,
                        const OpInstance& op) {
  const int factor = op.parted[0].parts[index];
  ResultRule result{in, op.operands[0].dims};
  result.type.shape[dim] = op.factors[factor].size;
  result.dims[dim] = {factor};
  return result;
}

}  // namespace

absl::Status BuildSplit(const OpRow& row, const OpCall& call, OpInstance* op) {
  SP_RETURN_IF_ERROR(OneTensor(call));
  const TensorType& in = call.operands[0];
  SP_ASSIGN_OR_RETURN(const int dim, DimArgument(call, 2, Rank(in), 0));
  const auto sizes = PartSizes(row.spec, call, in.shape[dim]);
  int64_t total = 0;
  for (const int64_t size : sizes.value_or(std::vector<int64_t>{})) {
    total += size;
  }
  if (!sizes || total != in.shape[dim]) {
    return BadCall(call, absl::StrCat("parts of ", in.shape[dim], " elements"),
                   absl::StrCat(total));
  }
  op->operands.push_back({PartedAlong(in.shape, dim, *sizes, op), 0,
                          /*linear=*/true});
  for (size_t i = 0; i < sizes->size(); ++i) {
    op->results.push_back(PartedResult(in, dim, static_cast<int>(i), *op));
  }
  op->lowering = Lowering::kSplit;
  return absl::OkStatus();
}

absl::Status BuildUnbind(const OpRow&, const OpCall& call, OpInstance* op) {
  SP_RETURN_IF_ERROR(OneTensor(call));
  const TensorType& in = call.operands[0];
  SP_ASSIGN_OR_RETURN(const int dim, DimArgument(call, 1, Rank(in), 0));
  op->operands.push_back(
      {FactorsAround(in.shape, dim, op), 0, /*linear=*/true});
  ResultRule result{in, op->operands[0].dims};
  result.type.shape.erase(result.type.shape.begin() + dim);
  result.dims.erase(result.dims.begin() + dim);
  op->results.assign(in.shape[dim], result);
  return absl::OkStatus();
}

absl::Status BuildSelect(const OpRow&, const OpCall& call, OpInstance* op) {
  SP_RETURN_IF_ERROR(OneTensor(call));
  const TensorType& in = call.operands[0];
  SP_ASSIGN_OR_RETURN(const int dim, DimArgument(call, 1, Rank(in), 0));
  const auto index = IntArgument(call, 2, "index");
  if (!index || *index < -in.shape[dim] || *index >= in.shape[dim]) {
    return BadCall(call, absl::StrCat("an index below ", in.shape[dim]),
                   index ? absl::StrCat(*index) : "none");
  }
  op->operands.push_back(
      {FactorsAround(in.shape, dim, op), 0, /*linear=*/true});
  ResultRule result{in, op->operands[0].dims};
  result.type.shape.erase(result.type.shape.begin() + dim);
  result.dims.erase(result.dims.begin() + dim);
  op->results.push_back(std::move(result));
  return absl::OkStatus();
}

absl::Status BuildSlice(const OpRow& row, const OpCall& call, OpInstance* op) {
  SP_RETURN_IF_ERROR(OneTensor(call));
  const TensorType& in = call.operands[0];
  SP_ASSIGN_OR_RETURN(const int dim, DimArgument(call, 1, Rank(in), 0));
  const int64_t size = in.shape[dim];
  const bool by_length = row.spec == "length";
  const int64_t step = by_length ? 1 : IntArgument(call, 4, "step").value_or(1);
  if (step < 1) return BadCall(call, "a step above 0", absl::StrCat(step));
  const int64_t start = ClampIndex(IntArgument(call, 2, "start"), 0, size);
  int64_t end = ClampIndex(IntArgument(call, 3, "end"), size, size);
  if (by_length) {
    const int64_t length = IntArgument(call, 3, "length").value_or(-1);
    end = start + length;
    if (length < 0 || end > size) {
      return BadCall(call, absl::StrCat("a part of ", size, " elements"),
                     absl::StrCat(length, " from ", start));
    }
  }
  if (start == 0 && end == size && step == 1) {  // all of it
    SP_RETURN_IF_ERROR(
        BuildPointwise({row.target, nullptr, "", Linearity::kEach}, call, op));
    op->target = "aten.alias.default";
    op->args.resize(1);
    op->kwargs.clear();
    return absl::OkStatus();
  }
  if (step == 1 && start < end) {
    op->operands.push_back(
        {PartedAlong(in.shape, dim, {start, end - start, size - end}, op), 0,
         /*linear=*/true});
    op->results.push_back(PartedResult(in, dim, 1, *op));
    op->lowering = Lowering::kPart;
    return absl::OkStatus();
  }
  const int64_t taken = std::max<int64_t>(0, (end - start + step - 1) / step);
  op->operands.push_back(
      {FactorsAround(in.shape, dim, op), 0, /*linear=*/true});
  op->results.push_back(Resized(call, dim, taken, op));
  return absl::OkStatus();
}

absl::Status BuildRepeatInterleave(const OpRow&, const OpCall& call,
                                   OpInstance* op) {
  SP_RETURN_IF_ERROR(OneTensor(call));
  const TensorType& in = call.operands[0];
  const auto repeats = IntArgument(call, 1, "repeats");
  const auto asked = IntArgument(call, 2, "dim");
  if (!repeats || *repeats < 0 || !asked) {
    return BadCall(call, "a number of repeats and a dim", "others");
  }
  SP_ASSIGN_OR_RETURN(const int dim, DimArgument(call, 2, Rank(in), 0));
  op->operands.push_back({FactorsAround(in.shape, -1, op), 0, /*linear=*/true});
  ResultRule result{in, op->operands[0].dims};
  result.type.shape[dim] *= *repeats;
  result.dims[dim].push_back(AddFactor(op, *repeats, FactorKind::kPass));
  op->results.push_back(std::move(result));
  return absl::OkStatus();
}

absl::Status BuildDiff(const OpRow&, const OpCall& call, OpInstance* op) {
  if (call.operands.empty()) return BadCall(call, "a tensor", "none");
  const TensorType& in = call.operands[0];
  SP_ASSIGN_OR_RETURN(const int dim, DimArgument(call, 2, Rank(in), -1));
  const int64_t n = IntArgument(call, 1, "n").value_or(1);
  if (n < 1) return UnsupportedOption(call, absl::StrCat("n=", n));
  int64_t size = -n;
  for (const TensorType& type : call.operands) {
    OperandRule operand{op->operands.empty() ? FactorsAround(in.shape, dim, op)
                                             : op->operands[0].dims};
    if (Rank(type) != Rank(in))
      return BadCall(call, ToString(in), ToString(type));
    operand.dims[dim] = {AddFactor(op, type.shape[dim], FactorKind::kWhole)};
    size += type.shape[dim];
    op->operands.push_back(std::move(operand));
  }
  op->operands[0].linear = op->operands.size() == 1;
  op->results.push_back(Resized(call, dim, std::max<int64_t>(size, 0), op));
  return absl::OkStatus();
}

absl::Status BuildOneHot(const OpRow&, const OpCall& call, OpInstance* op) {
  SP_RETURN_IF_ERROR(OneTensor(call));
  const TensorType& in = call.operands[0];
  const int64_t classes = IntArgument(call, 1, "num_classes").value_or(-1);
  if (classes < 0) return UnsupportedOption(call, "no number of classes");
  op->operands.push_back({FactorsAround(in.shape, -1, op)});
  ResultRule result{in, op->operands[0].dims};
  result.type.shape.push_back(classes);
  result.dims.push_back({AddFactor(op, classes, FactorKind::kWhole)});
  op->results.push_back(std::move(result));
  return absl::OkStatus();
}

absl::Status BuildPad(const OpRow& row, const OpCall& call, OpInstance* op) {
  SP_RETURN_IF_ERROR(OneTensor(call));
  const TensorType& in = call.operands[0];
  const auto pads = IntsArgument(call, 1, "pad");
  if (!pads || pads->size() % 2 != 0 ||
      static_cast<int>(pads->size()) > 2 * Rank(in)) {
    return BadCall(call, absl::StrCat("two pads for dims of ", ToString(in)),
                   pads ? ShapeToString(*pads) : "none");
  }
  const Argument* mode = FindArgument(call, 2, "mode");
  const bool zeros = row.linearity == Linearity::kEach &&
                     (mode == nullptr ||
                      mode->value == Argument{std::string("constant")}.value) &&
                     DoubleArgument(call, 3, "value").value_or(0) == 0;
  op->refuses_empty = mode != nullptr || row.linearity == Linearity::kNone;
  op->operands.push_back({FactorsAround(in.shape, -1, op), 0, zeros});
  ResultRule result{in, op->operands[0].dims};
  for (size_t i = 0; i < pads->size(); i += 2) {  // the last dim comes first
    const int d = Rank(in) - 1 - static_cast<int>(i / 2);
    if ((*pads)[i] == 0 && (*pads)[i + 1] == 0) continue;
    op->factors[op->operands[0].dims[d][0]].kind = FactorKind::kWhole;
    const int64_t size = in.shape[d] + (*pads)[i] + (*pads)[i + 1];
    if (size < 0)
      return BadCall(call, "pads that leave something", ShapeToString(*pads));
    result.type.shape[d] = size;
    result.dims[d] = {AddFactor(op, size, FactorKind::kWhole)};
  }
  op->results.push_back(std::move(result));
  return absl::OkStatus();
}

absl::Status BuildGlu(const OpRow&, const OpCall& call, OpInstance* op) {
  SP_RETURN_IF_ERROR(OneTensor(call));
  const TensorType& in = call.operands[0];
  SP_ASSIGN_OR_RETURN(const int dim, DimArgument(call, 1, Rank(in), -1));
  if (in.shape[dim] % 2 != 0) {
    return BadCall(call, absl::StrCat("an even size of dim ", dim),
                   ToString(in));
  }
  const int64_t half = in.shape[dim] / 2;
  DimFactors dims = FactorsAround(in.shape, -1, op);
  ResultRule result{in, dims};
  result.type.shape[dim] = half;
  result.dims[dim] = {AddFactor(op, half, FactorKind::kPass)};
  dims[dim] = {AddFactor(op, 2, FactorKind::kWhole), result.dims[dim][0]};
  op->operands.push_back({std::move(dims)});
  op->results.push_back(std::move(result));
  return absl::OkStatus();
}

absl::Status BuildUnfold(const OpRow&, const OpCall& call, OpInstance* op) {
  SP_RETURN_IF_ERROR(OneTensor(call));
  const TensorType& in = call.operands[0];
  const int64_t dim = IntArgument(call, 1, "dimension").value_or(Rank(in));
  const int64_t size = IntArgument(call, 2, "size").value_or(-1);
  const int64_t step = IntArgument(call, 3, "step").value_or(0);
  const int at = static_cast<int>(dim < 0 ? dim + Rank(in) : dim);
  if (at < 0 || at >= Rank(in) || step < 1 || size < 0 || size > in.shape[at]) {
    return BadCall(call, absl::StrCat("windows of ", ToString(in)),
                   absl::StrCat("dim ", dim, ", size ", size, ", step ", step));
  }
  op->operands.push_back({FactorsAround(in.shape, at, op), 0, /*linear=*/true});
  ResultRule result = Resized(call, at, (in.shape[at] - size) / step + 1, op);
  result.type.shape.push_back(size);
  result.dims.push_back({AddFactor(op, size, FactorKind::kWhole)});
  op->results.push_back(std::move(result));
  return absl::OkStatus();
}

absl::Status BuildTriangle(const OpRow&, const OpCall& call, OpInstance* op) {
  SP_RETURN_IF_ERROR(OneTensor(call));
  const TensorType& in = call.operands[0];
  if (Rank(in) < 2) return BadCall(call, "2 dims or more", ToString(in));
  DimFactors dims = FactorsAround(in.shape, -1, op);
  for (int d = Rank(in) - 2; d < Rank(in); ++d) {
    op->factors[dims[d][0]].kind = FactorKind::kWhole;
  }
  op->operands.push_back({dims, 0, /*linear=*/true});
  op->results.push_back({in, std::move(dims)});
  return absl::OkStatus();
}

absl::Status BuildFactory(const OpRow& row, const OpCall& call,
                          OpInstance* op) {
  if (!call.operands.empty()) {
    return BadCall(call, "no tensors", absl::StrCat(call.operands.size()));
  }
  TensorType type;
  if (!call.results.empty()) {
    type = call.results[0];
  } else if (const auto size = IntsArgument(call, 0, "size");
             size && !row.spec.empty()) {
    type = {DTypeArgument(call, DType::kFloat32), *size};
  } else if (const auto end = IntArgument(call, 0, "end");
             end && call.args.size() == 1) {  // arange
    type = {DTypeArgument(call, DType::kInt64), {*end}};
  } else {
    return BadCall(call, "results recorded by the exporter", "none");
  }
  op->differentiable = false;
  if (row.spec == "empty") {
    op->target = "aten.zeros.default";
    op->kwargs.erase("memory_format");
  }
  DimFactors dims = FactorsAround(type.shape, -1, op);
  op->results.push_back({std::move(type), std::move(dims)});
  return absl::OkStatus();
}

absl::Status BuildLike(const OpRow& row, const OpCall& call, OpInstance* op) {
  SP_RETURN_IF_ERROR(OneTensor(call));
  SP_RETURN_IF_ERROR(BuildPointwise({row.target, nullptr, ""}, call, op));
  if (!row.spec.empty()) op->target = std::string(row.spec);
  op->results[0].type.dtype = call.results.empty()
                                  ? DTypeArgument(call, call.operands[0].dtype)
                                  : call.results[0].dtype;
  op->differentiable = false;
  return absl::OkStatus();
}

}  // namespace shardplane
