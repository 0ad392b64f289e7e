#include "common/style_edges.h"

#include <optional>
#include <variant>

namespace shardplane {
namespace {

// A value without a claim is left alone, whatever is wanted of it.
void DropUnclaimed(LayoutChange* change) {
  if (!change->claimed) change->desired.reset();
}
PrepareModuleInput Claimed(PrepareModuleInput style) {
  for (LayoutChange& change : style.inputs) DropUnclaimed(&change);
  for (auto& [name, change] : style.kwargs) DropUnclaimed(&change);
  return style;
}
PrepareModuleOutput Claimed(PrepareModuleOutput style) {
  for (LayoutChange& change : style.outputs) DropUnclaimed(&change);
  return style;
}

class EdgeReader {
 public:
  explicit EdgeReader(const ModuleNode& module) : module_(module) {}

  StyleEdges operator()(const ColwiseParallel& style) const {
    return {LayoutChange{style.input_layouts, Replicate{}},
            {},
            {{{std::nullopt, style.output_layouts}}},
            Shard{-1}};
  }
  StyleEdges operator()(const RowwiseParallel& style) const {
    // An embedding's rows are looked up by indices that each rank has whole.
    const Placement wanted = IsA(module_, "Embedding") ? Placement(Replicate{})
                                                       : Placement(Shard{-1});
    return {LayoutChange{style.input_layouts, wanted},
            {},
            {{{std::nullopt, style.output_layouts}}},
            Partial{ReduceOp::kSum}};
  }
  StyleEdges operator()(const SequenceParallel& style) const {
    const Placement cut = Shard{style.sequence_dim};
    return {LayoutChange{cut, cut}, {}, {}, {}};
  }
  StyleEdges operator()(const PrepareModuleInput& style) const {
    return {{}, Claimed(style), {}, {}};
  }
  StyleEdges operator()(const PrepareModuleOutput& style) const {
    return {{}, {}, Claimed(style), {}};
  }
  StyleEdges operator()(const PrepareModuleInputOutput& style) const {
    return {{}, Claimed(style.input), Claimed(style.output), {}};
  }
  StyleEdges operator()(const InputReshard&) const { return {}; }
  // On an attention, whose output is made by a rowwise projection.
  StyleEdges operator()(const PairwiseParallel& style) const {
    const LayoutChange change = {style.input_layouts, Replicate{}};
    return {change,
            {{}, {{"query", change}, {"key", change}, {"value", change}}},
            {{{std::nullopt, style.output_layouts}}},
            Partial{ReduceOp::kSum}};
  }
  StyleEdges operator()(const PairwiseSequenceParallel&) const { return {}; }
  // Of several outputs the logits are the first. Those that come cut stay so.
  StyleEdges operator()(const LossParallel& style) const {
    const Placement cut = Shard{style.class_dim};
    return {{}, {}, {{{std::nullopt, cut}}}, cut};
  }
  StyleEdges operator()(const UnknownStyle&) const { return {}; }

 private:
  const ModuleNode& module_;
};

}  // namespace

StyleEdges EdgesOf(const ParallelStyle& style, const ModuleNode& module) {
  return std::visit(EdgeReader(module), style.kind);
}

bool PlacesParameters(const ParallelStyle& style) {
  return std::holds_alternative<ColwiseParallel>(style.kind) ||
         std::holds_alternative<RowwiseParallel>(style.kind) ||
         std::holds_alternative<SequenceParallel>(style.kind) ||
         std::holds_alternative<PairwiseParallel>(style.kind) ||
         std::holds_alternative<PairwiseSequenceParallel>(style.kind);
}

}  // namespace shardplane
