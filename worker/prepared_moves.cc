// The redistributions of a prepared program.
#include <cstdint>
#include <utility>

#include "ATen/core/Tensor.h"
#include "ATen/ops/zeros.h"
#include "ATen/ops/zeros_like.h"
#include "common/errors.h"
#include "common/tensor_spec.h"
#include "worker/dim_first.h"
#include "worker/packed_dim.h"
#include "worker/prepared_program.h"
#include "worker/torch_tensors.h"

namespace shardplane {

PackedDim PreparedProgram::PackedOf(ValueId id, int mesh_dim) const {
  const Value& value = program_.values[id];
  const Placement& placement = value.spec.placements[mesh_dim];
  const int dim = ShardDim(placement);
  // What it would be without this cut, which is the innermost of its dim.
  DimCuts cuts = CutsOfDim(value.type.shape, value.spec, dim);
  cuts.cuts.pop_back();
  return PackedDim(dim, LocalSizeOf(cuts, program_.mesh, context_.coordinate),
                   BlocksOf(placement), program_.mesh.dim_size(mesh_dim));
}

// This rank's part, which may lie in the whole.
at::Tensor PreparedProgram::Slice(const Redistribute& step,
                                  const at::Tensor& input) const {
  const int at = context_.coordinate[step.mesh_dim];
  const PackedDim to = PackedOf(step.output, step.mesh_dim);
  const Blocks blocks =
      BlocksOf(program_.values[step.output].spec.placements[step.mesh_dim]);
  if (step.from_dim >= 0) {
    const PackedDim from = PackedOf(step.input, step.mesh_dim);
    return NarrowTo(input, step.to_dim, Locate(from.Part(at), to.Part(at)));
  }
  const at::Tensor part = NarrowTo(input, step.to_dim, to.Part(at));
  return blocks.partial() ? to.OnceEach(part, at) : part;
}

at::Tensor PreparedProgram::Spread(const Redistribute& step,
                                   const at::Tensor& input) const {
  const int at = context_.coordinate[step.mesh_dim];
  Stretches places = PackedOf(step.input, step.mesh_dim).Part(at);
  if (step.to_dim >= 0) {
    places = Locate(PackedOf(step.output, step.mesh_dim).Part(at), places);
  }
  at::Tensor output = at::zeros(local_shapes_[step.output], input.options());
  int64_t begin = 0;
  for (const Extent& place : places) {
    output.narrow(step.from_dim, place.offset, place.size)
        .copy_(input.narrow(step.from_dim, begin, place.size));
    begin += place.size;
  }
  return output;
}

// What collectives know is dims in equal chunks.
at::Tensor PreparedProgram::InChunks(const Redistribute& step,
                                     const at::Tensor& input) const {
  const int m = step.mesh_dim;
  if (!IsPacked(step)) return input;
  switch (step.kind) {
    case RedistributeKind::kAllReduce:
      return PackedOf(step.input, m).ToSlots(input, context_.coordinate[m]);
    case RedistributeKind::kAllGather:
      return PadTo(input, step.from_dim, PackedOf(step.input, m).chunk());
    default:
      return PackedOf(step.output, m).ByRank(input);
  }
}

at::Tensor PreparedProgram::FromChunks(const Redistribute& step,
                                       const at::Tensor& input,
                                       const at::Tensor& result) const {
  const int m = step.mesh_dim;
  const int at = context_.coordinate[m];
  if (!IsPacked(step)) return result;
  switch (step.kind) {
    case RedistributeKind::kAllReduce:
      return PackedOf(step.input, m).FromSlots(input, result, at);
    case RedistributeKind::kAllGather:
      return PackedOf(step.input, m).Whole(result);
    default:
      return PackedOf(step.output, m).Own(result, at);
  }
}

int64_t PreparedProgram::GatheredExtent(const Redistribute& step) const {
  return IsPacked(step) ? PackedOf(step.input, step.mesh_dim).chunk() *
                              program_.mesh.dim_size(step.mesh_dim)
                        : local_shapes_[step.output][step.from_dim];
}

// Whether a collective begins or ends at a packed cut.
bool PreparedProgram::IsPacked(const Redistribute& step) const {
  const auto packed = [&](ValueId id) {
    return !BlocksOf(program_.values[id].spec.placements[step.mesh_dim])
                .empty();
  };
  return IsCollective(step.kind) && program_.mesh.dim_size(step.mesh_dim) > 1 &&
         (packed(step.input) || packed(step.output));
}

absl::StatusOr<at::Tensor> PreparedProgram::Move(
    const Redistribute& step, const at::Tensor& input,
    Communicator& communicator) const {
  switch (step.kind) {
    case RedistributeKind::kAllReduce:
      return communicator.AllReduce(input, step.mesh_dim, step.op);
    case RedistributeKind::kAllGather:
      return communicator.AllGather(input, step.mesh_dim, step.from_dim,
                                    GatheredExtent(step));
    case RedistributeKind::kReduceScatter:
      return communicator.ReduceScatter(input, step.mesh_dim, step.to_dim,
                                        step.op);
    default:
      return communicator.AllToAll(input, step.mesh_dim, step.from_dim,
                                   step.to_dim,
                                   local_shapes_[step.output][step.from_dim]);
  }
}

absl::StatusOr<at::Tensor> PreparedProgram::Communicate(
    const Redistribute& step, const at::Tensor& input,
    Communicator& communicator) const {
  if (IsPacked(step)) {
    SP_ASSIGN_OR_RETURN(const at::Tensor result,
                        Move(step, InChunks(step, input), communicator));
    return FromChunks(step, input, result);
  }
  switch (step.kind) {
    case RedistributeKind::kAllReduce:
    case RedistributeKind::kAllGather:
    case RedistributeKind::kReduceScatter:
    case RedistributeKind::kAllToAll:
      return Move(step, input, communicator);
    case RedistributeKind::kSlice:
      return Slice(step, input).contiguous();
    case RedistributeKind::kMask:
      return context_.coordinate[step.mesh_dim] == 0 ? input
                                                     : at::zeros_like(input);
    case RedistributeKind::kAlias:
      return input;
    case RedistributeKind::kSpread:
      return Spread(step, input);
  }
  return absl::InternalError("no such kind of redistribution");
}

}  // namespace shardplane
