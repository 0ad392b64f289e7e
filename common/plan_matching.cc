#include "common/plan_matching.h"

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/closest_name.h"
#include "common/glob.h"

namespace shardplane {
namespace {

class Matcher {
 public:
  explicit Matcher(const GraphModule& module) : module_(module) {}

  PlanMatches Take() && { return std::move(result_); }

  void ApplyNone(int module, const std::string& pattern) {
    Warn({.reason = "NO_PLAN",
          .message = absl::StrCat(
              "The plan for module \"", Fqn(module),
              "\" is None: nothing is sharded there. Give it a style, or leave "
              "its key out."),
          .fqn = Fqn(module),
          .pattern = pattern},
         "");
  }

  void ApplyDict(int module, const ParallelizePlan& plan,
                 const std::string& outer) {
    for (const PlanEntry& entry : plan.entries) {
      result_.patterns.push_back(JoinPatterns(outer, entry.pattern));
      Resolve(module, entry.pattern, entry.value, result_.patterns.back());
    }
  }

 private:
  static std::string JoinPatterns(const std::string& outer,
                                  const std::string& inner) {
    if (outer.empty() || inner.empty()) return outer.empty() ? inner : outer;
    return absl::StrCat(outer, absl::EndsWith(outer, ".") ? "" : ".", inner);
  }

  const std::string& Fqn(int module) const {
    return module_.modules()[module].fqn;
  }

  // Resolves what is left of a key, below `module`.
  void Resolve(int module, absl::string_view path, const PlanValue& value,
               const std::string& pattern) {
    if (path.empty()) {
      ApplyValue(module, value, pattern);
      return;
    }
    const size_t dot = path.find('.');
    const absl::string_view token = path.substr(0, dot);
    const absl::string_view rest =
        dot == absl::string_view::npos ? "" : path.substr(dot + 1);
    bool matched = false;
    for (const auto& [name, child] : module_.Children(module)) {
      if (!GlobMatch(token, name)) continue;
      matched = true;
      Resolve(child, rest, value, pattern);
    }
    if (!matched) WarnWithoutMatch(module, token, pattern);
  }

  void ApplyValue(int module, const PlanValue& value,
                  const std::string& pattern) {
    if (std::holds_alternative<PlanNone>(value)) {
      ApplyNone(module, pattern);
    } else if (const auto* plan = std::get_if<ParallelizePlan>(&value)) {
      ApplyDict(module, *plan, pattern);
    } else {
      for (const auto& style : std::get<std::vector<ParallelStyle>>(value)) {
        result_.matches.push_back({module, &style, pattern});
      }
    }
  }

  void Warn(Diagnostic diagnostic, std::string suggestion) {
    diagnostic.severity = Severity::kWarning;
    result_.warnings.push_back({std::move(diagnostic), std::move(suggestion)});
  }

  void WarnWithoutMatch(int module, absl::string_view token,
                        const std::string& pattern) {
    std::string suggestion = Suggest(module, token);
    std::string message = absl::StrCat(
        "Parallelize plan key '", pattern,
        "' could not be resolved: no submodule matching token '", token,
        "' in module \"", Fqn(module), "\" (", module_.modules()[module].type,
        "), skipping this plan entry.");
    if (!suggestion.empty()) {
      absl::StrAppend(&message, " Did you mean '", suggestion, "'?");
    }
    Warn({.reason = "PATTERN_WITHOUT_MATCH",
          .message = std::move(message),
          .fqn = Fqn(module),
          .pattern = pattern},
         std::move(suggestion));
  }

  // The child whose name is closest, if it is close; else "*.token" where the
  // token names a child of a child (a list's index was forgotten); else "".
  std::string Suggest(int module, absl::string_view token) const {
    std::vector<std::string> names;
    for (const auto& [name, child] : module_.Children(module)) {
      names.push_back(name);
    }
    const std::string closest = ClosestName(token, names);
    return closest.empty() ? SuggestDeeper(module, token) : closest;
  }

  std::string SuggestDeeper(int module, absl::string_view token) const {
    for (const auto& [name, child] : module_.Children(module)) {
      for (const auto& [inner_name, inner] : module_.Children(child)) {
        if (GlobMatch(token, inner_name)) return absl::StrCat("*.", token);
      }
    }
    return "";
  }

  const GraphModule& module_;
  PlanMatches result_;
};

}  // namespace

PlanMatches MatchPlan(const GraphModule& module,
                      const std::optional<ParallelizePlan>& plan) {
  Matcher matcher(module);
  if (plan.has_value()) {
    matcher.ApplyDict(0, *plan, "");
  } else {
    matcher.ApplyNone(0, "");
  }
  return std::move(matcher).Take();
}

}  // namespace shardplane
