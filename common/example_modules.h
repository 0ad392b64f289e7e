// For tests: the modules that PyTorch's own tests of tensor parallelism use.
#ifndef SHARDPLANE_COMMON_EXAMPLE_MODULES_H_
#define SHARDPLANE_COMMON_EXAMPLE_MODULES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/graph_module.h"

namespace shardplane {

// Builds a tree line by line; parents first.
class ModuleBuilder {
 public:
  // The root.
  explicit ModuleBuilder(absl::string_view type);

  ModuleBuilder& Module(absl::string_view fqn, absl::string_view type,
                        std::vector<std::string> bases = {});
  ModuleBuilder& Parameter(absl::string_view fqn, Shape shape);
  ModuleBuilder& Buffer(absl::string_view fqn, TensorType type);
  ModuleBuilder& Alias(absl::string_view fqn, absl::string_view of);
  // A torch.nn.Linear with weight and bias.
  ModuleBuilder& Linear(absl::string_view fqn, int64_t in, int64_t out);
  ModuleBuilder& Embedding(absl::string_view fqn, int64_t count, int64_t dim);

  GraphModule Build() const;

 private:
  std::vector<ModuleNode> modules_;
  std::vector<shardplane::Parameter> parameters_;
};

// net1: Linear(10, 16), relu, net2: Linear(16, 10).
GraphModule MlpModule();

// layers: a ModuleList of `count` MlpModules.
GraphModule MlpStacked(int count);

// tok_embeddings, layers.N.{attention.{wq, wk, wv, wo}, attention_norm,
// feed_forward.{w1, gelu, w2}, ffn_norm}, norm, output; output's weight is tied
// to tok_embeddings'. dim 16, vocabulary 8.
GraphModule Transformer(int layers);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_EXAMPLE_MODULES_H_
