// What each operator does with the dims of its operands: the table that
// sharding goes by.
//
// A rule names the factors of dims, as einsum does, as a sum of terms:
// `linear: * k, n k | n -> * n` has two terms; factor k is in no result, so it
// is reduced, and the term `n` (the bias) lacks it. `*` stands for leading
// dims that broadcast from the right. A dim may hold several factors, major
// first (a view merges and splits them).
#ifndef SHARDPLANE_COMMON_OP_RULES_H_
#define SHARDPLANE_COMMON_OP_RULES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/graph_module.h"
#include "common/tensor_type.h"

namespace shardplane {

enum class FactorKind {
  kPass,     // stands in the result
  kReduced,  // summed over: cut, it leaves Partial(sum)
  kWhole,    // must not be cut
};

struct Factor {
  int64_t size = 1;
  FactorKind kind = FactorKind::kPass;
};

// Factors of each dim of one tensor, major first; none for a dim of size 1
// that broadcasts or was inserted.
using DimFactors = std::vector<std::vector<int>>;

struct OperandRule {
  DimFactors dims;
  int term = 0;         // which term of the sum it stands in
  bool linear = false;  // the op is linear in it, the others held fixed
};

struct ResultRule {
  TensorType type;  // global
  DimFactors dims;
};

// A factor that is the others one after the other. Cut, it is packed, each of
// them by itself.
struct PartedFactor {
  int factor = 0;
  std::vector<int> parts;
};

// How a call is written into the program.
enum class Lowering {
  kPlain,    // as it stands
  kResize,   // argument `sizes_argument` becomes the local sizes of the result
  kAddTerm,  // with a reduced factor cut, the op of the terms that have it runs
             // as `partial_target`, and the other term is added after the
             // reduction
  kMean,     // with a reduced factor cut: the call of `partial_target` is a
             // sum, which is then divided by the global count
  kGroups,   // argument `groups_argument` becomes this rank's number of groups
  kEmbedding,  // args: weight, indices, padding_idx; rows are looked up where
               // they are
  kAttention,  // where a rank may have nothing of a cut dim, our own op
  kDropout,    // args: input, rate; the mask follows from global indices
  kSplit,  // with the parted factor cut: a split into the local sizes of parts
  kPart,   // the same, of which the second of three parts is taken
};

// One call: the rule of its op with sizes filled in.
struct OpInstance {
  std::string target;  // as emitted
  std::vector<Argument> args;
  absl::btree_map<std::string, Argument> kwargs;
  std::vector<Factor> factors;
  std::vector<PartedFactor> parted;
  // By position among the tensors in args, then kwargs.
  std::vector<OperandRule> operands;
  std::vector<ResultRule> results;
  Lowering lowering = Lowering::kPlain;
  int sizes_argument = -1;
  // kAddTerm: takes the other operands in order. kMean: with `partial_args` and
  // `partial_kwargs`.
  std::string partial_target;
  std::vector<Argument> partial_args;
  absl::btree_map<std::string, Argument> partial_kwargs;
  int added_operand = -1;    // kAddTerm
  int64_t mean_count = 1;    // kMean
  int groups_argument = -1;  // kGroups
  int groups_factor = -1;    // kGroups
  int parted_dim = -1;       // kSplit, kPart: of the operand
  int64_t flops = 0;         // of one forward, global; multiply-adds count 2
  bool differentiable = true;
  bool has_row = true;         // false: replicated, from the safe list
  bool refuses_empty = false;  // the op fails where a rank has nothing of a dim
};

struct OpCall {
  std::string target;  // "aten.linear.default"
  std::vector<Argument> args;
  absl::btree_map<std::string, Argument> kwargs;
  std::vector<TensorType> operands;  // of the tensors in args, then kwargs
  // What the exporter recorded; empty: inferred, which needs a row.
  std::vector<TensorType> results;
};

// InvalidArgument: operands or arguments that do not fit the op, results that
// differ from the recorded ones. Unimplemented: neither a row nor on the safe
// list, or a case that its row lacks.
absl::StatusOr<OpInstance> MakeOpInstance(const OpCall& call);

// The tensors in the arguments of a call, in order: args, then kwargs by name.
std::vector<NodeRef> TensorArguments(
    const std::vector<Argument>& args,
    const absl::btree_map<std::string, Argument>& kwargs);

// Factors common to two shapes of one number of elements: {24} -> {6, 4}
// yields factors 6 and 4 in one dim of the first. Dims that cannot be refined
// ({4, 6} -> {6, 4}) become one whole factor. Sizes of 1 have no factor.
struct ViewFactors {
  std::vector<Factor> factors;
  DimFactors from;
  DimFactors to;
};
ViewFactors FactorView(const Shape& from, const Shape& to);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_OP_RULES_H_
