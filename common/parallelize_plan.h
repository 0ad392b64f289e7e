// Plans, and their resolution against a module tree.
#ifndef SHARDPLANE_COMMON_PARALLELIZE_PLAN_H_
#define SHARDPLANE_COMMON_PARALLELIZE_PLAN_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "common/data_parallel.h"
#include "common/device_mesh.h"
#include "common/graph_module.h"
#include "common/placement.h"
#include "common/tensor_spec.h"

namespace shardplane {

// Styles are values: what they do to the parameters, inputs and outputs of one
// module. Placements are as the user wrote them (negative dims allowed).

// Linear: weight S(0), bias S(0). Embedding: weight S(1). `block_sizes`: what
// it cuts is packed, several tensors one after the other (q, k and v); empty:
// as one, or as the program shows (common/packing.h).
struct ColwiseParallel {
  Placement input_layouts = Replicate{};
  Placement output_layouts = Shard{-1};
  std::vector<int64_t> block_sizes = {};
  friend bool operator==(const ColwiseParallel&,
                         const ColwiseParallel&) = default;
};
// Linear: weight S(1), bias R. Embedding: weight S(0).
struct RowwiseParallel {
  Placement input_layouts = Shard{-1};
  Placement output_layouts = Replicate{};
  std::vector<int64_t> block_sizes = {};
  friend bool operator==(const RowwiseParallel&,
                         const RowwiseParallel&) = default;
};
// The first input cut along `sequence_dim`; the module's own parameters are
// replicated, and alike on every rank. Any module takes it.
struct SequenceParallel {
  int sequence_dim = 1;
  friend bool operator==(const SequenceParallel&,
                         const SequenceParallel&) = default;
};
// How one input or output is claimed to lie and how it is wanted. A claim of
// nullopt leaves the value alone; a wish of nullopt only annotates.
struct LayoutChange {
  std::optional<Placement> claimed;
  std::optional<Placement> desired;
  friend bool operator==(const LayoutChange&, const LayoutChange&) = default;
};
struct PrepareModuleInput {
  std::vector<LayoutChange> inputs;  // by position
  absl::btree_map<std::string, LayoutChange> kwargs;
  friend bool operator==(const PrepareModuleInput&,
                         const PrepareModuleInput&) = default;
};
struct PrepareModuleOutput {
  std::vector<LayoutChange> outputs;
  friend bool operator==(const PrepareModuleOutput&,
                         const PrepareModuleOutput&) = default;
};
struct PrepareModuleInputOutput {
  PrepareModuleInput input;
  PrepareModuleOutput output;
  friend bool operator==(const PrepareModuleInputOutput&,
                         const PrepareModuleInputOutput&) = default;
};
// Activations that the module, or one within it, keeps for the backward pass
// whole on every rank are cut along this tensor dim until then; nullopt: stay.
struct InputReshard {
  std::optional<int> input_reshard_dim = 0;
  friend bool operator==(const InputReshard&, const InputReshard&) = default;
};
// The linears within the module, paired as it calls them: one colwise, the one
// that reads what it makes rowwise; a MultiheadAttention by its heads. Layouts
// of what the first ones read and of what the last one makes. See pairing.h.
struct PairwiseParallel {
  Placement input_layouts = Replicate{};
  Placement output_layouts = Replicate{};
  friend bool operator==(const PairwiseParallel&,
                         const PairwiseParallel&) = default;
};
// The same with both cut along `sequence_dim`.
struct PairwiseSequenceParallel {
  int sequence_dim = 0;
  friend bool operator==(const PairwiseSequenceParallel&,
                         const PairwiseSequenceParallel&) = default;
};
// The output goes to a loss, and stays cut along the dim of its classes.
struct LossParallel {
  int class_dim = -1;
  friend bool operator==(const LossParallel&, const LossParallel&) = default;
};
// A name that is no style of this release: Unimplemented when resolved.
struct UnknownStyle {
  std::string name;
  friend bool operator==(const UnknownStyle&, const UnknownStyle&) = default;
};

struct ParallelStyle {
  std::variant<ColwiseParallel, RowwiseParallel, SequenceParallel,
               PrepareModuleInput, PrepareModuleOutput,
               PrepareModuleInputOutput, InputReshard, PairwiseParallel,
               PairwiseSequenceParallel, LossParallel, UnknownStyle>
      kind;
  std::string mesh_dim;  // "" is the plan's
  friend bool operator==(const ParallelStyle&, const ParallelStyle&) = default;
};

std::string ToString(const LayoutChange& change);  // "S(0) -> R", "None"
// "S(0) -> R, None, mask: R"
std::string ToString(const PrepareModuleInput& style);
std::string ToString(const PrepareModuleOutput& style);

std::string StyleName(const ParallelStyle& style);  // "ColwiseParallel"
// "ColwiseParallel(R -> S(-1))"
std::string ToString(const ParallelStyle& style);

struct ParallelizePlan;
// None, styles applied in order (one or a list), or a nested dict.
struct PlanNone {
  friend bool operator==(const PlanNone&, const PlanNone&) = default;
};
struct PlanEntry;
struct ParallelizePlan {  // a dict, in its order
  std::vector<PlanEntry> entries;
  friend bool operator==(const ParallelizePlan&,
                         const ParallelizePlan&) = default;
};
using PlanValue =
    std::variant<PlanNone, std::vector<ParallelStyle>, ParallelizePlan>;
struct PlanEntry {
  std::string pattern;
  PlanValue value;
  friend bool operator==(const PlanEntry&, const PlanEntry&) = default;
};

enum class Severity { kNote = 1, kWarning };

// A remark about a plan or program; never the reason of a failure.
struct Diagnostic {
  Severity severity = Severity::kWarning;
  std::string reason;  // UPPER_SNAKE
  std::string message;
  std::string fqn;
  std::string pattern;  // as the user wrote it, outer keys joined by "."
  friend bool operator==(const Diagnostic&, const Diagnostic&) = default;
};

// One style on one module. Assignments of a module are in the order in which
// the plan applies them.
struct Assignment {
  int module = 0;  // index in GraphModule::modules()
  std::string fqn;
  ParallelStyle style;
  int mesh_dim = 0;
  std::string pattern;
  friend bool operator==(const Assignment&, const Assignment&) = default;
};

struct ResolvedPlan {
  std::vector<Assignment> assignments;
  // By parameter index of the module: how the tensor is stored (all names of
  // one tensor alike), and how it is wanted where this name is used. They
  // differ for parameters that are fully sharded, and for tied weights that the
  // plan cuts in two ways; a note says so.
  std::vector<DTensorSpec> parameter_specs;
  std::vector<DTensorSpec> wanted_specs;
  std::vector<Diagnostic> diagnostics;
  int mesh_dim = 0;  // the plan's; the first, where all are data parallel
  DataParallelDims data_parallel;
};

struct PlanOptions {
  // "": "tp", else the only one that is not data parallel, else
  // InvalidArgument.
  std::string mesh_dim;
  std::vector<DataParallel> data_parallel;
  bool strict = false;  // warnings become InvalidArgument
};

// Applies PyTorch's rules (dict order; one shell glob a token, against
// immediate children; "" is the module itself; no match warns and goes on) and
// DESIGN.md's: all faults are found before anything is applied, two different
// parameter styles on one module are an error that names both patterns, the
// same one twice counts once. `plan` nullopt is PyTorch's None: a warning.
// InvalidArgument: two different parameter styles on one module
// (STYLE_CONFLICT), an unknown mesh dim (UNKNOWN_MESH_DIM), one that is data
// parallel (DATA_PARALLEL_MESH_DIM), a parameter whose rank the style does not
// fit (PARAMETER_UNSUPPORTED); with `strict`, the reason of the first warning.
// Unimplemented: a style of an unknown name (STYLE_UNKNOWN) or on a module that
// it does not take (STYLE_UNSUPPORTED_MODULE). The message names FQN and
// pattern of the first fault and says how many more there are; metadata
// "errors" has them all, one a line. Layouts are checked where ranks are known:
// when a program is compiled.
absl::StatusOr<ResolvedPlan> ResolvePlan(
    const GraphModule& module, const DeviceMesh& mesh,
    const std::optional<ParallelizePlan>& plan, const PlanOptions& options);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_PARALLELIZE_PLAN_H_
