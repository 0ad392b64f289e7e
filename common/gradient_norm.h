// The global norm of gradients: the 2-norm over all their elements, each
// counted once, whatever the mesh.
#ifndef SHARDPLANE_COMMON_GRADIENT_NORM_H_
#define SHARDPLANE_COMMON_GRADIENT_NORM_H_

#include <vector>

#include "absl/types/span.h"
#include "common/device_mesh.h"
#include "common/sharded_program.h"
#include "common/tensor_spec.h"

namespace shardplane {

// What a norm communicates, alike on every rank: the sum of squares, one f64,
// is all-reduced along each mesh dim of size > 1 in turn.
//   [dp=2, tp=4] -> two all_reduces of 1 element;  [tp=1] -> none
std::vector<CollectiveRecord> NormCollectives(const DeviceMesh& mesh);

// Whether the rank at `coordinate` adds the squares of its part of a gradient:
// of each set of replicas the first does.
//   [S(0)] at {1} -> true;  [R] at {0} -> true, at {1} -> false
//   [R, S(0)] at {0, 3} -> true, at {1, 3} -> false
bool CountsInNorm(const DTensorSpec& spec, absl::Span<const int> coordinate);

// What gradients of that norm are multiplied by so that it is at most
// `clip_norm`, as torch.nn.utils.clip_grad_norm_ has it: of an infinite norm 0,
// of one that is no number NaN, never more than 1.
double ClipScale(double norm, double clip_norm);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_GRADIENT_NORM_H_
