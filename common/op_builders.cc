#include "common/op_builders.h"

#include <algorithm>
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

// Reads "* k, n k | ^ -> * n" against the operands' shapes.
class EinsumReader {
 public:
  EinsumReader(absl::string_view spec, const OpCall& call, OpInstance* op)
      : call_(call), op_(op) {
    const std::vector<std::string> sides = absl::StrSplit(spec, "->");
    result_ = Labels(sides[1]);
    int term = 0;
    for (absl::string_view text : absl::StrSplit(sides[0], '|')) {
      for (absl::string_view operand : absl::StrSplit(text, ',')) {
        operands_.push_back({Labels(operand), term});
      }
      ++term;
    }
    // A bias of None is not among the tensors.
    while (operands_.size() > call.operands.size()) operands_.pop_back();
  }

  absl::Status Read() {
    if (operands_.size() != call_.operands.size()) {
      return BadCall(call_, absl::StrCat(operands_.size(), " tensors"),
                     absl::StrCat(call_.operands.size()));
    }
    op_->operands.resize(operands_.size());
    for (size_t i = 0; i < operands_.size(); ++i) {
      op_->operands[i].term = operands_[i].term;
      op_->operands[i].linear = true;
      if (operands_[i].labels != std::vector<std::string>{"^"}) {
        SP_RETURN_IF_ERROR(ReadOperand(i));
      }
    }
    SP_RETURN_IF_ERROR(WriteResult());
    for (size_t i = 0; i < operands_.size(); ++i) {
      if (operands_[i].labels == std::vector<std::string>{"^"}) {
        SP_RETURN_IF_ERROR(ReadBroadcast(i));
      }
    }
    return absl::OkStatus();
  }

 private:
  struct Operand {
    std::vector<std::string> labels;
    int term = 0;
  };

  static std::vector<std::string> Labels(absl::string_view text) {
    return absl::StrSplit(text, ' ', absl::SkipEmpty());
  }

  absl::Status ReadOperand(size_t i) {
    const std::vector<std::string>& labels = operands_[i].labels;
    const Shape& shape = call_.operands[i].shape;
    const bool star = !labels.empty() && labels[0] == "*";
    const int named = static_cast<int>(labels.size()) - (star ? 1 : 0);
    const int lead = static_cast<int>(shape.size()) - named;
    if (lead < 0 || (!star && lead > 0)) {
      return BadCall(call_,
                     absl::StrCat("operand ", i, " with ", named,
                                  star ? " dims or more" : " dims"),
                     ToString(call_.operands[i]));
    }
    DimFactors& dims = op_->operands[i].dims;
    for (int d = 0; d < lead; ++d) {
      SP_RETURN_IF_ERROR(Bind(absl::StrCat("*", lead - d), shape[d],
                              /*broadcasts=*/true, &dims));
    }
    for (int n = 0; n < named; ++n) {
      SP_RETURN_IF_ERROR(Bind(labels[n + (star ? 1 : 0)], shape[lead + n],
                              /*broadcasts=*/false, &dims));
    }
    lead_ = std::max(lead_, star ? lead : 0);
    return absl::OkStatus();
  }

  absl::Status Bind(const std::string& label, int64_t size, bool broadcasts,
                    DimFactors* dims) {
    auto [it, is_new] = bound_.try_emplace(label, -1);
    if (broadcasts && size == 1) {
      dims->push_back({});
      return absl::OkStatus();
    }
    if (it->second < 0) {
      it->second = AddFactor(op_, size, FactorKind::kReduced);
    } else if (op_->factors[it->second].size != size) {
      return BadCall(call_,
                     absl::StrCat("size ", op_->factors[it->second].size,
                                  " for dim ", label, " of every operand"),
                     absl::StrCat(size));
    }
    dims->push_back({it->second});
    return absl::OkStatus();
  }

  absl::Status WriteResult() {
    ResultRule result;
    result.type.dtype = call_.operands[0].dtype;
    std::vector<std::string> labels;
    for (const std::string& label : result_) {
      if (label != "*") {
        labels.push_back(label);
        continue;
      }
      for (int d = lead_; d > 0; --d) labels.push_back(absl::StrCat("*", d));
    }
    for (const std::string& label : labels) {
      const int factor = bound_[label];
      if (factor < 0) {  // 1 in every operand
        result.type.shape.push_back(1);
        result.dims.push_back({});
        continue;
      }
      op_->factors[factor].kind = FactorKind::kPass;
      result.type.shape.push_back(op_->factors[factor].size);
      result.dims.push_back({factor});
    }
    op_->results.push_back(std::move(result));
    return absl::OkStatus();
  }

  absl::Status ReadBroadcast(size_t i) {
    const Shape& shape = call_.operands[i].shape;
    const ResultRule& result = op_->results[0];
    const int skip = Rank(result.type) - static_cast<int>(shape.size());
    if (skip < 0) {
      return BadCall(call_, ToString(result.type), ToString(call_.operands[i]));
    }
    for (size_t d = 0; d < shape.size(); ++d) {
      if (shape[d] != 1 && shape[d] != result.type.shape[skip + d]) {
        return BadCall(call_, ToString(result.type),
                       ToString(call_.operands[i]));
      }
      op_->operands[i].dims.push_back(shape[d] == 1 ? std::vector<int>{}
                                                    : result.dims[skip + d]);
    }
    return absl::OkStatus();
  }

  const OpCall& call_;
  OpInstance* op_;
  std::vector<Operand> operands_;
  std::vector<std::string> result_;
  absl::btree_map<std::string, int> bound_;
  int lead_ = 0;
};

// Two flops for each combination of factors of the first term with two
// operands; none for a sum.
int64_t EinsumFlops(const OpInstance& op) {
  int64_t flops = 2;
  for (const Factor& factor : op.factors) flops *= factor.size;
  return flops;
}

DType Promote(DType a, DType b) {
  if (a == b) return a;
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

// The broadcast shape, and a factor for each of its dims that is not 1.
absl::Status Broadcast(const OpCall& call, OpInstance* op) {
  ResultRule result;
  size_t rank = 0;
  for (const TensorType& t : call.operands) {
    rank = std::max(rank, t.shape.size());
  }
  result.type.shape.assign(rank, 1);
  result.type.dtype = call.operands[0].dtype;
  for (const TensorType& t : call.operands) {
    result.type.dtype = Promote(result.type.dtype, t.dtype);
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

absl::Status BadCall(const OpCall& call, absl::string_view expected,
                     absl::string_view got) {
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat(call.target, " expects ", expected, "; got: ", got),
      {"OP_CALL_INVALID", {{"op", call.target}}});
}

const Argument* FindArgument(const OpCall& call, int index,
                             absl::string_view name) {
  const Argument* found = nullptr;
  if (index < static_cast<int>(call.args.size())) {
    found = &call.args[index];
  } else if (const auto it = call.kwargs.find(std::string(name));
             it != call.kwargs.end()) {
    found = &it->second;
  }
  if (found != nullptr &&
      std::holds_alternative<std::monostate>(found->value)) {
    return nullptr;
  }
  return found;
}

std::optional<int64_t> IntArgument(const OpCall& call, int index,
                                   absl::string_view name) {
  const Argument* argument = FindArgument(call, index, name);
  if (argument == nullptr) return std::nullopt;
  const auto* value = std::get_if<int64_t>(&argument->value);
  return value == nullptr ? std::nullopt : std::optional(*value);
}

std::optional<std::vector<int64_t>> IntsArgument(const OpCall& call, int index,
                                                 absl::string_view name) {
  const Argument* argument = FindArgument(call, index, name);
  if (argument == nullptr) return std::nullopt;
  if (const auto* one = std::get_if<int64_t>(&argument->value)) {
    return std::vector<int64_t>{*one};
  }
  const auto* list = std::get_if<ArgumentList>(&argument->value);
  if (list == nullptr) return std::nullopt;
  std::vector<int64_t> values;
  for (const Argument& item : *list) {
    const auto* value = std::get_if<int64_t>(&item.value);
    if (value == nullptr) return std::nullopt;
    values.push_back(*value);
  }
  return values;
}

absl::Status BuildEinsum(const OpRow& row, const OpCall& call, OpInstance* op) {
  SP_RETURN_IF_ERROR(EinsumReader(row.spec, call, op).Read());
  op->flops = EinsumFlops(*op);
  if (row.partial_target.empty()) return absl::OkStatus();
  if (!call.kwargs.empty()) {  // alpha, beta: the terms cannot be parted
    for (Factor& factor : op->factors) {
      if (factor.kind == FactorKind::kReduced) factor.kind = FactorKind::kWhole;
    }
    return absl::OkStatus();
  }
  for (size_t i = 0; i < op->operands.size(); ++i) {
    const int term = op->operands[i].term;
    const auto in_term = [&](const OperandRule& o) { return o.term == term; };
    if (op->operands.size() == 3 &&
        std::count_if(op->operands.begin(), op->operands.end(), in_term) == 1) {
      op->lowering = Lowering::kAddTerm;
      op->added_operand = static_cast<int>(i);
      op->partial_target = std::string(row.partial_target);
    }
  }
  return absl::OkStatus();
}

absl::Status BuildMatmul(const OpRow& row, const OpCall& call, OpInstance* op) {
  if (call.operands.size() != 2) {
    return BadCall(call, "two tensors", absl::StrCat(call.operands.size()));
  }
  const int a = Rank(call.operands[0]);
  const int b = Rank(call.operands[1]);
  OpRow with_spec = row;
  with_spec.spec = a == 1 && b == 1   ? "k, k -> "
                   : a == 1           ? "k, * k n -> * n"
                   : b == 1           ? "* k, k -> *"
                   : a == 2 && b == 2 ? "m k, k n -> m n"
                   : b == 2           ? "* k, k n -> * n"
                                      : "* m k, * k n -> * m n";
  return BuildEinsum(with_spec, call, op);
}

absl::Status BuildPointwise(const OpRow& row, const OpCall& call,
                            OpInstance* op) {
  if (call.operands.empty()) return BadCall(call, "a tensor", "none");
  SP_RETURN_IF_ERROR(Broadcast(call, op));
  if (row.spec == "bool") {
    op->results[0].type.dtype = DType::kBool;
    op->differentiable = false;
  }
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
  const Argument* asked = FindArgument(call, 1, "dtype");
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
  if (!off) {
    return MakeError(
        absl::StatusCode::kUnimplemented,
        absl::StrCat(call.target,
                     " in train mode is not supported yet; put "
                     "the module into eval mode or set p to 0"),
        {"OP_UNSUPPORTED", {{"op", call.target}, {"remedy", "module.eval()"}}});
  }
  SP_RETURN_IF_ERROR(BuildPointwise(row, call, op));
  op->target = "aten.alias.default";
  op->args.resize(1);
  op->kwargs.clear();
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
    return MakeError(
        absl::StatusCode::kUnimplemented,
        absl::StrCat(call.target, " is not supported with; got: ", name),
        {"OP_UNSUPPORTED", {{"op", call.target}, {"option", name}}});
  }
  const Shape& weight = call.operands[0].shape;
  // Ids are looked up in the whole vocabulary.
  const int vocabulary = AddFactor(op, weight[0], FactorKind::kWhole);
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
  op->results.push_back(std::move(result));
  return absl::OkStatus();
}

}  // namespace shardplane
