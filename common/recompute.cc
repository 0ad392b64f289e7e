#include "common/recompute.h"

#include <string>
#include <utility>
#include <vector>

#include "common/plan_matching.h"

namespace shardplane {

std::vector<bool> RecomputedModules(const GraphModule& module,
                                    const std::vector<std::string>& patterns,
                                    std::vector<Diagnostic>* diagnostics) {
  std::vector<bool> recomputed(module.modules().size(), false);
  if (patterns.empty()) return recomputed;
  ParallelizePlan plan;
  for (const std::string& pattern : patterns) {
    // Any style: what matters is whom it would be for.
    plan.entries.push_back({pattern, std::vector<ParallelStyle>(1)});
  }
  const std::optional<ParallelizePlan> wanted = std::move(plan);
  const PlanMatches matches = MatchPlan(module, wanted);
  for (const PlanMatch& match : matches.matches) {
    recomputed[match.module] = true;
  }
  for (const PlanWarning& warning : matches.warnings) {
    diagnostics->push_back(warning.diagnostic);
    diagnostics->back().message = "recompute: " + diagnostics->back().message;
  }
  return recomputed;
}

}  // namespace shardplane
