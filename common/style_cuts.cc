#include "common/style_cuts.h"

#include <string>

namespace shardplane {
namespace {

constexpr CutRow kCuts[] = {
    {"ColwiseParallel", "Linear", "weight", 0, 2},
    {"ColwiseParallel", "Linear", "bias", 0, 1},
    {"ColwiseParallel", "Embedding", "weight", 1, 2},
    {"RowwiseParallel", "Linear", "weight", 1, 2},
    {"ColwiseParallel", kConv1D, "weight", 1, 2},
    {"ColwiseParallel", kConv1D, "bias", 0, 1},
    {"RowwiseParallel", kConv1D, "weight", 0, 2},
    {"RowwiseParallel", "Embedding", "weight", 0, 2},
    // The projections of query, key and value. out_proj is a module of its own.
    {"PairwiseParallel", kAttention, "in_proj_weight", 0, 2},
    {"PairwiseParallel", kAttention, "in_proj_bias", 0, 1},
    {"PairwiseParallel", kAttention, "q_proj_weight", 0, 2},
    {"PairwiseParallel", kAttention, "k_proj_weight", 0, 2},
    {"PairwiseParallel", kAttention, "v_proj_weight", 0, 2},
    {"PairwiseParallel", kAttention, "bias_k", 2, 3},
    {"PairwiseParallel", kAttention, "bias_v", 2, 3},
};

}  // namespace

absl::string_view CutType(absl::string_view style, const ModuleNode& module) {
  for (const CutRow& row : kCuts) {
    if (row.style == style && IsA(module, row.module_type)) {
      return row.module_type;
    }
  }
  return "";
}

const CutRow* FindCut(absl::string_view style, absl::string_view type,
                      const Parameter& parameter) {
  const std::string name = SplitFqn(parameter.fqn).second;
  for (const CutRow& row : kCuts) {
    if (row.style == style && row.module_type == type &&
        row.parameter == name) {
      return &row;
    }
  }
  return nullptr;
}

}  // namespace shardplane
