// How rows of the op table become rules of a call. Used by op_rules.cc alone.
#ifndef SHARDPLANE_COMMON_OP_BUILDERS_H_
#define SHARDPLANE_COMMON_OP_BUILDERS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/op_rules.h"

namespace shardplane {

// In which operands a pointwise op is linear.
enum class Linearity {
  kNone,   // relu
  kEach,   // mul: a product
  kFirst,  // div: the first alone
  kSum,    // add: each operand is a term of its own
};

struct OpRow;
using OpBuilder = absl::Status (*)(const OpRow& row, const OpCall& call,
                                   OpInstance* op);

// One row: how the dims of an op's operands relate.
struct OpRow {
  absl::string_view target;
  OpBuilder build;
  absl::string_view spec;  // of the builder's own language
  Linearity linearity = Linearity::kNone;
  absl::string_view partial_target = "";
};

// "* k, n k | ^ -> * n": operands in the order of the call, terms between "|";
// `*` are leading dims, `^` an operand that broadcasts to the result. An
// operand that the call leaves out (a bias of None) is dropped from the end.
absl::Status BuildEinsum(const OpRow& row, const OpCall& call, OpInstance* op);
// Einsum whose spec follows from the operands' ranks.
absl::Status BuildMatmul(const OpRow& row, const OpCall& call, OpInstance* op);
// Operands broadcast from the right. spec "bool": so is the result.
absl::Status BuildPointwise(const OpRow& row, const OpCall& call,
                            OpInstance* op);
// A dtype conversion: linear where it changes nothing.
absl::Status BuildConvert(const OpRow& row, const OpCall& call, OpInstance* op);
// The identity where dropout is off; Unimplemented where it is on.
absl::Status BuildDropout(const OpRow& row, const OpCall& call, OpInstance* op);
// Another shape, the same elements in order. spec: how the shape is given
// ("sizes", "flatten", "unsqueeze", "squeeze", "unflatten").
absl::Status BuildView(const OpRow& row, const OpCall& call, OpInstance* op);
absl::Status BuildExpand(const OpRow& row, const OpCall& call, OpInstance* op);
// spec: "dims" (argument 1 is the permutation), "swap" (arguments 1 and 2),
// "t" (the last two).
absl::Status BuildPermute(const OpRow& row, const OpCall& call, OpInstance* op);
// spec: "sum", "mean" (linear; a cut factor leaves Partial) or "whole".
absl::Status BuildReduce(const OpRow& row, const OpCall& call, OpInstance* op);
// Pointwise but for the dim in argument 1, which must be whole.
absl::Status BuildAlongDim(const OpRow& row, const OpCall& call,
                           OpInstance* op);
// Every dim whole: the op runs alike on every rank. Results as recorded.
absl::Status BuildWhole(const OpRow& row, const OpCall& call, OpInstance* op);

// weight [v, e], indices [*] -> [*, e]; the vocabulary whole.
absl::Status BuildEmbedding(const OpRow& row, const OpCall& call,
                            OpInstance* op);

inline int Rank(const TensorType& type) {
  return static_cast<int>(type.shape.size());
}
// The index of the new factor.
inline int AddFactor(OpInstance* op, int64_t size, FactorKind kind) {
  op->factors.push_back({size, kind});
  return static_cast<int>(op->factors.size()) - 1;
}

// Argument `index`, or the keyword `name`; nullptr if absent or None.
const Argument* FindArgument(const OpCall& call, int index,
                             absl::string_view name);
std::optional<int64_t> IntArgument(const OpCall& call, int index,
                                   absl::string_view name);
// A list of ints, or one int; nullopt if absent or anything else.
std::optional<std::vector<int64_t>> IntsArgument(const OpCall& call, int index,
                                                 absl::string_view name);

absl::Status BadCall(const OpCall& call, absl::string_view expected,
                     absl::string_view got);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_OP_BUILDERS_H_
