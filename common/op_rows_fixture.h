// What tests of rows share: calls in few words, and a rule as text.
#ifndef SHARDPLANE_COMMON_OP_ROWS_FIXTURE_H_
#define SHARDPLANE_COMMON_OP_ROWS_FIXTURE_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/op_rules.h"
#include "gtest/gtest.h"

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

struct RuleCase {
  const char* target;
  std::vector<Shape> operands;
  std::vector<Argument> args;
  const char* rule;  // as expected
  absl::btree_map<std::string, Argument> kwargs = {};
  int first_index = 99;  // operands from here on are i64
};

// The rule of a call, or the error instead.
inline std::string RuleOf(const RuleCase& c) {
  OpCall call{c.target, c.args, c.kwargs, {}, {}};
  for (const Shape& shape : c.operands) {
    const bool index = static_cast<int>(call.operands.size()) >= c.first_index;
    call.operands.push_back({index ? DType::kInt64 : DType::kFloat64, shape});
  }
  const auto op = MakeOpInstance(call);
  if (!op.ok()) return op.status().ToString();
  return op->has_row ? ToString(*op) : "no row";
}

// "aten_sort_stable_5", for a parametrized test.
inline std::string RuleName(const testing::TestParamInfo<RuleCase>& info) {
  std::string name = info.param.target;
  for (char& c : name) c = absl::ascii_isalnum(c) ? c : '_';
  return absl::StrCat(name, "_", info.index);
}

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_OP_ROWS_FIXTURE_H_
