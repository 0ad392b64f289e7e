// Operators that do the work of several, for GPUs, where each kernel reads and
// writes memory once more.
#ifndef SHARDPLANE_COMMON_FUSED_OPERATORS_H_
#define SHARDPLANE_COMMON_FUSED_OPERATORS_H_

#include "common/sharded_program.h"

namespace shardplane {

// Puts one operator (worker/fused_operators) in the place of several of a
// segment, where nobody but they uses what lies between them:
//   swiglu(gate, up)        silu(gate) * up
//   rotary(x, cos, sin)     x * cos + cat(-x[n/2:], x[:n/2]) * sin; n is x's
//                           last dim
//   cast_rms_norm(x, weight, eps, d)
//                           weight * (h * rsqrt(mean(h^2) + eps)).to(dtype of
//                           x), h being x.to(d), over the last dim
//   add_rms_norm(x, y, weight, eps, d)
//                           x + y, and the cast_rms_norm of that; with no d,
//                           its aten.rms_norm
//   cross_entropy(logits, target, reduction, ignore_index, d)
//                           aten.cross_entropy_loss of logits[..., c] (.to(d),
//                           f32 or none), of which there are n rows, and class
//                           ids[n], without weights or smoothing: alone, too
// What the segments take and give stays as it is. Of a program whose segments
// know their outputs.
void FuseOperators(ShardedProgram* program);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_FUSED_OPERATORS_H_
