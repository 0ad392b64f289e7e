#include "common/op_decisions.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "absl/hash/hash.h"

namespace shardplane {
namespace {

// Of an argument, whichever value it is where it is a tensor.
size_t HashOf(const Argument& argument) {
  return std::visit(
      [&](const auto& v) {
        using T = std::decay_t<decltype(v)>;
        const size_t kind = argument.value.index();
        if constexpr (std::is_same_v<T, NodeRef> ||
                      std::is_same_v<T, std::monostate>) {
          return absl::HashOf(kind);
        } else if constexpr (std::is_same_v<T, ArgumentList>) {
          size_t hash = absl::HashOf(kind, v.size());
          for (const Argument& item : v)
            hash = absl::HashOf(hash, HashOf(item));
          return hash;
        } else {
          return absl::HashOf(kind, v);
        }
      },
      argument.value);
}

// Numbers by their bits: -0.0 is not 0.0.
bool AreAlike(const Argument& a, const Argument& b) {
  if (a.value.index() != b.value.index()) return false;
  if (std::holds_alternative<NodeRef>(a.value)) return true;
  if (const auto* number = std::get_if<double>(&a.value)) {
    return std::bit_cast<uint64_t>(*number) ==
           std::bit_cast<uint64_t>(std::get<double>(b.value));
  }
  if (const auto* list = std::get_if<ArgumentList>(&a.value)) {
    return std::ranges::equal(*list, std::get<ArgumentList>(b.value), AreAlike);
  }
  return a == b;
}

bool HaveAlikeKeywords(const absl::btree_map<std::string, Argument>& a,
                       const absl::btree_map<std::string, Argument>& b) {
  return std::ranges::equal(a, b, [](const auto& x, const auto& y) {
    return x.first == y.first && AreAlike(x.second, y.second);
  });
}

}  // namespace

size_t OpDecisions::Hash::operator()(const View& view) const {
  size_t hash = absl::HashOf(view.target, view.args.size());
  for (const Argument& arg : view.args) {
    hash = absl::HashOf(hash, HashOf(arg));
  }
  for (const auto& [name, arg] : view.kwargs) {
    hash = absl::HashOf(hash, name, HashOf(arg));
  }
  for (const OperandState& operand : view.operands) {
    hash = absl::HashOf(hash, operand.type.dtype, operand.type.shape,
                        operand.spec);
  }
  return hash;
}

bool OpDecisions::Alike::operator()(const View& a, const View& b) const {
  return a.target == b.target && std::ranges::equal(a.args, b.args, AreAlike) &&
         HaveAlikeKeywords(a.kwargs, b.kwargs) && a.results == b.results &&
         std::ranges::equal(a.operands, b.operands);
}

absl::StatusOr<const OpDecision*> OpDecisions::Of(
    const ValueCall& call, absl::Span<const OperandState> operands) {
  const View view{call.target, call.args, call.kwargs, call.results, operands};
  const auto it = decisions_.find(view);
  if (it != decisions_.end()) return &it->second;
  OpCall op_call{call.target, call.args, call.kwargs, {}, call.results};
  for (const OperandState& operand : operands) {
    op_call.operands.push_back(operand.type);
  }
  absl::StatusOr<OpInstance> op = MakeOpInstance(op_call);
  if (!op.ok()) return op.status();
  OpSharding sharding = ChooseSharding(*op, operands, mesh_);
  const auto [added, _] =
      decisions_.try_emplace(Key{call.target,
                                 call.args,
                                 call.kwargs,
                                 call.results,
                                 {operands.begin(), operands.end()}},
                             OpDecision{*std::move(op), std::move(sharding)});
  return &added->second;
}

}  // namespace shardplane
