#include "common/op_builders.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/errors.h"

namespace shardplane {
namespace {

// The broadcast shape, and a factor for each of its dims that is not 1.
absl::Status Broadcast(const OpCall& call, OpInstance* op) {
  ResultRule result;
  size_t rank = 0;
  for (const TensorType& t : call.operands) {
    rank = std::max(rank, t.shape.size());
  }
  result.type.shape.assign(rank, 1);
  result.type.dtype = Promote(call.operands);
  for (const TensorType& t : call.operands) {
    for (size_t d = 0; d < t.shape.size(); ++d) {
      int64_t& size = result.type.shape[rank - t.shape.size() + d];
      if (t.shape[d] == 1 || t.shape[d] == size) continue;
      if (size != 1) {
        return BadCall(
            call, "shapes that broadcast",
            absl::StrCat(ToString(call.operands[0]), " and ", ToString(t)));
      }
      size = t.shape[d];
    }
  }
  for (const int64_t size : result.type.shape) {
    result.dims.push_back(
        size == 1 ? std::vector<int>{}
                  : std::vector<int>{AddFactor(op, size, FactorKind::kPass)});
  }
  for (const TensorType& t : call.operands) {
    OperandRule operand;
    const size_t skip = rank - t.shape.size();
    for (size_t d = 0; d < t.shape.size(); ++d) {
      operand.dims.push_back(t.shape[d] == 1 ? std::vector<int>{}
                                             : result.dims[skip + d]);
    }
    op->operands.push_back(std::move(operand));
  }
  op->results.push_back(std::move(result));
  return absl::OkStatus();
}

}  // namespace

DType Promote(DType a, DType b) {
  if (a == b) return a;
  if (IsComplex(a) || IsComplex(b)) {
    return ComplexOf(Promote(RealOf(a), RealOf(b)));
  }
  const bool fa = IsFloatingPoint(a);
  const bool fb = IsFloatingPoint(b);
  if (fa != fb) return fa ? a : b;
  if (a == DType::kBool) return b;
  if (b == DType::kBool) return a;
  if (ByteSize(a) == ByteSize(b)) {
    return fa ? DType::kFloat32 : DType::kInt16;  // f16 with bf16, i8 with u8
  }
  return ByteSize(a) > ByteSize(b) ? a : b;
}

DType Promote(absl::Span<const TensorType> operands) {
  std::optional<DType> with_dims;
  std::optional<DType> without;
  for (const TensorType& type : operands) {
    std::optional<DType>& all = type.shape.empty() ? without : with_dims;
    all = Promote(all.value_or(type.dtype), type.dtype);
  }
  if (!without || !with_dims) return with_dims ? *with_dims : *without;
  if (IsComplex(*with_dims)) return *with_dims;
  if (IsFloatingPoint(*with_dims)) {
    return IsComplex(*without) ? ComplexOf(*with_dims) : *with_dims;
  }
  const bool counts = *with_dims == DType::kBool || CarriesGradient(*without);
  return counts ? Promote(*with_dims, *without) : *with_dims;
}

absl::Status BadCall(const OpCall& call, absl::string_view expected,
                     absl::string_view got) {
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat(call.target, " expects ", expected, "; got: ", got),
      {"OP_CALL_INVALID", {{"op", call.target}}});
}

absl::StatusOr<int> DimArgument(const OpCall& call, int index, int rank,
                                int64_t otherwise) {
  const int64_t dim = IntArgument(call, index, "dim").value_or(otherwise);
  if (dim >= -rank && dim < rank) {
    return static_cast<int>(dim < 0 ? dim + rank : dim);
  }
  return BadCall(call, absl::StrCat("a dim of ", rank, " dims"),
                 absl::StrCat(dim));
}

DimFactors FactorsAround(const Shape& shape, int dim, OpInstance* op) {
  DimFactors dims;
  for (int d = 0; d < static_cast<int>(shape.size()); ++d) {
    dims.push_back({AddFactor(
        op, shape[d], d == dim ? FactorKind::kWhole : FactorKind::kPass)});
  }
  return dims;
}

absl::Status OneTensor(const OpCall& call) {
  if (call.operands.size() == 1) return absl::OkStatus();
  return BadCall(call, "one tensor", absl::StrCat(call.operands.size()));
}

absl::Status Tensors(const OpCall& call, size_t fewest, size_t most) {
  const size_t got = call.operands.size();
  if (got >= fewest && got <= most) return absl::OkStatus();
  return BadCall(call,
                 fewest == most
                     ? absl::StrCat(fewest, " tensors")
                     : absl::StrCat(fewest, " to ", most, " tensors"),
                 absl::StrCat(got));
}

void ResizeTo(absl::string_view target, OpInstance* op) {
  op->target = std::string(target);
  op->args = {op->args[0], Argument{}};
  op->kwargs.clear();
  op->lowering = Lowering::kResize;
  op->sizes_argument = 1;
}

absl::Status RandomOp(const OpCall& call) {
  return MakeError(
      absl::StatusCode::kUnimplemented,
      absl::StrCat("the op draws random numbers, which would differ by rank; "
                   "of random ops there is dropout, whose mask follows from "
                   "the seed whatever the mesh; got: ",
                   call.target),
      {"RANDOM_OP", {{"op", call.target}}});
}

absl::Status UnsupportedOption(const OpCall& call, absl::string_view option) {
  return MakeError(
      absl::StatusCode::kUnimplemented,
      absl::StrCat(call.target,
                   " is supported but for one option; got: ", option),
      {"OP_UNSUPPORTED",
       {{"op", call.target}, {"option", std::string(option)}}});
}

absl::Status BuildPointwise(const OpRow& row, const OpCall& call,
                            OpInstance* op) {
  if (call.operands.empty()) return BadCall(call, "a tensor", "none");
  SP_RETURN_IF_ERROR(Broadcast(call, op));
  if (row.spec == "bool") {
    op->results[0].type.dtype = DType::kBool;
    op->differentiable = false;
  }
  DType& dtype = op->results[0].type.dtype;
  if (row.spec == "first") dtype = call.operands[0].dtype;
  if (row.spec == "real") dtype = RealOf(dtype);
  if (row.spec == "complex") dtype = ComplexOf(dtype);
  const bool alone = op->operands.size() == 1;
  for (size_t i = 0; i < op->operands.size(); ++i) {
    OperandRule& operand = op->operands[i];
    operand.linear = row.linearity == Linearity::kEach ||
                     (row.linearity == Linearity::kSum && !alone) ||
                     (row.linearity == Linearity::kFirst && i == 0);
    operand.term = row.linearity == Linearity::kSum ? static_cast<int>(i) : 0;
  }
  return absl::OkStatus();
}

absl::Status BuildConvert(const OpRow& row, const OpCall& call,
                          OpInstance* op) {
  SP_RETURN_IF_ERROR(BuildPointwise(row, call, op));
  if (!call.results.empty()) op->results[0].type.dtype = call.results[0].dtype;
  // spec: which argument says it, if not the second.
  const int index = row.spec.empty() ? 1 : row.spec[0] - '0';
  const Argument* asked = FindArgument(call, index, "dtype");
  if (asked != nullptr) {
    if (const auto* dtype = std::get_if<DType>(&asked->value)) {
      op->results[0].type.dtype = *dtype;
    }
  }
  // Device and layout are the worker's own.
  const DType dtype = op->results[0].type.dtype;
  op->operands[0].linear = dtype == call.operands[0].dtype;
  op->target = "aten.to.dtype";
  op->args = {call.args[0], Argument{dtype}};
  op->kwargs.clear();
  return absl::OkStatus();
}

absl::Status BuildDropout(const OpRow& row, const OpCall& call,
                          OpInstance* op) {
  const Argument* train = FindArgument(call, 2, "train");
  const Argument* p = FindArgument(call, 1, "p");
  const bool* training =
      train == nullptr ? nullptr : std::get_if<bool>(&train->value);
  const double* rate = p == nullptr ? nullptr : std::get_if<double>(&p->value);
  const bool off =
      (training != nullptr && !*training) || (rate != nullptr && *rate == 0);
  SP_RETURN_IF_ERROR(BuildPointwise(row, call, op));
  op->kwargs.clear();
  if (off) {
    op->target = "aten.alias.default";
    op->args.resize(1);
  } else {
    op->lowering = Lowering::kDropout;
    op->args = {call.args[0], Argument{rate == nullptr ? 0.5 : *rate}};
  }
  return absl::OkStatus();
}

absl::Status BuildNoise(const OpRow& row, const OpCall& call, OpInstance* op) {
  const bool slope = row.spec == "slope";
  const bool off =
      !BoolArgument(call, slope ? 3 : 2, slope ? "training" : "train");
  if (!off) return RandomOp(call);
  SP_RETURN_IF_ERROR(
      BuildPointwise({row.target, nullptr, "", row.linearity}, call, op));
  op->kwargs.clear();
  op->args = {call.args[0]};
  op->target = slope ? "aten.leaky_relu.default" : "aten.alias.default";
  if (slope) {
    const double lower = DoubleArgument(call, 1, "lower").value_or(1.0 / 8);
    const double upper = DoubleArgument(call, 2, "upper").value_or(1.0 / 3);
    op->args.push_back({(lower + upper) / 2});
  }
  return absl::OkStatus();
}

absl::Status BuildEmbedding(const OpRow&, const OpCall& call, OpInstance* op) {
  if (call.operands.size() != 2 || Rank(call.operands[0]) != 2) {
    return BadCall(call, "a 2-dim weight and indices",
                   absl::StrCat(call.operands.size(), " tensors"));
  }
  for (const auto& [index, name] :
       {std::pair(3, "scale_grad_by_freq"), std::pair(4, "sparse")}) {
    const Argument* option = FindArgument(call, index, name);
    const bool* on =
        option == nullptr ? nullptr : std::get_if<bool>(&option->value);
    if (on == nullptr || !*on) continue;
    return UnsupportedOption(call, name);
  }
  const Shape& weight = call.operands[0].shape;
  const int vocabulary = AddFactor(op, weight[0], FactorKind::kReduced);
  const int width = AddFactor(op, weight[1], FactorKind::kPass);
  OperandRule indices;
  ResultRule result{{call.operands[0].dtype, call.operands[1].shape}, {}};
  for (const int64_t size : call.operands[1].shape) {
    indices.dims.push_back({AddFactor(op, size, FactorKind::kPass)});
  }
  result.dims = indices.dims;
  result.dims.push_back({width});
  result.type.shape.push_back(weight[1]);
  op->operands.push_back({{{vocabulary}, {width}}, 0, /*linear=*/true});
  op->operands.push_back(std::move(indices));
  op->lowering = Lowering::kEmbedding;
  const int64_t padding = IntArgument(call, 2, "padding_idx").value_or(-1);
  op->args = {call.args[0], call.args[1], Argument{padding}};
  op->kwargs.clear();
  op->results.push_back(std::move(result));
  return absl::OkStatus();
}

}  // namespace shardplane
