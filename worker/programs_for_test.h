// Small programs written by hand, for tests of what runs them.
#ifndef SHARDPLANE_WORKER_PROGRAMS_FOR_TEST_H_
#define SHARDPLANE_WORKER_PROGRAMS_FOR_TEST_H_

#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "common/host_tensor.h"
#include "common/sharded_program.h"
#include "worker/executor.h"

namespace shardplane {

inline HostTensor F32(Shape shape, const std::vector<float>& values) {
  HostTensor tensor{{DType::kFloat32, std::move(shape)}, {}};
  tensor.bytes.resize(values.size() * sizeof(float));
  std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
  return tensor;
}

inline std::vector<float> Floats(const HostTensor& tensor) {
  std::vector<float> values(tensor.bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

inline ProgramArgument Ref(ValueId id) { return {ValueRef{id}}; }

// total f32[2] becomes total + x, and y is what it was; no loss.
inline ShardedProgram RunningTotal() {
  ShardedProgram program;
  program.mesh = *DeviceMesh::Create({{"tp", 2}});
  for (const char* name : {"x", "total", "sum", "y"}) {
    program.values.push_back(
        {name, {DType::kFloat32, {2}}, {{Replicate{}}, {}}});
  }
  program.segments = {
      {.inputs = {0, 1},
       .outputs = {2, 3},
       .ops = {{"aten.alias.default", {Ref(1)}, {}, {3}, ""},
               {"aten.add.Tensor", {Ref(1), Ref(0)}, {}, {2}, ""}}}};
  program.parameters = {{"total", 1, -1, /*update=*/2}};
  program.inputs = {{0, -1}};
  program.outputs = {3};
  program.instructions = {RunSegment{0}};
  program.backward_begin = 1;
  return program;
}

// y = x w1^T w2^T, loss = sum(y), on [tp=2]: w1 f32[3, 2] is cut S(0) into 2
// rows and 1, w2 f32[2, 3] S(1); y is Partial and reduced.
inline ShardedProgram TwoLinears() {
  ShardedProgram program;
  program.mesh = *DeviceMesh::Create({{"tp", 2}});
  const DTensorSpec r{{Replicate{}}, {}};
  const DTensorSpec s0{{Shard{0}}, {}};
  const DTensorSpec s1{{Shard{1}}, {}};
  const DTensorSpec p{{Partial{}}, {}};
  const auto value = [&](const char* name, Shape shape, DTensorSpec spec) {
    program.values.push_back({name, {DType::kFloat32, shape}, spec});
    return static_cast<ValueId>(program.values.size()) - 1;
  };
  const ValueId x = value("x", {1, 2}, r);
  const ValueId w1 = value("w1", {3, 2}, s0);
  const ValueId w2 = value("w2", {2, 3}, s1);
  const ValueId h = value("h", {1, 3}, s1);
  const ValueId part = value("part", {1, 2}, p);
  const ValueId y = value("y", {1, 2}, r);
  const ValueId loss = value("loss", {}, r);
  const ValueId g_loss = value("g_loss", {}, r);
  const ValueId g_y = value("g_y", {1, 2}, r);
  const ValueId g_x_part = value("g_x_part", {1, 2}, p);
  const ValueId g_w1 = value("g_w1", {3, 2}, s0);
  const ValueId g_w2 = value("g_w2", {2, 3}, s1);
  const ValueId g_x = value("g_x", {1, 2}, r);
  program.segments = {
      {.inputs = {x, w1, w2},
       .outputs = {part},
       .ops = {{"aten.linear.default", {Ref(x), Ref(w1)}, {}, {h}, "net1"},
               {"aten.linear.default", {Ref(h), Ref(w2)}, {}, {part}, "net2"}},
       .differentiable_inputs = {x, w1, w2},
       .differentiable_outputs = {part}},
      {.inputs = {y},
       .outputs = {loss},
       .ops = {{"aten.sum.default", {Ref(y)}, {}, {loss}, ""}},
       .differentiable_inputs = {y},
       .differentiable_outputs = {loss}}};
  program.parameters = {{"net1.weight", w1, g_w1}, {"net2.weight", w2, g_w2}};
  program.inputs = {{x, g_x}};
  program.outputs = {y};
  program.loss = loss;
  program.instructions = {RunSegment{0},
                          Redistribute{.kind = RedistributeKind::kAllReduce,
                                       .mesh_dim = 0,
                                       .input = part,
                                       .output = y},
                          RunSegment{1},
                          Ones{g_loss},
                          RunSegmentBackward{1, {g_loss}, {g_y}},
                          RunSegmentBackward{0, {g_y}, {g_x_part, g_w1, g_w2}},
                          Redistribute{.kind = RedistributeKind::kAllReduce,
                                       .mesh_dim = 0,
                                       .input = g_x_part,
                                       .output = g_x}};
  program.backward_begin = 3;
  return program;
}

// The same with w1 f32[512, 1024] and w2 f32[1024, 512], whose parts are 1 MiB
// on each of 2 ranks: large enough to be left as products.
inline ShardedProgram WideLinears() {
  ShardedProgram program = TwoLinears();
  for (Value& value : program.values) {
    const bool first = value.name == "w1" || value.name == "g_w1";
    const bool second = value.name == "w2" || value.name == "g_w2";
    if (first) {
      value.type.shape = {512, 1024};
    } else if (second) {
      value.type.shape = {1024, 512};
    } else if (value.name == "h") {
      value.type.shape = {1, 512};
    } else if (!value.type.shape.empty()) {
      value.type.shape = {1, 1024};
    }
  }
  return program;
}

// y = dropout(x) of node 9 with p = 0.5, loss = sum(y), on [tp=3]: x f32[5, 4]
// is cut S(0) into 2, 2 and 1 rows.
inline ShardedProgram RandomHalf() {
  ShardedProgram program;
  program.mesh = *DeviceMesh::Create({{"tp", 3}});
  const DTensorSpec r{{Replicate{}}, {}};
  const DTensorSpec s0{{Shard{0}}, {}};
  const DTensorSpec p{{Partial{}}, {}};
  const TensorType whole{DType::kFloat32, {5, 4}};
  const TensorType scalar{DType::kFloat32, {}};
  program.values = {{"x", whole, s0},      {"random", {DType::kInt64, {2}}, r},
                    {"y", whole, s0},      {"loss", scalar, p},
                    {"g_loss", scalar, r}, {"g_x", whole, s0}};
  const ProgramArgumentList sizes = {{int64_t{5}}, {int64_t{4}}};
  const ProgramArgumentList offsets = {{LocalOffset{5, {0}}}, {int64_t{0}}};
  program.segments = {
      {.inputs = {0, 1},
       .outputs = {2, 3},
       .ops = {{"shardplane.dropout.default",
                {Ref(0), Ref(1), {0.5}, {int64_t{9}}, {sizes}, {offsets}},
                {},
                {2},
                "drop"},
               {"aten.sum.default", {Ref(2)}, {}, {3}, ""}},
       .differentiable_inputs = {0},
       .differentiable_outputs = {3}}};
  program.inputs = {{.value = 0, .gradient = 5}};
  program.outputs = {2};
  program.loss = 3;
  program.random = 1;
  program.instructions = {RunSegment{0}, Ones{4},
                          RunSegmentBackward{0, {4}, {5}}};
  program.backward_begin = 1;
  return program;
}

// y = x f32[5, 7], by way of every kind of redistribution on [dp=2, tp=3].
inline ShardedProgram RoundTrip(const DeviceMesh& mesh) {
  struct Step {
    RedistributeKind kind;
    int mesh_dim;
    int from;
    int to;
    Placement after;
  };
  using enum RedistributeKind;
  const std::vector<Step> steps = {
      {kSlice, 1, -1, 0, Shard{0}},   {kSlice, 0, -1, 1, Shard{1}},
      {kAlias, 1, -1, -1, Shard{0}},  {kAllGather, 0, 1, -1, Replicate{}},
      {kAllToAll, 1, 0, 1, Shard{1}}, {kAllGather, 1, 1, -1, Replicate{}},
      {kMask, 1, -1, -1, Partial{}},  {kReduceScatter, 1, -1, 1, Shard{1}},
      {kAlias, 1, -1, -1, Shard{1}},  {kAllGather, 1, 1, -1, Replicate{}},
      {kMask, 0, -1, -1, Partial{}},  {kAllReduce, 0, -1, -1, Replicate{}},
  };
  ShardedProgram program;
  program.mesh = mesh;
  DTensorSpec spec = DTensorSpec::Replicated(2);
  program.values.push_back({"x", {DType::kFloat32, {5, 7}}, spec});
  program.inputs = {{.value = 0}};
  for (const Step& step : steps) {
    spec.placements[step.mesh_dim] = step.after;
    const ValueId id = static_cast<ValueId>(program.values.size());
    program.values.push_back({"x", {DType::kFloat32, {5, 7}}, spec});
    program.instructions.push_back(Redistribute{.kind = step.kind,
                                                .mesh_dim = step.mesh_dim,
                                                .from_dim = step.from,
                                                .to_dim = step.to,
                                                .input = id - 1,
                                                .output = id});
  }
  program.outputs = {static_cast<ValueId>(program.values.size()) - 1};
  program.backward_begin = static_cast<int>(program.instructions.size());
  return program;
}

inline uint64_t HashOf(const ShardedProgram& program,
                       const std::vector<int>& coordinate) {
  return HashCollectives(
      Collectives(program, Phase::kBackward, coordinate),
      HashCollectives(Collectives(program, Phase::kForward, coordinate)));
}

// Of TwoLinears, or of those sizes.
inline MaterializeSpec TwoWeights(int64_t hidden = 3, int64_t outer = 2) {
  return {.parameters = {{.fqn = "net1.weight",
                          .type = {DType::kFloat32, {hidden, outer}},
                          .spec = {{Shard{0}}, {}},
                          .requires_grad = true},
                         {.fqn = "net2.weight",
                          .type = {DType::kFloat32, {outer, hidden}},
                          .spec = {{Shard{1}}, {}},
                          .requires_grad = true}},
          .src_data_rank = 1};
}

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_PROGRAMS_FOR_TEST_H_
