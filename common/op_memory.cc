#include "common/op_memory.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace shardplane {
namespace {

constexpr OpMemory kRows[] = {
    // Sums.
    {.name = "add", .keeps = Keep::kNothing, .passes_gradient = true},
    {.name = "sub", .keeps = Keep::kNothing, .passes_gradient = true},
    {.name = "rsub", .keeps = Keep::kNothing},
    {.name = "sum", .keeps = Keep::kNothing, .passes_gradient = true},
    {.name = "sum_to_size",
     .keeps = Keep::kNothing,
     .passes_gradient = true,
     .may_return_operand = true},
    {.name = "mean", .keeps = Keep::kNothing},
    {.name = "cumsum", .keeps = Keep::kNothing},
    {.name = "neg", .keeps = Keep::kNothing},
    {.name = "complex", .keeps = Keep::kNothing},
    // Products.
    {.name = "linear", .keeps = Keep::kProduct},
    {.name = "mm", .keeps = Keep::kProduct},
    {.name = "bmm", .keeps = Keep::kProduct},
    {.name = "matmul", .keeps = Keep::kProduct},
    {.name = "addmm", .keeps = Keep::kProduct},
    {.name = "baddbmm", .keeps = Keep::kProduct},
    {.name = "mv", .keeps = Keep::kProduct},
    {.name = "dot", .keeps = Keep::kProduct},
    {.name = "einsum", .keeps = Keep::kProduct, .may_return_operand = true},
    {.name = "conv1d", .keeps = Keep::kProduct},
    {.name = "conv2d", .keeps = Keep::kProduct},
    {.name = "convolution", .keeps = Keep::kProduct},
    {.name = "mul", .keeps = Keep::kProduct},
    {.name = "div", .keeps = Keep::kQuotient},
    // By element, from the result.
    {.name = "relu", .keeps = Keep::kResult},
    {.name = "sigmoid", .keeps = Keep::kResult},
    {.name = "polar", .keeps = Keep::kResult},
    {.name = "tanh", .keeps = Keep::kResult},
    {.name = "exp", .keeps = Keep::kResult},
    {.name = "exp2", .keeps = Keep::kResult, .backward_scratch = 1},
    {.name = "sqrt", .keeps = Keep::kResult, .backward_scratch = 1},
    {.name = "rsqrt", .keeps = Keep::kResult, .backward_scratch = 2},
    {.name = "reciprocal", .keeps = Keep::kResult, .backward_scratch = 2},
    {.name = "softmax", .keeps = Keep::kResult},
    {.name = "_softmax", .keeps = Keep::kResult},
    {.name = "log_softmax", .keeps = Keep::kResult},
    {.name = "_log_softmax", .keeps = Keep::kResult},
    // By element, from the operand.
    {.name = "gelu", .keeps = Keep::kFirst},
    {.name = "silu", .keeps = Keep::kFirst},
    {.name = "elu", .keeps = Keep::kFirst},
    {.name = "leaky_relu", .keeps = Keep::kFirst},
    {.name = "log", .keeps = Keep::kFirst},
    {.name = "pow", .keeps = Keep::kFirst, .backward_scratch = 1},
    {.name = "square", .keeps = Keep::kFirst, .backward_scratch = 1},
    {.name = "abs", .keeps = Keep::kFirst, .backward_scratch = 1},
    {.name = "sin", .keeps = Keep::kFirst, .backward_scratch = 1},
    {.name = "cos", .keeps = Keep::kFirst, .backward_scratch = 1},
    {.name = "swiglu", .keeps = Keep::kOperands},
    {.name = "rotary", .keeps = Keep::kSecond},
    {.name = "where", .keeps = Keep::kFirst},
    {.name = "masked_fill", .keeps = Keep::kSecond},
    {.name = "dropout",
     .keeps = Keep::kNothing,
     .forward_scratch = 1,
     .backward_scratch = 1,
     .mask_bytes = 1,
     .may_return_operand = true},
    // Norms and losses.
    {.name = "layer_norm", .keeps = Keep::kFirst},
    {.name = "group_norm", .keeps = Keep::kFirst},
    {.name = "batch_norm", .keeps = Keep::kFirst},
    {.name = "rms_norm",
     .keeps = Keep::kFirst,
     .extra_kept = 1,
     .forward_scratch = 1,
     .backward_scratch = 2},
    {.name = "cast_rms_norm", .keeps = Keep::kFirst},
    {.name = "add_rms_norm", .keeps = Keep::kResult, .passes_gradient = true},
    {.name = "var", .keeps = Keep::kFirst, .backward_scratch = 1},
    {.name = "cross_entropy_loss",
     .keeps = Keep::kNothing,
     .extra_kept = 1,
     .backward_scratch = 1},
    {.name = "cross_entropy", .keeps = Keep::kFirst, .forward_scratch = 1},
    {.name = "nll_loss_nd", .keeps = Keep::kFirst},
    {.name = "class_max", .keeps = Keep::kNothing},
    {.name = "cross_entropy_terms",
     .keeps = Keep::kFirst,
     .extra_kept = 1,
     .forward_scratch = 1,
     .backward_scratch = 1},
    // Attention.
    {.name = "scaled_dot_product_attention", .keeps = Keep::kOperandsAndResult},
    {.name = "attention", .keeps = Keep::kOperandsAndResult},
    // Rows that are looked up.
    {.name = "embedding", .keeps = Keep::kSecond},
    {.name = "index", .keeps = Keep::kSecond},
    {.name = "gather", .keeps = Keep::kSecond},
    {.name = "index_select", .keeps = Keep::kSecond},
    // Copies and pieces.
    {.name = "cat", .keeps = Keep::kNothing},
    {.name = "stack", .keeps = Keep::kNothing},
    {.name = "clone", .keeps = Keep::kNothing, .passes_gradient = true},
    {.name = "repeat", .keeps = Keep::kNothing},
    {.name = "repeat_interleave", .keeps = Keep::kNothing},
    {.name = "tril", .keeps = Keep::kNothing},
    {.name = "triu", .keeps = Keep::kNothing},
    {.name = "constant_pad_nd", .keeps = Keep::kNothing},
    {.name = "pad", .keeps = Keep::kNothing},
    {.name = "to", .keeps = Keep::kNothing, .may_return_operand = true},
    {.name = "_to_copy", .keeps = Keep::kNothing},
    {.name = "type_as", .keeps = Keep::kNothing, .may_return_operand = true},
    {.name = "contiguous",
     .result = ResultMemory::kViewOrCopy,
     .keeps = Keep::kNothing},
    {.name = "reshape",
     .result = ResultMemory::kViewOrCopy,
     .keeps = Keep::kNothing},
    {.name = "flatten",
     .result = ResultMemory::kViewOrCopy,
     .keeps = Keep::kNothing},
    // Views.
    {.name = "view_as_complex",
     .result = ResultMemory::kView,
     .keeps = Keep::kNothing},
    {.name = "view_as_real",
     .result = ResultMemory::kView,
     .keeps = Keep::kNothing},
    {.name = "_conj", .result = ResultMemory::kView, .keeps = Keep::kNothing},
    {.name = "real", .result = ResultMemory::kPart, .keeps = Keep::kNothing},
    {.name = "imag", .result = ResultMemory::kPart, .keeps = Keep::kNothing},
    {.name = "view", .result = ResultMemory::kView, .keeps = Keep::kNothing},
    {.name = "_unsafe_view",
     .result = ResultMemory::kView,
     .keeps = Keep::kNothing},
    {.name = "unflatten",
     .result = ResultMemory::kView,
     .keeps = Keep::kNothing},
    {.name = "unsqueeze",
     .result = ResultMemory::kView,
     .keeps = Keep::kNothing},
    {.name = "squeeze", .result = ResultMemory::kView, .keeps = Keep::kNothing},
    {.name = "permute", .result = ResultMemory::kView, .keeps = Keep::kNothing},
    {.name = "transpose",
     .result = ResultMemory::kView,
     .keeps = Keep::kNothing},
    {.name = "t", .result = ResultMemory::kView, .keeps = Keep::kNothing},
    {.name = "numpy_T", .result = ResultMemory::kView, .keeps = Keep::kNothing},
    {.name = "mT", .result = ResultMemory::kView, .keeps = Keep::kNothing},
    {.name = "alias", .result = ResultMemory::kView, .keeps = Keep::kNothing},
    {.name = "detach", .result = ResultMemory::kView, .keeps = Keep::kNothing},
    {.name = "expand", .result = ResultMemory::kPart, .keeps = Keep::kNothing},
    {.name = "split", .result = ResultMemory::kPart, .keeps = Keep::kNothing},
    {.name = "split_with_sizes",
     .result = ResultMemory::kPart,
     .keeps = Keep::kNothing},
    {.name = "chunk", .result = ResultMemory::kPart, .keeps = Keep::kNothing},
    {.name = "unbind", .result = ResultMemory::kPart, .keeps = Keep::kNothing},
    {.name = "select", .result = ResultMemory::kPart, .keeps = Keep::kNothing},
    {.name = "slice", .result = ResultMemory::kPart, .keeps = Keep::kNothing},
    {.name = "narrow", .result = ResultMemory::kPart, .keeps = Keep::kNothing},
};

}  // namespace

const OpMemory& MemoryOf(absl::string_view target) {
  static const auto* const table = [] {
    auto* rows = new absl::flat_hash_map<absl::string_view, const OpMemory*>();
    for (const OpMemory& row : kRows) rows->emplace(row.name, &row);
    return rows;
  }();
  static constexpr OpMemory kOther = {.name = ""};
  const size_t begin = target.find('.') + 1;  // npos + 1 is 0
  const size_t end = target.find('.', begin);
  const auto row = table->find(target.substr(begin, end - begin));
  return row == table->end() ? kOther : *row->second;
}

bool IsProduct(const OpMemory& memory) {
  return memory.keeps == Keep::kProduct && memory.name != "mul";
}

namespace {

// Whether an operand of a product other than `index` asks for a gradient; a
// term that is merely added is none.
bool AnotherAsks(const OpMemory& memory, size_t index,
                 const std::vector<bool>& asks) {
  const bool first_is_added =
      memory.name == "addmm" || memory.name == "baddbmm";
  const size_t begin = first_is_added ? 1 : 0;
  const size_t end =
      IsProduct(memory) ? std::min(asks.size(), begin + 2) : asks.size();
  if (index < begin || index >= end) return false;
  for (size_t k = begin; k < end; ++k) {
    if (k != index && asks[k]) return true;
  }
  return false;
}

}  // namespace

bool KeepsOperand(const OpMemory& memory, size_t index,
                  const std::vector<bool>& asks) {
  switch (memory.keeps) {
    case Keep::kNothing:
    case Keep::kResult:
      return false;
    case Keep::kFirst:
    case Keep::kFirstAndResult:
      return index == 0;
    case Keep::kSecond:
      return index == 1;
    case Keep::kOperands:
    case Keep::kOperandsAndResult:
      return true;
    case Keep::kProduct:
      return AnotherAsks(memory, index, asks);
    case Keep::kQuotient:
      return index == 1 || (asks.size() > 1 && asks[1]);
  }
  return false;
}

bool KeepsResult(const OpMemory& memory) {
  const Keep keeps = memory.keeps;
  return keeps == Keep::kResult || keeps == Keep::kFirstAndResult ||
         keeps == Keep::kOperandsAndResult;
}

}  // namespace shardplane
