#include "common/optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/closest_name.h"
#include "common/errors.h"
#include "common/glob.h"

namespace shardplane {
namespace {

using Tokens = std::vector<absl::string_view>;

// ------------------------------------------------------------------- values

absl::Status Bad(absl::string_view field, absl::string_view expected,
                 absl::string_view got) {
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat(field, ": expected ", expected, "; got: ", got),
                   {.reason = "INVALID_OPTIMIZER",
                    .metadata = {{"field", std::string(field)}}});
}

// Checks one set of hyperparameters; the first error found stays.
class Checker {
 public:
  // `prefix` of the fields: "groups[1].adam.".
  explicit Checker(std::string prefix) : prefix_(std::move(prefix)) {}

  void Refuse(absl::string_view field, absl::string_view expected,
              absl::string_view got) {
    status_.Update(Bad(absl::StrCat(prefix_, field), expected, got));
  }
  void NotNegative(absl::string_view field, double value) {
    if (std::isfinite(value) && value >= 0) return;
    Refuse(field, "a finite number, not negative", absl::StrCat(value));
  }
  void Below1(absl::string_view field, double value) {
    if (value >= 0 && value < 1) return;
    Refuse(field, "at least 0 and less than 1", absl::StrCat(value));
  }

  void operator()(const SgdOptions& sgd) {
    NotNegative("lr", sgd.lr);
    NotNegative("momentum", sgd.momentum);
    NotNegative("weight_decay", sgd.weight_decay);
    // Negative dampening is odd, but torch takes it.
    if (!std::isfinite(sgd.dampening)) {
      Refuse("dampening", "a finite number", absl::StrCat(sgd.dampening));
    }
    if (sgd.nesterov && (sgd.momentum == 0 || sgd.dampening != 0)) {
      Refuse("nesterov", "a momentum and no dampening beside it",
             absl::StrCat("momentum ", sgd.momentum, ", dampening ",
                          sgd.dampening));
    }
  }
  void operator()(const AdamOptions& adam) {
    NotNegative("lr", adam.lr);
    NotNegative("eps", adam.eps);
    Below1("beta1", adam.beta1);
    Below1("beta2", adam.beta2);
    NotNegative("weight_decay", adam.weight_decay);
  }

  absl::Status status() const { return status_; }

 private:
  std::string prefix_;
  absl::Status status_;
};

absl::Status CheckValues(const Hyperparameters& values,
                         absl::string_view prefix) {
  Checker checker(
      absl::StrCat(prefix, absl::AsciiStrToLower(KindName(values)), "."));
  std::visit(checker, values);
  return checker.status();
}

absl::Status CheckGroup(const OptimizerOptions& options, size_t index) {
  const ParameterGroup& group = options.groups[index];
  const std::string path = absl::StrCat("groups[", index, "]");
  if (group.patterns.empty()) {
    return Bad(absl::StrCat(path, ".patterns"), "one at least", "none");
  }
  const std::string kind = KindName(options.values);
  if (KindName(group.values) != kind) {
    return Bad(path, absl::StrCat("values of the optimizer's kind, ", kind),
               KindName(group.values));
  }
  return CheckValues(group.values, absl::StrCat(path, "."));
}

// ------------------------------------------------------------------- groups

bool MatchesTokens(const Tokens& pattern, const Tokens& fqn, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (!GlobMatch(pattern[i], fqn[i])) return false;
  }
  return true;
}

bool Matches(const Tokens& pattern, const Tokens& fqn) {
  return pattern.size() == fqn.size() &&
         MatchesTokens(pattern, fqn, fqn.size());
}

bool MatchesAny(const Tokens& pattern, const std::vector<Tokens>& fqns) {
  for (const Tokens& fqn : fqns) {
    if (Matches(pattern, fqn)) return true;
  }
  return false;
}

// The names of parameters, ready to be matched against many patterns.
class Names {
 public:
  explicit Names(absl::Span<const std::string> fqns) {
    for (size_t i = 0; i < fqns.size(); ++i) {
      tokens_.push_back(absl::StrSplit(fqns[i], '.'));
      index_.emplace(fqns[i], i);
    }
  }

  std::vector<size_t> Matching(absl::string_view pattern) const {
    std::vector<size_t> matches;
    // A list of plain names is looked up, not tried one by one.
    if (pattern.find_first_of("*?[") == absl::string_view::npos) {
      const auto found = index_.find(pattern);
      if (found != index_.end()) matches.push_back(found->second);
      return matches;
    }
    const Tokens tokens = absl::StrSplit(pattern, '.');
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (Matches(tokens, tokens_[i])) matches.push_back(i);
    }
    return matches;
  }

  const std::vector<Tokens>& tokens() const { return tokens_; }

 private:
  std::vector<Tokens> tokens_;
  absl::btree_map<absl::string_view, size_t> index_;
};

// The pattern with as many "*" more, behind or before, as the names go deeper;
// "" if that does not match either.
std::string SuggestDeeper(const Tokens& pattern,
                          const std::vector<Tokens>& fqns) {
  size_t depth = 0;
  for (const Tokens& fqn : fqns) depth = std::max(depth, fqn.size());
  Tokens behind = pattern;
  Tokens before = pattern;
  while (behind.size() < depth) {
    behind.push_back("*");
    if (MatchesAny(behind, fqns)) return absl::StrJoin(behind, ".");
    before.insert(before.begin(), "*");
    if (MatchesAny(before, fqns)) return absl::StrJoin(before, ".");
  }
  return "";
}

// The pattern with its first wrong token replaced by the closest name that
// stands there; "" if that does not match either.
std::string SuggestName(const Tokens& pattern,
                        const std::vector<Tokens>& fqns) {
  size_t known = 0;  // tokens that some name begins with
  for (const Tokens& fqn : fqns) {
    while (known < std::min(pattern.size(), fqn.size()) &&
           MatchesTokens(pattern, fqn, known + 1)) {
      ++known;
    }
  }
  if (known == pattern.size()) return "";
  std::set<std::string> next;
  for (const Tokens& fqn : fqns) {
    if (fqn.size() > known && MatchesTokens(pattern, fqn, known)) {
      next.emplace(fqn[known]);
    }
  }
  const std::string closest = ClosestName(
      pattern[known], std::vector<std::string>(next.begin(), next.end()));
  Tokens replaced = pattern;
  replaced[known] = closest;
  return MatchesAny(replaced, fqns) ? absl::StrJoin(replaced, ".") : "";
}

absl::Status WithoutMatch(size_t group, size_t index, const std::string& text,
                          const std::vector<Tokens>& fqns) {
  const std::string path =
      absl::StrCat("groups[", group, "].patterns[", index, "]");
  const Tokens pattern = absl::StrSplit(text, '.');
  ErrorInfo info{.reason = "PATTERN_WITHOUT_MATCH",
                 .metadata = {{"field", path}, {"pattern", text}}};
  std::string hint;
  std::string suggestion = SuggestDeeper(pattern, fqns);
  if (suggestion.empty()) suggestion = SuggestName(pattern, fqns);
  if (!suggestion.empty()) {
    info.metadata["remedy"] = suggestion;
    hint = absl::StrCat(" (did you mean '", suggestion, "'?)");
  }
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat(path,
                                ": expected a pattern that matches a "
                                "parameter",
                                hint, "; got: '", text, "'"),
                   info);
}

}  // namespace

std::string KindName(const Hyperparameters& values) {
  const auto* adam = std::get_if<AdamOptions>(&values);
  if (adam == nullptr) return "SGD";
  return adam->kind == AdamKind::kAdamW ? "AdamW" : "Adam";
}

absl::Status Validate(const OptimizerOptions& options) {
  SP_RETURN_IF_ERROR(CheckValues(options.values, ""));
  for (size_t i = 0; i < options.groups.size(); ++i) {
    SP_RETURN_IF_ERROR(CheckGroup(options, i));
  }
  return absl::OkStatus();
}

bool OnlyAdds(const Hyperparameters& values) {
  const auto* sgd = std::get_if<SgdOptions>(&values);
  return sgd != nullptr && sgd->momentum == 0;
}

bool OnlyAdds(const OptimizerOptions& options) {
  return OnlyAdds(options.values) &&
         std::ranges::all_of(options.groups, [](const ParameterGroup& group) {
           return OnlyAdds(group.values);
         });
}

absl::Status CheckKind(const OptimizerOptions& options,
                       absl::string_view kind) {
  const std::string got = KindName(options.values);
  if (kind.empty() || kind == got) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      absl::StrCat("optimizer: expected ", kind,
                   ", of which there is state until it is reset; got: ", got),
      {.reason = "OPTIMIZER_KIND_DIFFERS",
       .metadata = {{"field", "optimizer"},
                    {"expected", std::string(kind)},
                    {"remedy", "reset the optimizer first"}}});
}

absl::StatusOr<std::vector<int>> AssignGroups(
    const OptimizerOptions& options, absl::Span<const std::string> fqns) {
  std::vector<int> assigned(fqns.size(), -1);
  if (options.groups.empty()) return assigned;
  const Names names(fqns);
  for (size_t group = 0; group < options.groups.size(); ++group) {
    const std::vector<std::string>& patterns = options.groups[group].patterns;
    for (size_t p = 0; p < patterns.size(); ++p) {
      const std::vector<size_t> matches = names.Matching(patterns[p]);
      if (matches.empty()) {
        return WithoutMatch(group, p, patterns[p], names.tokens());
      }
      for (const size_t i : matches) {
        if (assigned[i] < 0) assigned[i] = static_cast<int>(group);
      }
    }
  }
  return assigned;
}

const Hyperparameters& ValuesOf(const OptimizerOptions& options, int group) {
  return group < 0 ? options.values : options.groups[group].values;
}

}  // namespace shardplane
