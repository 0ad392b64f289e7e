// Rows of ops that need some dims whole, or sum over them.
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/errors.h"
#include "common/op_builders.h"
#include "common/op_rules.h"

namespace shardplane {
namespace {

struct AlongSpec {
  int dim = -1;  // the argument
  std::optional<int64_t> otherwise;
  bool or_all = false;
  bool reduced = false;
  int keep = kKeywordOnly;
  absl::string_view gives = "x";
};

AlongSpec ReadAlong(absl::string_view text) {
  AlongSpec spec;
  for (absl::string_view word : absl::StrSplit(text, ' ', absl::SkipEmpty())) {
    int64_t number = 0;
    if (absl::ConsumePrefix(&word, "dim=") && absl::SimpleAtoi(word, &number)) {
      spec.dim = static_cast<int>(number);
      spec.keep = spec.dim + 1;
    } else if (absl::ConsumePrefix(&word, "keep=") &&
               absl::SimpleAtoi(word, &number)) {
      spec.keep = static_cast<int>(number);
    } else if (absl::ConsumePrefix(&word, "gives=")) {
      spec.gives = word;
    } else if (absl::ConsumePrefix(&word, "or=")) {
      spec.or_all = !absl::SimpleAtoi(word, &number);
      if (!spec.or_all) spec.otherwise = number;
    } else {
      spec.reduced = spec.reduced || word == "reduced";
    }
  }
  return spec;
}

// The dtype of a result, for a letter of `gives`.
DType Given(char gives, DType operand, const OpCall& call) {
  if (gives == 'i') return DType::kInt64;
  if (gives == 'b') return DType::kBool;
  std::vector<Argument> arguments = call.args;
  for (const auto& [name, value] : call.kwargs) arguments.push_back(value);
  for (const Argument& argument : arguments) {
    if (const auto* asked = std::get_if<DType>(&argument.value)) return *asked;
  }
  if (gives == 'r') return RealOf(operand);
  return gives == 's' && !CarriesGradient(operand) ? DType::kInt64 : operand;
}

// Which dims of `type` the op works along.
absl::StatusOr<std::vector<bool>> DimsAlong(const AlongSpec& spec,
                                            const OpCall& call,
                                            const TensorType& type) {
  const int rank = Rank(type);
  std::optional<std::vector<int64_t>> dims;
  if (spec.dim >= 0) {
    dims = IntsArgument(call, spec.dim, "dim");
    if (!dims) dims = IntsArgument(call, spec.dim, "dims");
    if (!dims && spec.otherwise) dims = std::vector<int64_t>{*spec.otherwise};
    if (!dims && !spec.or_all) {
      return BadCall(call, absl::StrCat("a dim of ", ToString(type)), "none");
    }
  }
  const bool all = !dims || (dims->empty() && spec.or_all);
  std::vector<bool> along(rank, all);
  for (const int64_t dim : dims.value_or(std::vector<int64_t>{})) {
    if (rank == 0 && (dim == 0 || dim == -1)) continue;
    if (dim < -rank || dim >= rank) {
      return BadCall(call, absl::StrCat("a dim of ", ToString(type)),
                     absl::StrCat(dim));
    }
    along[dim < 0 ? dim + rank : dim] = true;
  }
  return along;
}

}  // namespace

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
  ResultRule result;
  result.type.dtype = call.results.empty() ? in.dtype : call.results[0].dtype;
  OperandRule operand;
  operand.linear = result.type.dtype == in.dtype;
  for (int d = 0; d < Rank(in); ++d) {
    const FactorKind kind = !reduced[d]       ? FactorKind::kPass
                            : !operand.linear ? FactorKind::kWhole
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
  if (row.spec == "mean") {
    op->lowering = Lowering::kMean;
    op->partial_target = call.target == "aten.mean.default"
                             ? "aten.sum.default"
                             : "aten.sum.dim_IntList";
    op->partial_args = call.args;
    op->partial_kwargs = call.kwargs;
  }
  op->operands.push_back(std::move(operand));
  op->results.push_back(std::move(result));
  return absl::OkStatus();
}

absl::Status BuildAlongDim(const OpRow& row, const OpCall& call,
                           OpInstance* op) {
  OpRow by_element = row;
  by_element.spec = "";
  SP_RETURN_IF_ERROR(BuildPointwise(by_element, call, op));
  const AlongSpec spec = ReadAlong(row.spec);
  ResultRule result = std::move(op->results[0]);
  op->results.clear();
  const int rank = Rank(result.type);
  SP_ASSIGN_OR_RETURN(const std::vector<bool> along,
                      DimsAlong(spec, call, result.type));
  const bool keepdim = BoolArgument(call, spec.keep, "keepdim");
  ResultRule rest;
  rest.type.dtype = result.type.dtype;
  for (int d = 0; d < rank; ++d) {
    for (const int factor : result.dims[d]) {
      if (along[d]) op->factors[factor].kind = FactorKind::kWhole;
    }
    if (along[d] && spec.reduced && !keepdim) continue;
    const bool gone = along[d] && spec.reduced;
    rest.type.shape.push_back(gone ? 1 : result.type.shape[d]);
    rest.dims.push_back(gone ? std::vector<int>{} : result.dims[d]);
  }
  for (const char gives : spec.gives) {
    op->results.push_back(rest);
    op->results.back().type.dtype = Given(gives, rest.type.dtype, call);
  }
  if (op->results[0].type.dtype != result.type.dtype) {
    for (OperandRule& operand : op->operands) operand.linear = false;
  }
  return absl::OkStatus();
}

absl::Status BuildTopK(const OpRow&, const OpCall& call, OpInstance* op) {
  SP_RETURN_IF_ERROR(OneTensor(call));
  const TensorType& in = call.operands[0];
  SP_ASSIGN_OR_RETURN(const int dim, DimArgument(call, 2, Rank(in), -1));
  const int64_t k = IntArgument(call, 1, "k").value_or(-1);
  if (k < 0 || k > in.shape[dim]) {
    return BadCall(call, absl::StrCat("a k of 0 to ", in.shape[dim]),
                   absl::StrCat(k));
  }
  op->operands.push_back({FactorsAround(in.shape, dim, op)});
  ResultRule values{in, op->operands[0].dims};
  values.type.shape[dim] = k;
  values.dims[dim] = {AddFactor(op, k, FactorKind::kWhole)};
  ResultRule indices = values;
  indices.type.dtype = DType::kInt64;
  op->results = {std::move(values), std::move(indices)};
  return absl::OkStatus();
}

absl::Status BuildHistogram(const OpRow&, const OpCall& call, OpInstance* op) {
  SP_RETURN_IF_ERROR(OneTensor(call));
  const double low = DoubleArgument(call, 2, "min").value_or(0);
  const double high = DoubleArgument(call, 3, "max").value_or(0);
  // Without a range it is that of all values.
  const FactorKind kind =
      low < high ? FactorKind::kReduced : FactorKind::kWhole;
  OperandRule operand;
  for (const int64_t size : call.operands[0].shape) {
    operand.dims.push_back({AddFactor(op, size, kind)});
  }
  const int64_t bins = IntArgument(call, 1, "bins").value_or(100);
  ResultRule result{{call.operands[0].dtype, {bins}},
                    {{AddFactor(op, bins, FactorKind::kWhole)}}};
  op->operands.push_back(std::move(operand));
  op->results.push_back(std::move(result));
  op->differentiable = false;
  return absl::OkStatus();
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
