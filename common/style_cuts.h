// Where the styles that place parameters cut them.
#ifndef SHARDPLANE_COMMON_STYLE_CUTS_H_
#define SHARDPLANE_COMMON_STYLE_CUTS_H_

#include "absl/strings/string_view.h"
#include "common/graph_module.h"

namespace shardplane {

// GPT-2's linear, whose weight is [inputs, outputs].
inline constexpr absl::string_view kConv1D =
    "transformers.pytorch_utils.Conv1D";
inline constexpr absl::string_view kAttention = "MultiheadAttention";

// Which tensor dim of a parameter a style cuts. What is not listed stays whole:
// a rowwise bias, and what a subclass adds.
struct CutRow {
  absl::string_view style;
  absl::string_view module_type;
  absl::string_view parameter;
  int tensor_dim;
  int parameter_rank;
};

// The type whose rows apply to a module; "" if none do.
absl::string_view CutType(absl::string_view style, const ModuleNode& module);

// nullptr: it stays whole. `type`: CutType's.
const CutRow* FindCut(absl::string_view style, absl::string_view type,
                      const Parameter& parameter);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_STYLE_CUTS_H_
