#include "common/op_memory.h"

#include <string>

#include "absl/container/flat_hash_map.h"

namespace shardplane {
namespace {

constexpr OpMemory kRows[] = {
    // Sums.
    {.name = "add", .keeps = Keeps::kNothing, .passes_gradient = true},
    {.name = "sub", .keeps = Keeps::kNothing, .passes_gradient = true},
    {.name = "rsub", .keeps = Keeps::kNothing},
    {.name = "sum", .keeps = Keeps::kNothing, .passes_gradient = true},
    {.name = "sum_to_size", .keeps = Keeps::kNothing, .passes_gradient = true},
    {.name = "mean", .keeps = Keeps::kNothing},
    {.name = "cumsum", .keeps = Keeps::kNothing},
    {.name = "neg", .keeps = Keeps::kNothing},
    // Products.
    {.name = "linear", .keeps = Keeps::kProduct},
    {.name = "mm", .keeps = Keeps::kProduct},
    {.name = "bmm", .keeps = Keeps::kProduct},
    {.name = "matmul", .keeps = Keeps::kProduct},
    {.name = "addmm", .keeps = Keeps::kProduct},
    {.name = "baddbmm", .keeps = Keeps::kProduct},
    {.name = "mv", .keeps = Keeps::kProduct},
    {.name = "dot", .keeps = Keeps::kProduct},
    {.name = "einsum", .keeps = Keeps::kProduct},
    {.name = "conv1d", .keeps = Keeps::kProduct},
    {.name = "conv2d", .keeps = Keeps::kProduct},
    {.name = "convolution", .keeps = Keeps::kProduct},
    {.name = "mul", .keeps = Keeps::kProduct},
    {.name = "div", .keeps = Keeps::kQuotient},
    // By element, from the result.
    {.name = "relu", .keeps = Keeps::kResult},
    {.name = "sigmoid", .keeps = Keeps::kResult},
    {.name = "tanh", .keeps = Keeps::kResult},
    {.name = "exp", .keeps = Keeps::kResult},
    {.name = "exp2", .keeps = Keeps::kResult, .backward_scratch = 1},
    {.name = "sqrt", .keeps = Keeps::kResult, .backward_scratch = 1},
    {.name = "rsqrt", .keeps = Keeps::kResult, .backward_scratch = 2},
    {.name = "reciprocal", .keeps = Keeps::kResult, .backward_scratch = 2},
    {.name = "softmax", .keeps = Keeps::kResult},
    {.name = "_softmax", .keeps = Keeps::kResult},
    {.name = "log_softmax", .keeps = Keeps::kResult},
    {.name = "_log_softmax", .keeps = Keeps::kResult},
    // By element, from the operand.
    {.name = "gelu", .keeps = Keeps::kFirst},
    {.name = "silu", .keeps = Keeps::kFirst},
    {.name = "elu", .keeps = Keeps::kFirst},
    {.name = "leaky_relu", .keeps = Keeps::kFirst},
    {.name = "log", .keeps = Keeps::kFirst},
    {.name = "pow", .keeps = Keeps::kFirst, .backward_scratch = 1},
    {.name = "square", .keeps = Keeps::kFirst, .backward_scratch = 1},
    {.name = "abs", .keeps = Keeps::kFirst, .backward_scratch = 1},
    {.name = "sin", .keeps = Keeps::kFirst, .backward_scratch = 1},
    {.name = "cos", .keeps = Keeps::kFirst, .backward_scratch = 1},
    {.name = "where", .keeps = Keeps::kFirst},
    {.name = "masked_fill", .keeps = Keeps::kSecond},
    {.name = "dropout",
     .keeps = Keeps::kNothing,
     .forward_scratch = 1,
     .backward_scratch = 1,
     .mask_bytes = 1},
    // Norms and losses.
    {.name = "layer_norm", .keeps = Keeps::kFirst},
    {.name = "group_norm", .keeps = Keeps::kFirst},
    {.name = "batch_norm", .keeps = Keeps::kFirst},
    {.name = "rms_norm",
     .keeps = Keeps::kFirst,
     .extra_kept = 1,
     .forward_scratch = 1,
     .backward_scratch = 2},
    {.name = "var", .keeps = Keeps::kFirst, .backward_scratch = 1},
    {.name = "cross_entropy_loss",
     .keeps = Keeps::kNothing,
     .extra_kept = 1,
     .backward_scratch = 1},
    {.name = "nll_loss_nd", .keeps = Keeps::kFirst},
    {.name = "class_max", .keeps = Keeps::kNothing},
    {.name = "cross_entropy_terms",
     .keeps = Keeps::kFirst,
     .extra_kept = 1,
     .forward_scratch = 1,
     .backward_scratch = 1},
    // Attention.
    {.name = "scaled_dot_product_attention",
     .keeps = Keeps::kOperandsAndResult},
    {.name = "attention", .keeps = Keeps::kOperandsAndResult},
    // Rows that are looked up.
    {.name = "embedding", .keeps = Keeps::kSecond},
    {.name = "index", .keeps = Keeps::kSecond},
    {.name = "gather", .keeps = Keeps::kSecond},
    {.name = "index_select", .keeps = Keeps::kSecond},
    // Copies and pieces.
    {.name = "cat", .keeps = Keeps::kNothing},
    {.name = "stack", .keeps = Keeps::kNothing},
    {.name = "clone", .keeps = Keeps::kNothing, .passes_gradient = true},
    {.name = "repeat", .keeps = Keeps::kNothing},
    {.name = "repeat_interleave", .keeps = Keeps::kNothing},
    {.name = "tril", .keeps = Keeps::kNothing},
    {.name = "triu", .keeps = Keeps::kNothing},
    {.name = "constant_pad_nd", .keeps = Keeps::kNothing},
    {.name = "pad", .keeps = Keeps::kNothing},
    {.name = "to", .keeps = Keeps::kNothing},
    {.name = "_to_copy", .keeps = Keeps::kNothing},
    {.name = "type_as", .keeps = Keeps::kNothing},
    {.name = "contiguous",
     .result = ResultMemory::kViewOrCopy,
     .keeps = Keeps::kNothing},
    {.name = "reshape",
     .result = ResultMemory::kViewOrCopy,
     .keeps = Keeps::kNothing},
    {.name = "flatten",
     .result = ResultMemory::kViewOrCopy,
     .keeps = Keeps::kNothing},
    // Views.
    {.name = "view", .result = ResultMemory::kView, .keeps = Keeps::kNothing},
    {.name = "_unsafe_view",
     .result = ResultMemory::kView,
     .keeps = Keeps::kNothing},
    {.name = "unflatten",
     .result = ResultMemory::kView,
     .keeps = Keeps::kNothing},
    {.name = "unsqueeze",
     .result = ResultMemory::kView,
     .keeps = Keeps::kNothing},
    {.name = "squeeze",
     .result = ResultMemory::kView,
     .keeps = Keeps::kNothing},
    {.name = "permute",
     .result = ResultMemory::kView,
     .keeps = Keeps::kNothing},
    {.name = "transpose",
     .result = ResultMemory::kView,
     .keeps = Keeps::kNothing},
    {.name = "t", .result = ResultMemory::kView, .keeps = Keeps::kNothing},
    {.name = "numpy_T",
     .result = ResultMemory::kView,
     .keeps = Keeps::kNothing},
    {.name = "mT", .result = ResultMemory::kView, .keeps = Keeps::kNothing},
    {.name = "alias", .result = ResultMemory::kView, .keeps = Keeps::kNothing},
    {.name = "detach", .result = ResultMemory::kView, .keeps = Keeps::kNothing},
    {.name = "expand", .result = ResultMemory::kPart, .keeps = Keeps::kNothing},
    {.name = "split", .result = ResultMemory::kPart, .keeps = Keeps::kNothing},
    {.name = "split_with_sizes",
     .result = ResultMemory::kPart,
     .keeps = Keeps::kNothing},
    {.name = "chunk", .result = ResultMemory::kPart, .keeps = Keeps::kNothing},
    {.name = "unbind", .result = ResultMemory::kPart, .keeps = Keeps::kNothing},
    {.name = "select", .result = ResultMemory::kPart, .keeps = Keeps::kNothing},
    {.name = "slice", .result = ResultMemory::kPart, .keeps = Keeps::kNothing},
    {.name = "narrow", .result = ResultMemory::kPart, .keeps = Keeps::kNothing},
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

}  // namespace shardplane
