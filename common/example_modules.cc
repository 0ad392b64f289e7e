#include "common/example_modules.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace shardplane {
namespace {

void AddMlp(absl::string_view fqn, ModuleBuilder* builder) {
  builder->Linear(JoinFqn(fqn, "net1"), 10, 16)
      .Module(JoinFqn(fqn, "relu"), "torch.nn.modules.activation.ReLU")
      .Linear(JoinFqn(fqn, "net2"), 16, 10);
}

void AddLayerNorm(const std::string& fqn, ModuleBuilder* builder) {
  builder->Module(fqn, "torch.nn.modules.normalization.LayerNorm")
      .Parameter(fqn + ".weight", {16})
      .Parameter(fqn + ".bias", {16});
}

void AddBlock(const std::string& fqn, ModuleBuilder* builder) {
  builder->Module(fqn, "TransformerBlock");
  AddLayerNorm(fqn + ".attention_norm", builder);
  builder->Module(fqn + ".attention", "Attention");
  for (const char* name : {"wq", "wk", "wv", "wo"}) {
    const std::string linear = absl::StrCat(fqn, ".attention.", name);
    builder->Module(linear, "torch.nn.modules.linear.Linear")
        .Parameter(linear + ".weight", {16, 16});
  }
  AddLayerNorm(fqn + ".ffn_norm", builder);
  builder->Module(fqn + ".feed_forward", "FeedForward")
      .Linear(fqn + ".feed_forward.w1", 16, 64)
      .Module(fqn + ".feed_forward.gelu", "torch.nn.modules.activation.GELU")
      .Linear(fqn + ".feed_forward.w2", 64, 16);
}

}  // namespace

ModuleBuilder::ModuleBuilder(absl::string_view type) { Module("", type); }

ModuleBuilder& ModuleBuilder::Module(absl::string_view fqn,
                                     absl::string_view type,
                                     std::vector<std::string> bases) {
  ModuleNode node;
  node.fqn = std::string(fqn);
  node.type = std::string(type);
  node.bases = std::move(bases);
  modules_.push_back(std::move(node));
  return *this;
}

ModuleBuilder& ModuleBuilder::Parameter(absl::string_view fqn, Shape shape) {
  shardplane::Parameter parameter;
  parameter.fqn = std::string(fqn);
  parameter.type.shape = std::move(shape);
  parameters_.push_back(std::move(parameter));
  return *this;
}

ModuleBuilder& ModuleBuilder::Buffer(absl::string_view fqn, TensorType type) {
  Parameter(fqn, {});
  parameters_.back().type = std::move(type);
  parameters_.back().buffer = true;
  parameters_.back().requires_grad = false;
  return *this;
}

ModuleBuilder& ModuleBuilder::Alias(absl::string_view fqn,
                                    absl::string_view of) {
  for (const shardplane::Parameter& parameter : parameters_) {
    if (parameter.fqn != of) continue;
    shardplane::Parameter alias = parameter;
    alias.fqn = std::string(fqn);
    alias.alias_of = std::string(of);
    parameters_.push_back(std::move(alias));
    break;
  }
  return *this;
}

ModuleBuilder& ModuleBuilder::Linear(absl::string_view fqn, int64_t in,
                                     int64_t out) {
  return Module(fqn, "torch.nn.modules.linear.Linear")
      .Parameter(JoinFqn(fqn, "weight"), {out, in})
      .Parameter(JoinFqn(fqn, "bias"), {out});
}

ModuleBuilder& ModuleBuilder::Embedding(absl::string_view fqn, int64_t count,
                                        int64_t dim) {
  return Module(fqn, "torch.nn.modules.sparse.Embedding")
      .Parameter(JoinFqn(fqn, "weight"), {count, dim});
}

GraphModule ModuleBuilder::Build() const {
  return GraphModule::Create(modules_, parameters_).value();
}

GraphModule MlpModule() {
  ModuleBuilder builder("MLPModule");
  AddMlp("", &builder);
  return builder.Build();
}

GraphModule MlpStacked(int count) {
  ModuleBuilder builder("MLPStacked");
  builder.Module("layers", "torch.nn.modules.container.ModuleList");
  for (int i = 0; i < count; ++i) {
    const std::string fqn = absl::StrCat("layers.", i);
    builder.Module(fqn, "MLPModule");
    AddMlp(fqn, &builder);
  }
  return builder.Build();
}

GraphModule Transformer(int layers) {
  ModuleBuilder builder("Transformer");
  builder.Embedding("tok_embeddings", 8, 16)
      .Embedding("pos_embeddings", 16, 16)
      .Module("dropout", "torch.nn.modules.dropout.Dropout")
      .Module("layers", "torch.nn.modules.container.ModuleList");
  for (int i = 0; i < layers; ++i) {
    AddBlock(absl::StrCat("layers.", i), &builder);
  }
  AddLayerNorm("norm", &builder);
  builder.Module("output", "torch.nn.modules.linear.Linear")
      .Alias("output.weight", "tok_embeddings.weight");
  return builder.Build();
}

}  // namespace shardplane
