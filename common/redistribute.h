// How a value gets from one spec to another: the steps, one mesh dim each.
#ifndef SHARDPLANE_COMMON_REDISTRIBUTE_H_
#define SHARDPLANE_COMMON_REDISTRIBUTE_H_

#include <vector>

#include "absl/status/statusor.h"
#include "common/device_mesh.h"
#include "common/sharded_program.h"
#include "common/tensor_spec.h"

namespace shardplane {

struct RedistributeStep {
  RedistributeKind kind = RedistributeKind::kAlias;
  int mesh_dim = 0;
  int from_dim = -1;
  int to_dim = -1;
  ReduceOp op = ReduceOp::kSum;
  DTensorSpec result;  // after the step
  friend bool operator==(const RedistributeStep&,
                         const RedistributeStep&) = default;
};

// The step of that kind along one mesh dim, which becomes `after`.
RedistributeStep StepFrom(const DTensorSpec& at, RedistributeKind kind,
                          int mesh_dim, const Placement& after);

// The instruction that takes a step.
Redistribute MoveOf(const RedistributeStep& step, ValueId input,
                    ValueId output);

// The steps from one spec to another, none where they are equal. A cut can only
// be made or undone as the innermost of its tensor dim; where another stands in
// the way, that one is gathered first.
//   [S(0)] -> [R]: all_gather      [P(sum)] -> [R]: all_reduce
//   [S(0)] -> [S(1)]: all_to_all   [P(sum)] -> [S(0)]: reduce_scatter
//   [R] -> [S(0)]: slice           [R] -> [P(sum)]: mask
//   [S(0: 2*8/2)] -> [S(0)]: slice; what groups share is shared out
//   [S(0)] -> [P(sum)]: spread
// A packed cut is otherwise gathered and cut anew.
// Unimplemented: Partial to another kind of Partial, or Replicate to
// Partial(max or min).
absl::StatusOr<std::vector<RedistributeStep>> PlanRedistribute(
    const DTensorSpec& from, const DTensorSpec& to);

// The step that carries a gradient back over `step`, mesh dim by mesh dim:
//   all_gather <-> slice, reduce_scatter -> all_gather, all_to_all reversed,
//   all_reduce and mask -> alias (the gradient of a Partial is replicated),
//   a slice of what groups share <-> spread.
// A vary (R -> R that enters work that differs by rank) is an alias whose
// transpose is an all_reduce; that is the compiler's to add.
// Only kind, mesh_dim, from_dim and to_dim of the result are set.
RedistributeStep Transpose(const RedistributeStep& step);

// The spec with these cuts by tensor dim (mesh dims, first cut first), its
// cut_order empty where that is the mesh's own. Equal layouts, equal specs.
DTensorSpec SpecOf(Placements placements,
                   const std::vector<std::vector<int>>& cuts_by_dim);
DTensorSpec Canonical(const DTensorSpec& spec);

// A spec with one placement changed and its canonical cut order: `mesh_dim`
// becomes the innermost cut if `placement` is a Shard of another dim.
DTensorSpec WithPlacement(const DTensorSpec& spec, int mesh_dim,
                          const Placement& placement);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_REDISTRIBUTE_H_
