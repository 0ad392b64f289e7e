// Rows of products: einsum with terms.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "common/errors.h"
#include "common/op_builders.h"
#include "common/op_rules.h"

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
      const bool broadcasts = shape[d] == 1 && result.type.shape[skip + d] != 1;
      op_->operands[i].dims.push_back(broadcasts ? std::vector<int>{}
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

// Reads "bij, ...jk -> ...ik" against the operands' shapes. A letter that
// stands twice in one operand is a diagonal, whose dim must be whole.
class EquationReader {
 public:
  EquationReader(const std::string& equation, const OpCall& call,
                 OpInstance* op)
      : call_(call), op_(op) {
    const std::string bare = absl::StrReplaceAll(equation, {{" ", ""}});
    const std::vector<std::string> sides = absl::StrSplit(bare, "->");
    operands_ = absl::StrSplit(sides[0], ',');
    result_ = sides.size() > 1 ? sides[1] : Implied();
  }

  absl::Status Read() {
    if (operands_.size() != call_.operands.size()) return Misfit(0);
    std::vector<std::vector<std::string>> labels;
    for (size_t i = 0; i < operands_.size(); ++i) {
      labels.push_back(Labels(operands_[i], Rank(call_.operands[i])));
      if (static_cast<int>(labels[i].size()) != Rank(call_.operands[i])) {
        return Misfit(i);
      }
      for (size_t d = 0; d < labels[i].size(); ++d) {
        int64_t& size = sizes_.try_emplace(labels[i][d], 1).first->second;
        const int64_t own = call_.operands[i].shape[d];
        if (own != 1 && size != 1 && own != size) return Misfit(i);
        if (own != 1) size = own;
      }
    }
    for (const auto& [label, size] : sizes_) {
      if (size == 1) continue;
      factors_[label] = AddFactor(op_, size, FactorKind::kReduced);
    }
    WriteResult();
    for (size_t i = 0; i < operands_.size(); ++i) WriteOperand(i, labels[i]);
    return absl::OkStatus();
  }

 private:
  absl::Status Misfit(size_t operand) const {
    return BadCall(call_, "operands that fit the equation",
                   operand < call_.operands.size()
                       ? ToString(call_.operands[operand])
                       : "fewer");
  }

  // Letters that stand once, in their order, behind the broadcast dims.
  std::string Implied() const {
    std::string result;
    bool broadcasts = false;
    for (char letter : kLetters) {
      int count = 0;
      for (const std::string& operand : operands_) {
        count += static_cast<int>(
            std::count(operand.begin(), operand.end(), letter));
        broadcasts = broadcasts || absl::StrContains(operand, "...");
      }
      if (count == 1) result += letter;
    }
    return broadcasts ? "..." + result : result;
  }

  // Broadcast dims are named "1", "2" from the right.
  static std::vector<std::string> Labels(const std::string& text, int rank) {
    std::vector<std::string> labels;
    const int letters = static_cast<int>(
        std::count_if(text.begin(), text.end(), absl::ascii_isalpha));
    for (size_t i = 0; i < text.size(); ++i) {
      if (absl::ascii_isalpha(text[i])) {
        labels.push_back(std::string(1, text[i]));
      } else if (text[i] == '.') {
        for (int d = rank - letters; d > 0; --d) {
          labels.push_back(absl::StrCat(d));
        }
        i += 2;
      }
    }
    return labels;
  }

  void WriteResult() {
    int broadcast = 0;
    while (sizes_.contains(absl::StrCat(broadcast + 1))) ++broadcast;
    const int letters = static_cast<int>(
        std::count_if(result_.begin(), result_.end(), absl::ascii_isalpha));
    ResultRule result{{call_.operands[0].dtype, {}}, {}};
    for (const std::string& label : Labels(result_, letters + broadcast)) {
      result.type.shape.push_back(sizes_[label]);
      result.dims.push_back(FactorOf(label));
      if (factors_.contains(label)) {
        op_->factors[factors_[label]].kind = FactorKind::kPass;
      }
    }
    op_->results.push_back(std::move(result));
  }

  void WriteOperand(size_t i, const std::vector<std::string>& labels) {
    OperandRule operand{{}, 0, /*linear=*/true};
    for (size_t d = 0; d < labels.size(); ++d) {
      operand.dims.push_back(call_.operands[i].shape[d] == 1
                                 ? std::vector<int>{}
                                 : FactorOf(labels[d]));
      if (std::count(labels.begin(), labels.end(), labels[d]) > 1 &&
          factors_.contains(labels[d])) {
        op_->factors[factors_[labels[d]]].kind = FactorKind::kWhole;
      }
    }
    op_->operands.push_back(std::move(operand));
  }

  std::vector<int> FactorOf(const std::string& label) const {
    const auto it = factors_.find(label);
    return it == factors_.end() ? std::vector<int>{}
                                : std::vector<int>{it->second};
  }

  // In the order in which an implied result has them.
  static constexpr absl::string_view kLetters =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

  const OpCall& call_;
  OpInstance* op_;
  std::vector<std::string> operands_;
  std::string result_;
  absl::btree_map<std::string, int64_t> sizes_;
  absl::btree_map<std::string, int> factors_;
};

// Two flops for each combination of factors of the first term with two
// operands; none for a sum.
int64_t EinsumFlops(const OpInstance& op) {
  int64_t flops = 2;
  for (const Factor& factor : op.factors) flops *= factor.size;
  return flops;
}

}  // namespace

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

absl::Status BuildEquation(const OpRow&, const OpCall& call, OpInstance* op) {
  const Argument* equation = FindArgument(call, 0, "equation");
  const auto* text = equation == nullptr
                         ? nullptr
                         : std::get_if<std::string>(&equation->value);
  if (text == nullptr) return BadCall(call, "an equation", "none");
  SP_RETURN_IF_ERROR(EquationReader(*text, call, op).Read());
  op->flops = EinsumFlops(*op);
  return absl::OkStatus();
}

absl::Status BuildTensordot(const OpRow& row, const OpCall& call,
                            OpInstance* op) {
  const auto left = IntsArgument(call, 2, "dims_self");
  const auto right = IntsArgument(call, 3, "dims_other");
  if (call.operands.size() != 2 || !left || !right ||
      left->size() != right->size()) {
    return BadCall(call, "two tensors and as many dims of each", "others");
  }
  std::string sides[2];
  std::string result;
  for (int side = 0; side < 2; ++side) {
    const int rank = Rank(call.operands[side]);
    const auto& dims = side == 0 ? *left : *right;
    for (int d = 0; d < rank; ++d) {
      std::string label = absl::StrCat(side == 0 ? "m" : "n", d);
      for (size_t i = 0; i < dims.size(); ++i) {
        if (dims[i] == d || dims[i] == d - rank) label = absl::StrCat("k", i);
      }
      absl::StrAppend(&sides[side], label, " ");
      if (label[0] != 'k') absl::StrAppend(&result, label, " ");
    }
  }
  const std::string spec = absl::StrCat(sides[0], ", ", sides[1], "->", result);
  return BuildEinsum({row.target, nullptr, spec}, call, op);
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

}  // namespace shardplane
