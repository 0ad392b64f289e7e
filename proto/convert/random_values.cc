#include "proto/convert/random_values.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace shardplane {

double RandomValues::Number() {
  return std::uniform_real_distribution<double>(-8, 8)(random_);
}

std::string RandomValues::Word() {
  static constexpr const char* kWords[] = {"net1", "q", "layers",  "w_0",
                                           "é",    "*", "attn[0]", "x y"};
  return absl::StrCat(kWords[Below(8)], Below(100));
}

TensorType RandomValues::FloatType() {
  TensorType type{static_cast<DType>(1 + Below(4)), {}};
  for (int i = Below(4); i > 0; --i) {
    type.shape.push_back(Below(20));
  }
  return type;
}

TensorType RandomValues::AnyTensorType() {
  TensorType type = FloatType();
  type.dtype = AnyDType();
  return type;
}

Blocks RandomValues::AnyBlocks() {
  if (Coin()) return {};
  std::vector<Block> list;
  for (int i = Below(4); i > 0; --i) {
    const int64_t unit = 1 + Below(3);
    list.push_back({unit * Below(5), unit, 1 + Below(3), Coin()});
  }
  return Blocks::Of(std::move(list));
}

Placement RandomValues::AnyPlacement(int lowest_dim) {
  switch (Below(3)) {
    case 0:
      return Replicate{};
    case 1:
      return Shard{lowest_dim + Below(4)};
    default:
      return Partial{static_cast<ReduceOp>(1 + Below(3))};
  }
}

DTensorSpec RandomValues::AnySpec(int mesh_ndim) {
  DTensorSpec spec;
  for (int i = 0; i < mesh_ndim; ++i) {
    spec.placements.push_back(AnyPlacement(0));
    if (auto* shard = std::get_if<Shard>(&spec.placements.back())) {
      shard->blocks = AnyBlocks();
    }
    if (ShardDim(spec.placements.back()) >= 0) {
      spec.cut_order.push_back(i);
    }
  }
  if (Coin()) {
    spec.cut_order.clear();
  }
  std::shuffle(spec.cut_order.begin(), spec.cut_order.end(), random_);
  return spec;
}

DeviceMesh RandomValues::AnyMesh() {
  std::vector<MeshDim> dims;
  for (int i = Below(3); i >= 0; --i) {
    dims.push_back({absl::StrCat("dim", i), 1 + Below(4)});
  }
  return *DeviceMesh::Create(std::move(dims));
}

Initializer RandomValues::AnyInitializer() {
  const double a = Number();
  switch (Below(5)) {
    case 0:
      return {Initializer::Kind::kZeros};
    case 1:
      return {Initializer::Kind::kOnes};
    case 2:
      return {Initializer::Kind::kUniform, a, a + Below(3)};
    case 3:
      return {.kind = Initializer::Kind::kFiles,
              .path = "/" + Word(),
              .names = {Word()}};
    default:
      return {Initializer::Kind::kNormal, a, Below(3) * 0.5};
  }
}

Argument RandomValues::AnyArgument(int depth) {
  switch (Below(depth < 4 ? 8 : 7)) {
    case 0:
      return {};
    case 1:
      return {NodeRef{Word()}};
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
    default: {
      ArgumentList items;
      for (int i = Below(4); i > 0; --i) {
        items.push_back(AnyArgument(depth + 1));
      }
      return {std::move(items)};
    }
  }
}

Graph RandomValues::AnyGraph() {
  Graph graph;
  for (int i = Below(6); i >= 0; --i) {
    Node node{
        .name = Word(), .op = static_cast<NodeOp>(Below(5)), .target = Word()};
    for (int j = Below(4); j > 0; --j) {
      node.args.push_back(AnyArgument());
      node.kwargs[Word()] = AnyArgument();
      node.results.push_back(AnyTensorType());
    }
    graph.nodes.push_back(std::move(node));
  }
  return graph;
}

GraphModule RandomValues::AnyModule() {
  std::vector<ModuleNode> modules{{.fqn = "", .type = "Root"}};
  std::vector<Parameter> parameters;
  for (int i = 0; i < 1 + Below(6); ++i) {
    const std::string fqn =
        JoinFqn(modules[Below(static_cast<int>(modules.size()))].fqn,
                absl::StrCat("m", i));
    ModuleNode node{.fqn = fqn, .type = Word(), .training = Coin()};
    node.attributes[Word()] = AnyArgument();
    node.bases.assign(Below(3), Word());
    modules.push_back(std::move(node));
    Parameter parameter{.fqn = JoinFqn(fqn, "weight"), .type = FloatType()};
    parameter.requires_grad = Coin();
    parameter.buffer = !parameter.requires_grad && Coin();
    if (Coin()) {
      parameter.initializer = AnyInitializer();
    }
    parameters.push_back(parameter);
    if (Coin()) {
      parameter.alias_of = parameter.fqn;
      parameter.fqn = JoinFqn(fqn, "tied");
      parameters.push_back(parameter);
    }
  }
  return *GraphModule::Create(std::move(modules), std::move(parameters));
}

LayoutChange RandomValues::AnyChange() {
  LayoutChange change;
  if (Coin()) {
    change.claimed = AnyPlacement(-3);
  }
  if (Coin()) {
    change.desired = AnyPlacement(-3);
  }
  return change;
}

PrepareModuleInput RandomValues::AnyInput() {
  PrepareModuleInput style;
  for (int i = Below(3); i > 0; --i) {
    style.inputs.push_back(AnyChange());
    style.kwargs[Word()] = AnyChange();
  }
  return style;
}

PrepareModuleOutput RandomValues::AnyOutput() {
  PrepareModuleOutput style{{AnyChange()}};
  for (int i = Below(3); i > 0; --i) {
    style.outputs.push_back(AnyChange());
  }
  return style;
}

ParallelStyle RandomValues::AnyStyle() {
  ParallelStyle style;
  style.mesh_dim = Coin() ? "" : Word();
  switch (Below(11)) {
    case 0:
      style.kind = ColwiseParallel{AnyPlacement(-3), AnyPlacement(-3)};
      break;
    case 1:
      style.kind = RowwiseParallel{AnyPlacement(-3), AnyPlacement(-3)};
      break;
    case 2:
      style.kind = AnyInput();
      break;
    case 3:
      style.kind = AnyOutput();
      break;
    case 4:
      style.kind = PrepareModuleInputOutput{AnyInput(), AnyOutput()};
      break;
    case 5:
      style.kind = SequenceParallel{Below(6) - 3};
      break;
    case 6:
      style.kind =
          InputReshard{Coin() ? std::optional(Below(6) - 3) : std::nullopt};
      break;
    case 7:
      style.kind = PairwiseParallel{AnyPlacement(-3), AnyPlacement(-3)};
      break;
    case 8:
      style.kind = PairwiseSequenceParallel{Below(6) - 3};
      break;
    case 9:
      style.kind = LossParallel{Below(6) - 3};
      break;
    default:
      style.kind = UnknownStyle{Word()};
      break;
  }
  return style;
}

ParallelizePlan RandomValues::AnyPlan(int depth) {
  ParallelizePlan plan;
  for (int i = Below(4); i > 0; --i) {
    PlanEntry entry{Coin() ? "" : Word(), PlanNone{}};
    const int kind = Below(depth < 4 ? 3 : 2);
    if (kind == 1) {
      std::vector<ParallelStyle> styles;
      for (int j = Below(4); j > 0; --j) {
        styles.push_back(AnyStyle());
      }
      entry.value = std::move(styles);
    } else if (kind == 2) {
      entry.value = AnyPlan(depth + 1);
    }
    plan.entries.push_back(std::move(entry));
  }
  return plan;
}

Signature RandomValues::AnySignature() {
  Signature signature;
  for (int i = Below(4); i > 0; --i) {
    signature.inputs.push_back({FloatType(), Coin(), Word()});
  }
  if (Coin()) {
    if (Coin()) {
      signature.loss = AnyGraph();
    } else {
      signature.loss = Coin() ? LossReduction::kSum : LossReduction::kMean;
    }
    signature.targets.push_back({AnyTensorType(), false, Word()});
  }
  return signature;
}

}  // namespace shardplane
