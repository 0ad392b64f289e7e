// Ops that are written as several, each cut by itself.
#ifndef SHARDPLANE_COMMON_OP_DECOMPOSITIONS_H_
#define SHARDPLANE_COMMON_OP_DECOMPOSITIONS_H_

#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "common/op_emitter.h"

namespace shardplane {

// The value ids of the tensors in a call's arguments, in order.
absl::StatusOr<std::vector<ValueId>> ValuesOf(const ValueCall& call);

// aten.scaled_dot_product_attention with dropout: products, softmax and our own
// dropout, so that the mask follows from global indices. With key heads that
// groups of ranks share: of keys and values once for each query head. nullopt:
// neither, which is one op.
absl::StatusOr<std::optional<std::vector<ValueId>>> EmitAttention(
    const ValueCall& call, OpEmitter* emitter);

// aten.cross_entropy_loss where logits are cut. Along a mesh dim that cuts the
// classes: an all-reduce of the row maxima and one of two or three sums a row
// (of exponentials, of the targets' logits, for label smoothing and
// probabilities of all logits), whatever the options, none backward. Where
// rows are cut the loss lies as they do, or is Partial. nullopt: logits that
// are whole, which is one op.
// InvalidArgument: a target or weight that does not fit the logits.
absl::StatusOr<std::optional<std::vector<ValueId>>> EmitCrossEntropy(
    const ValueCall& call, OpEmitter* emitter);

// aten.nll_loss_nd, its mean, where rows are cut: their sum over that of the
// weights that count, each Partial. nullopt: anything else, which is one op.
absl::StatusOr<std::optional<std::vector<ValueId>>> EmitNllLoss(
    const ValueCall& call, OpEmitter* emitter);

// aten.copy: its second tensor, with the first one's shape and dtype.
absl::StatusOr<std::optional<std::vector<ValueId>>> EmitCopy(
    const ValueCall& call, OpEmitter* emitter);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_OP_DECOMPOSITIONS_H_
