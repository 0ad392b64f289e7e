// What tests of rows share: calls in few words, and a rule as text.
#ifndef SHARDPLANE_COMMON_OP_ROWS_FIXTURE_H_
#define SHARDPLANE_COMMON_OP_ROWS_FIXTURE_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/op_rules.h"

namespace shardplane {

inline Argument T() { return {NodeRef{"t"}}; }
inline Argument Int(int64_t value) { return {value}; }
inline Argument Ints(const std::vector<int64_t>& values) {
  ArgumentList list;
  for (const int64_t value : values) list.push_back({value});
  return {std::move(list)};
}

// "[2, 6!, 3*4+]": sizes of the factors of each dim, a whole one with "!", one
// that is summed over with "+".
inline std::string ToString(const DimFactors& dims,
                            const std::vector<Factor>& factors) {
  std::vector<std::string> texts;
  for (const std::vector<int>& dim : dims) {
    std::vector<std::string> parts;
    for (const int f : dim) {
      const FactorKind kind = factors[f].kind;
      parts.push_back(
          absl::StrCat(factors[f].size, kind == FactorKind::kWhole     ? "!"
                                        : kind == FactorKind::kReduced ? "+"
                                                                       : ""));
    }
    texts.push_back(absl::StrJoin(parts, "*"));
  }
  return absl::StrCat("[", absl::StrJoin(texts, ", "), "]");
}

// "[2, 6!], [6!] -> [2]": the rule of a call.
inline std::string ToString(const OpInstance& op) {
  std::vector<std::string> operands;
  for (const OperandRule& rule : op.operands) {
    operands.push_back(ToString(rule.dims, op.factors));
  }
  std::vector<std::string> results;
  for (const ResultRule& rule : op.results) {
    results.push_back(ToString(rule.dims, op.factors));
  }
  return absl::StrCat(absl::StrJoin(operands, ", "), " -> ",
                      absl::StrJoin(results, ", "));
}

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_OP_ROWS_FIXTURE_H_
