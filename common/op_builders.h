// How rows of the op table become rules of a call. Used by op_*.cc alone.
#ifndef SHARDPLANE_COMMON_OP_BUILDERS_H_
#define SHARDPLANE_COMMON_OP_BUILDERS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/call_arguments.h"
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
// aten.einsum: its equation is the rule.
absl::Status BuildEquation(const OpRow& row, const OpCall& call,
                           OpInstance* op);
// Arguments 2 and 3 name the dims that are contracted.
absl::Status BuildTensordot(const OpRow& row, const OpCall& call,
                            OpInstance* op);
// Einsum whose spec follows from the operands' ranks.
absl::Status BuildMatmul(const OpRow& row, const OpCall& call, OpInstance* op);
// Operands broadcast from the right. spec "bool": so is the result; "first":
// its dtype is the first operand's; "real": that of its parts; "complex": that
// of numbers with such parts.
absl::Status BuildPointwise(const OpRow& row, const OpCall& call,
                            OpInstance* op);
// Each operand as it broadcasts with the others.
absl::Status BuildBroadcast(const OpRow& row, const OpCall& call,
                            OpInstance* op);
// A dtype conversion: linear where it changes nothing. spec: the number of the
// argument that says the dtype.
absl::Status BuildConvert(const OpRow& row, const OpCall& call, OpInstance* op);
// The identity where dropout is off, Lowering::kDropout where it is on.
absl::Status BuildDropout(const OpRow& row, const OpCall& call, OpInstance* op);
// The same of ops that draw otherwise: nothing but the identity.
// Unimplemented: they are on. spec "slope": the identity is leaky_relu.
absl::Status BuildNoise(const OpRow& row, const OpCall& call, OpInstance* op);
// Another shape, the same elements in order. spec: how the shape is given
// ("sizes", "flatten", "unsqueeze", "squeeze", "unflatten").
absl::Status BuildView(const OpRow& row, const OpCall& call, OpInstance* op);
// The last dim, of 2 and whole, becomes the parts of complex numbers.
absl::Status BuildViewAsComplex(const OpRow& row, const OpCall& call,
                                OpInstance* op);
// The way back.
absl::Status BuildViewAsReal(const OpRow& row, const OpCall& call,
                             OpInstance* op);
absl::Status BuildExpand(const OpRow& row, const OpCall& call, OpInstance* op);
// spec: "dims" (argument 1 is the permutation), "swap" (arguments 1 and 2),
// "t" (the last two).
absl::Status BuildPermute(const OpRow& row, const OpCall& call, OpInstance* op);
// spec: "sum", "mean" (linear; a cut factor leaves Partial).
absl::Status BuildReduce(const OpRow& row, const OpCall& call, OpInstance* op);
// Pointwise but for some dims, which must be whole. spec is words:
//   dim=1       the argument that names the dims (absent: all of them)
//   or=-1       the dim where the call names none; or=all
//   reduced     the dims are not in the result, but for a keepdim, which is
//   keep=3      another argument than the one behind the dims
//   gives=xi    dtypes of the results: x the operand's or the one asked for,
//               s the same but i64 of integers, r the same but f32 of c64,
//               i i64, b bool
absl::Status BuildAlongDim(const OpRow& row, const OpCall& call,
                           OpInstance* op);
// The k largest along a dim: values and indices.
absl::Status BuildTopK(const OpRow& row, const OpCall& call, OpInstance* op);
// Counts by value; Partial where the operand is cut, if the range is given.
absl::Status BuildHistogram(const OpRow& row, const OpCall& call,
                            OpInstance* op);
// Every dim whole: the op runs alike on every rank. Results as recorded.
absl::Status BuildWhole(const OpRow& row, const OpCall& call, OpInstance* op);
// By element, and reduced as the argument `spec` says; a cut factor that is
// summed over leaves Partial, and a mean counts what all ranks have.
absl::Status BuildElementLoss(const OpRow& row, const OpCall& call,
                              OpInstance* op);
// Scores [c] or [n, c, *], a target of class ids [n, *] or of probabilities,
// and weights [c]. Classes are whole; rows pass, but for a mean.
absl::Status BuildClassLoss(const OpRow& row, const OpCall& call,
                            OpInstance* op);

// Batch and output channels pass; groups where there are several. A cut input
// channel leaves Partial, without groups or bias. spec: "transposed" or "".
absl::Status BuildConvolution(const OpRow& row, const OpCall& call,
                              OpInstance* op);
// All but the last `spec` dims pass. Results as recorded.
absl::Status BuildWindows(const OpRow& row, const OpCall& call, OpInstance* op);
// input [n, c, *]: channels pass, and what the statistics do not span. spec:
// "batch" or "instance". Unimplemented: statistics that it changes.
absl::Status BuildChannelNorm(const OpRow& row, const OpCall& call,
                              OpInstance* op);
// input [n, c, *]: batch and groups pass.
absl::Status BuildGroupNorm(const OpRow& row, const OpCall& call,
                            OpInstance* op);
// A slope for everything, or for each channel.
absl::Status BuildPrelu(const OpRow& row, const OpCall& call, OpInstance* op);

// weight [v, e], indices [*] -> [*, e]; a cut vocabulary leaves Partial(sum).
absl::Status BuildEmbedding(const OpRow& row, const OpCall& call,
                            OpInstance* op);
// The last dims (argument 1 is their shape) whole, the others passed through.
// spec: how many statistics it gives besides.
absl::Status BuildNorm(const OpRow& row, const OpCall& call, OpInstance* op);
// Batch and heads passed through, queries too unless causal.
absl::Status BuildAttention(const OpRow& row, const OpCall& call,
                            OpInstance* op);

// A dim that is repeated is whole, but for one of size 1.
absl::Status BuildRepeat(const OpRow& row, const OpCall& call, OpInstance* op);
// The shape of the second operand. spec: "expand" or "view".
absl::Status BuildShapeOf(const OpRow& row, const OpCall& call, OpInstance* op);
absl::Status BuildMoveDim(const OpRow& row, const OpCall& call, OpInstance* op);
// Each operand is a dim of every result.
absl::Status BuildMeshgrid(const OpRow& row, const OpCall& call,
                           OpInstance* op);
absl::Status BuildDiagonal(const OpRow& row, const OpCall& call,
                           OpInstance* op);
// From nothing, with the dtype of an operand, whose values do not matter; alike
// on every rank. spec: the target instead.
absl::Status BuildNewOf(const OpRow& row, const OpCall& call, OpInstance* op);

// The dim that is joined, parted or picked from is whole, the others pass.
absl::Status BuildCat(const OpRow& row, const OpCall& call, OpInstance* op);
absl::Status BuildStack(const OpRow& row, const OpCall& call, OpInstance* op);
// spec: how argument 1 says the parts: "size" (of each), "sizes" or "chunk"
// (their number).
absl::Status BuildSplit(const OpRow& row, const OpCall& call, OpInstance* op);
absl::Status BuildUnbind(const OpRow& row, const OpCall& call, OpInstance* op);
absl::Status BuildSelect(const OpRow& row, const OpCall& call, OpInstance* op);
// spec: what argument 3 is, the "end" or the "length".
absl::Status BuildSlice(const OpRow& row, const OpCall& call, OpInstance* op);
absl::Status BuildRepeatInterleave(const OpRow& row, const OpCall& call,
                                   OpInstance* op);
// Differences along a dim, which is whole; of what is prepended or appended
// too.
absl::Status BuildDiff(const OpRow& row, const OpCall& call, OpInstance* op);
// A dim of classes behind the others. Unimplemented: their number not said.
absl::Status BuildOneHot(const OpRow& row, const OpCall& call, OpInstance* op);
// Dims that are padded are whole. linearity kEach: with zeros.
absl::Status BuildPad(const OpRow& row, const OpCall& call, OpInstance* op);
// Half of it gates the other half, along a dim.
absl::Status BuildGlu(const OpRow& row, const OpCall& call, OpInstance* op);
absl::Status BuildUnfold(const OpRow& row, const OpCall& call, OpInstance* op);

// Indexed dims of the operand are whole; its others, and those of the indices,
// pass. Unimplemented: a mask as index, whose count is in its values.
absl::Status BuildIndex(const OpRow& row, const OpCall& call, OpInstance* op);
// Dims that are not indexed pass.
absl::Status BuildIndexPut(const OpRow& row, const OpCall& call,
                           OpInstance* op);
// operand, dim, index of its rank -> the index's shape. The dim of the operand
// is whole, that of the index passes.
absl::Status BuildGather(const OpRow& row, const OpCall& call, OpInstance* op);
// The same in another order of arguments; replicated where it broadcasts.
absl::Status BuildTakeAlong(const OpRow& row, const OpCall& call,
                            OpInstance* op);
// operand, dim, index, and perhaps a source: the dim is whole everywhere.
absl::Status BuildScatter(const OpRow& row, const OpCall& call, OpInstance* op);
// operand, dim, 1-dim index: rows picked.
absl::Status BuildIndexSelect(const OpRow& row, const OpCall& call,
                              OpInstance* op);
// operand, dim, 1-dim index, and perhaps a source of as many rows.
absl::Status BuildIndexWrite(const OpRow& row, const OpCall& call,
                             OpInstance* op);
// A part of the operand replaced by the second. spec: "select" or "slice".
absl::Status BuildWritePart(const OpRow& row, const OpCall& call,
                            OpInstance* op);
// The first passes, the second is whole: a set that is looked through.
absl::Status BuildLookup(const OpRow& row, const OpCall& call, OpInstance* op);

// The last two dims whole.
absl::Status BuildTriangle(const OpRow& row, const OpCall& call,
                           OpInstance* op);
// From nothing, alike on every rank. spec "size": argument 0 is the shape;
// "empty": so it is, and the values are zeros, for none would be alike.
absl::Status BuildFactory(const OpRow& row, const OpCall& call, OpInstance* op);
// Of the operand's shape; its values do not matter. spec: the target instead.
absl::Status BuildLike(const OpRow& row, const OpCall& call, OpInstance* op);

// The dtype of what comes of both: f64 and c64 give c128.
DType Promote(DType a, DType b);
// That of what comes of all: one of 0 dims counts only where the others have
// another kind of number. f32[4] and c128[] give c64.
DType Promote(absl::Span<const TensorType> operands);

inline int Rank(const TensorType& type) {
  return static_cast<int>(type.shape.size());
}
// The index of the new factor.
inline int AddFactor(OpInstance* op, int64_t size, FactorKind kind) {
  op->factors.push_back({size, kind});
  return static_cast<int>(op->factors.size()) - 1;
}

// The dim that argument `index` names, within `rank`.
absl::StatusOr<int> DimArgument(const OpCall& call, int index, int rank,
                                int64_t otherwise);
// One factor a dim: whole along `dim`, passed through along the others.
DimFactors FactorsAround(const Shape& shape, int dim, OpInstance* op);
// InvalidArgument: none, or several.
absl::Status OneTensor(const OpCall& call);
// InvalidArgument: another number of tensors.
absl::Status Tensors(const OpCall& call, size_t fewest, size_t most);
// Its first argument in the sizes of the result: lowered by the rank's part.
void ResizeTo(absl::string_view target, OpInstance* op);

absl::Status BadCall(const OpCall& call, absl::string_view expected,
                     absl::string_view got);
// Unimplemented: the op draws random numbers.
absl::Status RandomOp(const OpCall& call);
// Unimplemented: what the op's row lacks, "scale_grad_by_freq".
absl::Status UnsupportedOption(const OpCall& call, absl::string_view option);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_OP_BUILDERS_H_
