#include "common/report_memory.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/run_memory.h"

namespace shardplane {
namespace {

// Runs of a program, by rank: ranks whose local sizes are alike have one peak.
class PeaksByRank {
 public:
  explicit PeaksByRank(const ShardedProgram& program) : program_(program) {
    for (const Value& value : program.values) {
      const int rank = static_cast<int>(value.type.shape.size());
      if (!HasShard(value.spec)) continue;
      for (int dim = 0; dim < rank; ++dim) {
        DimCuts cuts = CutsOfDim(value.type.shape, value.spec, dim);
        if (!cuts.cuts.empty()) cuts_.insert(std::move(cuts));
      }
    }
    for (const Instruction& instruction : program.instructions) {
      const auto* step = std::get_if<Redistribute>(&instruction);
      if (step != nullptr && step->kind == RedistributeKind::kMask) {
        masked_.insert(step->mesh_dim);
      }
    }
  }

  const RunPeak& At(absl::Span<const int> coordinate) {
    std::vector<int64_t> sizes;
    for (const DimCuts& cuts : cuts_) {
      sizes.push_back(LocalSizeOf(cuts, program_.mesh, coordinate));
    }
    for (const int mesh_dim : masked_) {
      sizes.push_back(coordinate[mesh_dim] == 0 ? 0 : 1);
    }
    const auto [peak, is_new] = peaks_.try_emplace(std::move(sizes));
    if (is_new) peak->second = PeakOfRun(program_, coordinate);
    return peak->second;
  }

 private:
  const ShardedProgram& program_;
  absl::btree_set<DimCuts> cuts_;
  absl::btree_set<int> masked_;  // mesh dims of which only index 0 keeps values
  absl::btree_map<std::vector<int64_t>, RunPeak> peaks_;
};

// Tensors that an optimizer keeps for each parameter with a gradient, of its
// type and shape.
struct OptimizerState {
  absl::string_view optimizer;
  int tensors;
};
constexpr OptimizerState kOptimizerStates[] = {
    {"SGD", 0},           {"SGD, momentum", 1}, {"Adam", 2},
    {"Adam, amsgrad", 3}, {"AdamW", 2},         {"AdamW, amsgrad", 3},
};

// Whether a parameter gets a gradient: what the program says, else what it
// asks for.
std::vector<bool> HasGradient(const GraphModule& module,
                              const ShardedProgram* program) {
  std::vector<bool> has(module.parameters().size());
  for (size_t i = 0; i < has.size(); ++i) {
    const Parameter& parameter = module.parameters()[i];
    has[i] = program == nullptr && parameter.requires_grad;
  }
  if (program == nullptr) return has;
  for (const ParameterBinding& binding : program->parameters) {
    if (binding.gradient == -1) continue;
    has[module.FindParameter(binding.fqn) - module.parameters().data()] = true;
  }
  return has;
}

}  // namespace

std::vector<RankMemory> EstimateMemory(const GraphModule& module,
                                       const DeviceMesh& mesh,
                                       const ResolvedPlan& plan,
                                       const ShardedProgram* program) {
  const std::vector<bool> has_gradient = HasGradient(module, program);
  const int ranks = std::min(mesh.size(), kMaxReportedRanks);
  std::optional<PeaksByRank> peaks;
  if (program != nullptr) peaks.emplace(*program);
  std::vector<RankMemory> memory;
  for (int rank = 0; rank < ranks; ++rank) {
    const std::vector<int> coordinate = mesh.Coordinate(rank);
    RankMemory line{.rank = rank};
    for (size_t i = 0; i < module.parameters().size(); ++i) {
      const Parameter& parameter = module.parameters()[i];
      if (!parameter.alias_of.empty()) continue;
      const int64_t bytes =
          LocalBytes(parameter.type, plan.parameter_specs[i], mesh, coordinate);
      (parameter.buffer ? line.buffer_bytes : line.parameter_bytes) += bytes;
      if (has_gradient[i] && !parameter.buffer) line.gradient_bytes += bytes;
    }
    for (const OptimizerState& state : kOptimizerStates) {
      line.optimizer_state.push_back(
          {std::string(state.optimizer), state.tensors * line.gradient_bytes});
    }
    if (peaks.has_value()) {
      const RunPeak& peak = peaks->At(coordinate);
      line.peak_activation_bytes = peak.activations;
      line.peak_run_bytes = peak.run;
    }
    memory.push_back(line);
  }
  return memory;
}

}  // namespace shardplane
