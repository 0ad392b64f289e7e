// Text forms of styles.
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/parallelize_plan.h"

namespace shardplane {
namespace {

struct Name {
  std::string operator()(const ColwiseParallel&) { return "ColwiseParallel"; }
  std::string operator()(const RowwiseParallel&) { return "RowwiseParallel"; }
  std::string operator()(const SequenceParallel&) { return "SequenceParallel"; }
  std::string operator()(const PrepareModuleInput&) {
    return "PrepareModuleInput";
  }
  std::string operator()(const PrepareModuleOutput&) {
    return "PrepareModuleOutput";
  }
  std::string operator()(const PrepareModuleInputOutput&) {
    return "PrepareModuleInputOutput";
  }
  std::string operator()(const InputReshard&) { return "InputReshard"; }
  std::string operator()(const PairwiseParallel&) { return "PairwiseParallel"; }
  std::string operator()(const PairwiseSequenceParallel&) {
    return "PairwiseSequenceParallel";
  }
  std::string operator()(const LossParallel&) { return "LossParallel"; }
  std::string operator()(const UnknownStyle& style) { return style.name; }
};

struct Layouts {
  std::string operator()(const ColwiseParallel& style) { return Linear(style); }
  std::string operator()(const RowwiseParallel& style) { return Linear(style); }
  template <typename Style>
  static std::string Linear(const Style& style) {
    const std::string blocks =
        style.block_sizes.empty()
            ? ""
            : absl::StrCat(", blocks ", absl::StrJoin(style.block_sizes, "+"));
    return absl::StrCat(ToString(style.input_layouts), " -> ",
                        ToString(style.output_layouts), blocks);
  }
  std::string operator()(const SequenceParallel& style) {
    return ToString(Placement(Shard{style.sequence_dim}));
  }
  std::string operator()(const PrepareModuleInput& style) {
    return ToString(style);
  }
  std::string operator()(const PrepareModuleOutput& style) {
    return ToString(style);
  }
  std::string operator()(const PrepareModuleInputOutput& style) {
    return absl::StrCat("in: ", ToString(style.input),
                        "; out: ", ToString(style.output));
  }
  std::string operator()(const InputReshard& style) {
    return style.input_reshard_dim
               ? ToString(Placement(Shard{*style.input_reshard_dim}))
               : "None";
  }
  std::string operator()(const PairwiseParallel& style) {
    return absl::StrCat(ToString(style.input_layouts), " -> ",
                        ToString(style.output_layouts));
  }
  std::string operator()(const PairwiseSequenceParallel& style) {
    return ToString(Placement(Shard{style.sequence_dim}));
  }
  std::string operator()(const LossParallel& style) {
    return ToString(Placement(Shard{style.class_dim}));
  }
  std::string operator()(const UnknownStyle&) { return "?"; }
};

void AppendChange(std::string* out, const LayoutChange& change) {
  absl::StrAppend(out, ToString(change));
}

}  // namespace

std::string ToString(const LayoutChange& change) {
  if (!change.claimed.has_value()) return "None";
  if (!change.desired.has_value()) return ToString(*change.claimed);
  return absl::StrCat(ToString(*change.claimed), " -> ",
                      ToString(*change.desired));
}

std::string ToString(const PrepareModuleInput& style) {
  std::vector<std::string> parts;
  for (const LayoutChange& change : style.inputs) {
    parts.push_back(ToString(change));
  }
  for (const auto& [name, change] : style.kwargs) {
    parts.push_back(absl::StrCat(name, ": ", ToString(change)));
  }
  return absl::StrJoin(parts, ", ");
}

std::string ToString(const PrepareModuleOutput& style) {
  return absl::StrJoin(style.outputs, ", ", AppendChange);
}

std::string StyleName(const ParallelStyle& style) {
  return std::visit(Name{}, style.kind);
}

std::string ToString(const ParallelStyle& style) {
  return absl::StrCat(
      StyleName(style), "(", std::visit(Layouts{}, style.kind),
      style.mesh_dim.empty() ? "" : absl::StrCat("; mesh_dim ", style.mesh_dim),
      ")");
}

}  // namespace shardplane
