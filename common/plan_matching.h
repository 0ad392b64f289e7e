// The first half of resolving a plan: which entry hits which module.
#ifndef SHARDPLANE_COMMON_PLAN_MATCHING_H_
#define SHARDPLANE_COMMON_PLAN_MATCHING_H_

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/graph_module.h"
#include "common/parallelize_plan.h"

namespace shardplane {

// One style that the plan applies to one module.
struct PlanMatch {
  int module = 0;                        // index in GraphModule::modules()
  const ParallelStyle* style = nullptr;  // the plan's
  absl::string_view pattern;  // outer keys of nested dicts joined by "."
};

struct PlanWarning {
  Diagnostic diagnostic;
  std::string suggestion;  // what may have been meant, or ""
};

// Its matches point into it and into the plan.
struct PlanMatches {
  PlanMatches() = default;
  PlanMatches(PlanMatches&&) = default;
  PlanMatches& operator=(PlanMatches&&) = default;

  std::vector<PlanMatch>
      matches;  // in the order in which the plan applies them
  std::vector<PlanWarning> warnings;
  std::vector<Diagnostic> notes;
  // Deques: what is in them stays where it is.
  std::deque<std::string> patterns;
  std::deque<ParallelStyle> styles;  // those that no plan has, see pairing.h
};

// PyTorch's rules: dict order; one glob a token, against the names of the
// immediate children; "" is the module itself, and so is what follows a
// trailing dot; an entry without a match warns, once for each parent that it
// fails under, and is skipped. Cases, on a root with children net1 and net2:
//   {"net*": style} -> net1, net2
//   {"net1.": style} -> net1
//   {"net3": style} -> PATTERN_WITHOUT_MATCH, token net3, suggestion net1
//   {"net1": None} -> NO_PLAN for net1
// `plan` must outlive the result.
PlanMatches MatchPlan(const GraphModule& module,
                      const std::optional<ParallelizePlan>& plan);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_PLAN_MATCHING_H_
