#include "common/op_sharding.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "common/redistribute.h"

namespace shardplane {
namespace {

constexpr int kNoFactor = -1;
// A plan cuts a parameter so that the work is cut there, not to save its place.
constexpr int64_t kParameterWeight = 1024;

// What one mesh dim does to a call.
struct Choice {
  int factor = kNoFactor;     // cut, or kNoFactor
  bool pass_partial = false;  // Partial operands go through
  int64_t bytes = 0;
};

// The tensor dim that `factor` leads, or -1; nullopt-like -2 if it stands in a
// dim without leading it, so that it cannot be cut.
constexpr int kAbsent = -1;
constexpr int kBuried = -2;
int DimLedBy(const DimFactors& dims, int factor) {
  int found = kAbsent;
  for (int d = 0; d < static_cast<int>(dims.size()); ++d) {
    const auto it = std::find(dims[d].begin(), dims[d].end(), factor);
    if (it == dims[d].end()) continue;
    if (it != dims[d].begin() || found != kAbsent) return kBuried;
    found = d;
  }
  return found;
}

class Chooser {
 public:
  Chooser(const OpInstance& op, absl::Span<const OperandState> operands,
          const DeviceMesh& mesh)
      : op_(op), operands_(operands), mesh_(mesh) {}

  OpSharding Choose() {
    for (int m = 0; m < mesh_.ndim(); ++m) choices_.push_back(Best(m));
    OpSharding result = Build();
    // Nested cuts of a merged dim may not meet its factors' edges, or leave a
    // rank nothing where the op wants something; the last one gives way.
    for (int m = mesh_.ndim() - 1; m >= 0 && !Allows(result.factor_cuts); --m) {
      if (choices_[m].factor == kNoFactor) continue;
      choices_[m] = {};
      result = Build();
    }
    return result;
  }

 private:
  const Placement& At(size_t operand, int m) const {
    return operands_[operand].spec.placements[m];
  }

  bool IsAdded(size_t operand) const {
    return op_.lowering == Lowering::kAddTerm &&
           static_cast<int>(operand) == op_.added_operand;
  }

  // The extent of a dim and of its leading factor, cut alike?
  bool DimAligned(const std::vector<int>& factors,
                  const std::vector<int>& cuts) const {
    const int64_t lead = op_.factors[factors[0]].size;
    int64_t rest = 1;
    for (size_t i = 1; i < factors.size(); ++i) {
      rest *= op_.factors[factors[i]].size;
    }
    if (rest == 1) return true;
    for (int rank = 0; rank < mesh_.size(); ++rank) {
      const std::vector<int> at = mesh_.Coordinate(rank);
      const Extent merged = LocalExtent(lead * rest, cuts, mesh_, at);
      const Extent alone = LocalExtent(lead, cuts, mesh_, at);
      if (merged.size != alone.size * rest ||
          (merged.size > 0 && merged.offset != alone.offset * rest)) {
        return false;
      }
    }
    return true;
  }

  template <typename Rules>
  bool AllAligned(const Rules& rules,
                  const std::vector<std::vector<int>>& cuts) const {
    for (const auto& rule : rules) {
      for (const std::vector<int>& factors : rule.dims) {
        if (!factors.empty() && !cuts[factors[0]].empty() &&
            !DimAligned(factors, cuts[factors[0]])) {
          return false;
        }
      }
    }
    return true;
  }

  bool LeavesNothing(const std::vector<std::vector<int>>& cuts) const {
    for (int rank = 0; rank < mesh_.size(); ++rank) {
      const std::vector<int> at = mesh_.Coordinate(rank);
      for (size_t f = 0; f < cuts.size(); ++f) {
        if (!cuts[f].empty() &&
            LocalExtent(op_.factors[f].size, cuts[f], mesh_, at).size == 0) {
          return true;
        }
      }
    }
    return false;
  }

  bool Allows(const std::vector<std::vector<int>>& cuts) const {
    return AllAligned(op_.operands, cuts) && AllAligned(op_.results, cuts) &&
           !(op_.refuses_empty && LeavesNothing(cuts));
  }

  bool CanCut(int factor, int m) const {
    if (op_.factors[factor].kind == FactorKind::kWhole) return false;
    for (const OperandRule& operand : op_.operands) {
      if (DimLedBy(operand.dims, factor) == kBuried) return false;
    }
    for (const ResultRule& result : op_.results) {
      if (DimLedBy(result.dims, factor) == kBuried) return false;
    }
    std::vector<std::vector<int>> cuts(op_.factors.size());
    cuts[factor] = {m};
    return Allows(cuts);
  }

  // Bytes to bring operand `i` from where it is to Shard(dim) or, dim < 0, to
  // replicated (varying if `vary`), with the gradient's way back.
  int64_t MoveBytes(size_t i, int m, int dim, bool vary) const {
    const OperandState& state = operands_[i];
    const Placement& at = At(i, m);
    const int64_t bytes =
        ByteSize(state.type) * (state.parameter ? kParameterWeight : 1);
    const bool back = state.requires_grad;
    if (ShardDim(at) >= 0) {
      if (ShardDim(at) == dim) return 0;
      if (dim >= 0) return 2 * bytes / mesh_.dim_size(m);
      return bytes + (vary && back ? bytes : 0);
    }
    if (IsPartial(at)) {
      if (dim >= 0) return bytes + (back ? bytes : 0);
      return 2 * bytes + (vary && back ? 2 * bytes : 0);
    }
    if (!back) return 0;
    if (dim >= 0) return bytes;
    return vary ? 2 * bytes : 0;
  }

  int64_t ReduceBytes() const {
    int64_t bytes = 0;
    for (const ResultRule& result : op_.results) {
      bytes += 2 * ByteSize(result.type);
    }
    return bytes;
  }

  Choice Cut(int factor, int m) const {
    Choice choice{factor, false, 0};
    const bool reduced = op_.factors[factor].kind == FactorKind::kReduced;
    for (size_t i = 0; i < op_.operands.size(); ++i) {
      if (reduced && IsAdded(i)) continue;
      const int dim = DimLedBy(op_.operands[i].dims, factor);
      choice.bytes += MoveBytes(i, m, dim, /*vary=*/true);
    }
    if (reduced) choice.bytes += ReduceBytes();
    return choice;
  }

  Choice Replicated(int m) const {
    Choice choice;
    for (size_t i = 0; i < op_.operands.size(); ++i) {
      choice.bytes += MoveBytes(i, m, -1, /*vary=*/false);
    }
    return choice;
  }

  // Each term has exactly one Partial(sum) operand and is linear in it.
  std::optional<Choice> PassPartial(int m) const {
    Choice choice{kNoFactor, true, ReduceBytes()};
    std::vector<int> partials;
    for (size_t i = 0; i < op_.operands.size(); ++i) {
      if (IsAdded(i)) continue;
      const OperandRule& operand = op_.operands[i];
      partials.resize(std::max<size_t>(partials.size(), operand.term + 1), 0);
      const auto* partial = std::get_if<Partial>(&At(i, m));
      if (partial != nullptr && partial->op == ReduceOp::kSum &&
          operand.linear) {
        ++partials[operand.term];
      } else {
        choice.bytes += MoveBytes(i, m, -1, /*vary=*/true);
      }
    }
    if (partials.empty()) return std::nullopt;
    for (size_t term = 0; term < partials.size(); ++term) {
      const bool added =
          op_.lowering == Lowering::kAddTerm &&
          op_.operands[op_.added_operand].term == static_cast<int>(term);
      if (partials[term] != 1 && !added) return std::nullopt;
    }
    return choice;
  }

  Choice Best(int m) const {
    if (AllReplicated(m)) return {};
    const Choice replicated = Replicated(m);
    std::optional<Choice> best = PassPartial(m);
    if (best && best->bytes > replicated.bytes) best.reset();
    for (int f = 0; f < static_cast<int>(op_.factors.size()); ++f) {
      if (!LeadsACut(f, m) || !CanCut(f, m)) continue;
      const Choice cut = Cut(f, m);
      if (!best || cut.bytes < best->bytes) best = cut;
    }
    return best.value_or(replicated);
  }

  bool AllReplicated(int m) const {
    for (size_t i = 0; i < operands_.size(); ++i) {
      if (!IsReplicate(At(i, m))) return false;
    }
    return true;
  }

  // Whether some operand is cut along the dim that `factor` leads.
  bool LeadsACut(int factor, int m) const {
    for (size_t i = 0; i < op_.operands.size(); ++i) {
      const int dim = DimLedBy(op_.operands[i].dims, factor);
      if (dim >= 0 && ShardDim(At(i, m)) == dim) return true;
    }
    return false;
  }

  // The mesh dims that cut `factor`, in the order of an operand that has them.
  std::vector<int> CutsOfFactor(int factor) const {
    std::vector<int> cuts;
    for (int m = 0; m < mesh_.ndim(); ++m) {
      if (choices_[m].factor == factor) cuts.push_back(m);
    }
    if (cuts.size() < 2) return cuts;
    for (size_t i = 0; i < op_.operands.size(); ++i) {
      const int dim = DimLedBy(op_.operands[i].dims, factor);
      if (dim < 0) continue;
      const std::vector<int> have = CutsOf(operands_[i].spec, dim);
      if (std::is_permutation(have.begin(), have.end(), cuts.begin(),
                              cuts.end())) {
        return have;
      }
    }
    return cuts;
  }

  DTensorSpec SpecFor(const DimFactors& dims,
                      const std::vector<std::vector<int>>& factor_cuts) const {
    DTensorSpec spec = DTensorSpec::Replicated(mesh_.ndim());
    for (int d = 0; d < static_cast<int>(dims.size()); ++d) {
      if (dims[d].empty()) continue;
      for (const int m : factor_cuts[dims[d][0]]) {
        spec = WithPlacement(spec, m, Shard{d});
      }
    }
    return spec;
  }

  bool LeavesPartial(int m) const {
    const Choice& choice = choices_[m];
    return choice.pass_partial ||
           (choice.factor != kNoFactor &&
            op_.factors[choice.factor].kind == FactorKind::kReduced);
  }

  OpSharding Build() const {
    OpSharding result;
    result.factor_cuts.resize(op_.factors.size());
    for (int f = 0; f < static_cast<int>(op_.factors.size()); ++f) {
      result.factor_cuts[f] = CutsOfFactor(f);
    }
    for (size_t i = 0; i < op_.operands.size(); ++i) {
      result.operands.push_back(NeedOf(i, result.factor_cuts));
    }
    for (const ResultRule& rule : op_.results) {
      DTensorSpec spec = SpecFor(rule.dims, result.factor_cuts);
      for (int m = 0; m < mesh_.ndim(); ++m) {
        if (!LeavesPartial(m)) continue;
        spec.placements[m] = Partial{};
        result.partial = true;
      }
      result.results.push_back(std::move(spec));
    }
    return result;
  }

  OperandNeed NeedOf(size_t i,
                     const std::vector<std::vector<int>>& factor_cuts) const {
    OperandNeed need{SpecFor(op_.operands[i].dims, factor_cuts),
                     std::vector<bool>(mesh_.ndim(), false)};
    for (int m = 0; m < mesh_.ndim(); ++m) {
      const Choice& choice = choices_[m];
      const auto* partial = std::get_if<Partial>(&At(i, m));
      if (choice.pass_partial && partial != nullptr &&
          partial->op == ReduceOp::kSum && op_.operands[i].linear) {
        need.spec.placements[m] = Partial{};
      } else if (IsReplicate(need.spec.placements[m])) {
        need.vary[m] = choice.pass_partial || choice.factor != kNoFactor;
      }
    }
    return need;
  }

  const OpInstance& op_;
  absl::Span<const OperandState> operands_;
  const DeviceMesh& mesh_;
  std::vector<Choice> choices_;
};

}  // namespace

OpSharding ChooseSharding(const OpInstance& op,
                          absl::Span<const OperandState> operands,
                          const DeviceMesh& mesh) {
  return Chooser(op, operands, mesh).Choose();
}

}  // namespace shardplane
