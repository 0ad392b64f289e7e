// What operators do with memory beside their results: what autograd keeps of
// them for the backward pass, and what they need while they run. As LibTorch's
// CPU kernels and derivative formulas have it.
#ifndef SHARDPLANE_COMMON_OP_MEMORY_H_
#define SHARDPLANE_COMMON_OP_MEMORY_H_

#include <cstddef>
#include <vector>

#include "absl/strings/string_view.h"

namespace shardplane {

// Where the memory of an op's results comes from.
enum class ResultMemory {
  kNew,
  kView,        // the first operand's; its gradient is the result's, seen anew
  kPart,        // a part of the first operand's; its gradient is a new tensor
  kViewOrCopy,  // as kView where the operand lies in order, else kNew
};

// Which tensors autograd keeps. kProduct: an operand, where another one asks
// for a gradient.
enum class Keep {
  kNothing,
  kFirst,
  kSecond,
  kResult,
  kFirstAndResult,
  kOperands,
  kOperandsAndResult,
  kProduct,
  kQuotient,  // the second; the first where the second asks for a gradient
};

struct OpMemory {
  absl::string_view name;  // without namespace and overload
  ResultMemory result = ResultMemory::kNew;
  Keep keeps = Keep::kOperands;
  // In tensors as large as the first operand: kept beside, for a while
  // forward, for a while backward.
  double extra_kept = 0;
  double forward_scratch = 0;
  double backward_scratch = 0;
  // Bytes kept for each element of the result: a mask.
  int mask_bytes = 0;
  // The gradient of an operand is that of the result itself: a sum.
  bool passes_gradient = false;
  // The operand itself is the result where there is nothing to do.
  bool may_return_operand = false;
};

// Of "aten.gelu.default". What the table lacks makes new results and keeps its
// operands.
const OpMemory& MemoryOf(absl::string_view target);

// A matrix product or a convolution.
bool IsProduct(const OpMemory& memory);

// Whether autograd keeps an op's operand `index`; `asks`: which of its operands
// ask for a gradient, one does.
bool KeepsOperand(const OpMemory& memory, size_t index,
                  const std::vector<bool>& asks);
// Its (first) result.
bool KeepsResult(const OpMemory& memory);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_OP_MEMORY_H_
