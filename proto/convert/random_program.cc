// Random programs: the other half of random_values.h.
#include <string>
#include <utility>
#include <vector>

#include "proto/convert/random_values.h"

namespace shardplane {

std::vector<int> RandomValues::Ids(int low, int end) {
  std::vector<int> ids(Below(4));
  for (int& id : ids) {
    id = low + Below(end - low);
  }
  return ids;
}

ProgramArgument RandomValues::AnyProgramArgument(int values, int mesh_ndim,
                                                 int depth) {
  switch (Below(depth < 4 ? 10 : 9)) {
    case 0:
      return {};
    case 1:
      return {ValueRef{Below(values)}};
    case 2:
      return {static_cast<int64_t>(random_())};
    case 3:
      return {Number()};
    case 4:
      return {Coin()};
    case 5:
      return {Word()};
    case 6:
      return {AnyDType()};
    case 7:
      return {LocalSize{
          {{Below(100), Ids(0, mesh_ndim), AnyBlocks()}, {Below(9), {}}}}};
    case 8:
      return {LocalOffset{{Below(100), Ids(0, mesh_ndim), AnyBlocks()}}};
    default: {
      ProgramArgumentList items;
      for (int i = Below(4); i > 0; --i) {
        items.push_back(AnyProgramArgument(values, mesh_ndim, depth + 1));
      }
      return {std::move(items)};
    }
  }
}

Op RandomValues::AnyOp(int values, int mesh_ndim) {
  Op op{.target = Word(), .results = Ids(0, values), .fqn = Word()};
  for (int i = Below(4); i > 0; --i) {
    op.args.push_back(AnyProgramArgument(values, mesh_ndim, 0));
    op.kwargs.emplace_back(Word(), AnyProgramArgument(values, mesh_ndim, 0));
  }
  return op;
}

Instruction RandomValues::AnyInstruction(int values, int segments,
                                         int mesh_ndim) {
  switch (Below(10)) {
    case 0:
      return RunSegment{Below(segments)};
    case 1:
      return RunSegmentBackward{Below(segments), Ids(-1, values),
                                Ids(-1, values)};
    case 2:
      return Redistribute{.kind = static_cast<RedistributeKind>(Below(7)),
                          .mesh_dim = Below(mesh_ndim),
                          .from_dim = Below(4) - 1,
                          .to_dim = Below(4) - 1,
                          .op = static_cast<ReduceOp>(1 + Below(3)),
                          .input = Below(values),
                          .output = Below(values)};
    case 3:
      return Accumulate{Ids(0, values), Below(values)};
    case 4:
      return Ones{Below(values)};
    case 5:
      return Bucket{.kind = static_cast<RedistributeKind>(Below(3)),
                    .mesh_dim = Below(mesh_ndim),
                    .op = static_cast<ReduceOp>(1 + Below(3)),
                    .inputs = Ids(0, values),
                    .outputs = Ids(0, values),
                    .dims = Ids(0, 4),
                    .async = Below(2) == 1,
                    .again = Below(2) == 1};
    case 6:
      return Wait{Ids(0, values)};
    case 7:
      return Reshard{Ids(0, values), Ids(0, values), Below(mesh_ndim),
                     Below(4) - 1};
    case 8:
      return RunWeightGradients{Below(segments), Ids(0, values),
                                Ids(0, values)};
    default:
      return Free{Ids(0, values)};
  }
}

ShardedProgram RandomValues::AnyProgram() {
  ShardedProgram program;
  program.mesh = AnyMesh();
  const int ndim = program.mesh.ndim();
  const int values = 1 + Below(8);
  const int segments = 1 + Below(4);
  for (int i = 0; i < values; ++i) {
    program.values.push_back({Word(), AnyTensorType(), AnySpec(ndim)});
  }
  for (int i = 0; i < segments; ++i) {
    Segment segment{.inputs = Ids(0, values), .outputs = Ids(0, values)};
    segment.ops.assign(Below(3), AnyOp(values, ndim));
    segment.differentiable_inputs = Ids(0, values);
    segment.differentiable_outputs = Ids(0, values);
    program.segments.push_back(std::move(segment));
  }
  for (int i = Below(3); i > 0; --i) {
    program.parameters.push_back(
        {Word(), Below(values), Below(values + 1) - 1, Below(values + 1) - 1});
    program.inputs.push_back({Below(values), Below(values + 1) - 1});
  }
  program.outputs = Ids(0, values);
  program.loss = Below(values + 1) - 1;
  program.random = Below(values + 1) - 1;
  for (int i = Below(8); i > 0; --i) {
    program.instructions.push_back(AnyInstruction(values, segments, ndim));
  }
  program.backward_begin =
      Below(static_cast<int>(program.instructions.size()) + 1);
  return program;
}

}  // namespace shardplane
