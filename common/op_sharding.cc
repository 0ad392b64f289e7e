#include "common/op_sharding.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "common/factor_cuts.h"
#include "common/redistribute.h"

namespace shardplane {
namespace {

constexpr int kNoFactor = -1;
// A plan cuts a parameter so that the work is cut there, not to save its place.
constexpr int64_t kParameterWeight = 1024;

// What one mesh dim does to a call.
struct Choice {
  int factor = kNoFactor;     // cut, or kNoFactor
  Blocks blocks = {};         // of the factor
  bool pass_partial = false;  // Partial operands go through
  int64_t bytes = 0;
};

Blocks SharedByAll(int64_t size, int ranks) {
  return Blocks::Of({{size, size, ranks}});
}

// Ops that ask where their part of a dim begins.
bool CountsFromOffset(Lowering lowering) {
  return lowering == Lowering::kEmbedding || lowering == Lowering::kDropout;
}

class Chooser {
 public:
  Chooser(const OpInstance& op, absl::Span<const OperandState> operands,
          const DeviceMesh& mesh)
      : op_(op), operands_(operands), mesh_(mesh) {
    for (const OperandRule& operand : op.operands) {
      places_.push_back(PlacesIn(operand.dims));
    }
    for (const ResultRule& result : op.results) {
      places_.push_back(PlacesIn(result.dims));
    }
  }

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

  std::vector<FactorPlace> PlacesIn(const DimFactors& dims) const {
    std::vector<FactorPlace> places;
    for (int f = 0; f < static_cast<int>(op_.factors.size()); ++f) {
      places.push_back(PlaceOf(op_.factors, dims, f));
    }
    return places;
  }
  int64_t SizeOfFactor(int factor) const { return op_.factors[factor].size; }

  // How an operand or result (all operands, then all results) lies with the
  // factor cut so; Replicate where it lacks the factor.
  Placement PlacementIn(size_t tensor, int factor, const Blocks& blocks,
                        int m) const {
    const FactorPlace& place = places_[tensor][factor];
    if (place.dim < 0) return Replicate{};
    return Shard{place.dim,
                 ToDim(blocks, SizeOfFactor(factor), place, mesh_.dim_size(m))};
  }

  // Whether a dim whose factors are cut so is itself cut like `spec` says.
  bool DimAligned(const std::vector<int>& factors, int64_t extent,
                  const DTensorSpec& spec, int dim,
                  const std::vector<DimCuts>& cuts) const {
    const DimCuts whole{extent, CutsOf(spec, dim),
                        BlocksOf(spec.placements[CutsOf(spec, dim)[0]])};
    for (int rank = 0; rank < mesh_.size(); ++rank) {
      const std::vector<int> at = mesh_.Coordinate(rank);
      const Stretches merged = LocalStretches(whole, mesh_, at);
      const Stretches alone = LocalStretches(cuts[factors[0]], mesh_, at);
      int64_t rest = 1;
      for (size_t i = 1; i < factors.size(); ++i) {
        rest *= SizeOfFactor(factors[i]);
      }
      if (merged.size() != alone.size()) return false;
      for (size_t i = 0; i < merged.size(); ++i) {
        if (merged[i].offset != alone[i].offset * rest ||
            merged[i].size != alone[i].size * rest) {
          return false;
        }
      }
    }
    return true;
  }

  // Of several mesh dims that cut one tensor dim, all cut its first factor, and
  // its edges are met. One alone meets them by itself.
  bool NestedAligned(const DimFactors& dims,
                     const std::vector<DimCuts>& cuts) const {
    const DTensorSpec spec = SpecFor(dims, cuts);
    for (int d = 0; d < static_cast<int>(dims.size()); ++d) {
      const std::vector<int> by = CutsOf(spec, d);
      if (by.size() < 2) continue;
      int64_t extent = 1;
      for (const int f : dims[d]) extent *= SizeOfFactor(f);
      if (cuts[dims[d][0]].cuts.size() != by.size() ||
          !DimAligned(dims[d], extent, spec, d, cuts)) {
        return false;
      }
    }
    return true;
  }

  bool LeavesNothing(const std::vector<DimCuts>& cuts) const {
    for (int rank = 0; rank < mesh_.size(); ++rank) {
      const std::vector<int> at = mesh_.Coordinate(rank);
      for (const DimCuts& cut : cuts) {
        if (!cut.cuts.empty() && LocalSizeOf(cut, mesh_, at) == 0) return true;
      }
    }
    return false;
  }

  bool HasOneStretch(const DTensorSpec& spec) const {
    return std::all_of(
        spec.placements.begin(), spec.placements.end(),
        [](const Placement& p) { return BlocksOf(p).list().size() <= 1; });
  }

  bool Allows(const std::vector<DimCuts>& cuts) const {
    for (const OperandRule& operand : op_.operands) {
      if (!NestedAligned(operand.dims, cuts)) return false;
    }
    for (const ResultRule& result : op_.results) {
      if (!NestedAligned(result.dims, cuts) ||
          (CountsFromOffset(op_.lowering) &&
           !HasOneStretch(SpecFor(result.dims, cuts)))) {
        return false;
      }
    }
    return !(op_.refuses_empty && LeavesNothing(cuts));
  }

  bool CanCut(int factor, const Blocks& blocks, int m) const {
    const FactorKind kind = op_.factors[factor].kind;
    const bool stays_whole =
        mesh_.dim_size(m) > 1 && blocks.IsSharedByAll(mesh_.dim_size(m));
    // Of a sum, what groups of ranks share would count several times.
    if ((kind == FactorKind::kWhole && !stays_whole) ||
        (kind == FactorKind::kReduced && blocks.has_replicas())) {
      return false;
    }
    for (const std::vector<FactorPlace>& places : places_) {
      if (places[factor].twice) return false;
    }
    if (blocks.has_replicas() && !IsInAllResults(factor)) return false;
    std::vector<DimCuts> cuts = Uncut();
    return CutFactor(factor, blocks, m, &cuts) && Allows(cuts);
  }

  // What groups of ranks share they share in what is made of it, too, or their
  // gradients would not be what each has alone.
  bool IsInAllResults(int factor) const {
    return std::all_of(places_.begin() + op_.operands.size(), places_.end(),
                       [factor](const std::vector<FactorPlace>& places) {
                         return places[factor].dim >= 0;
                       }) ||
           IsParted(factor);
  }
  bool IsParted(int factor) const {
    return std::any_of(
        op_.parted.begin(), op_.parted.end(),
        [factor](const PartedFactor& p) { return p.factor == factor; });
  }

  std::vector<DimCuts> Uncut() const {
    std::vector<DimCuts> cuts;
    for (const Factor& factor : op_.factors) cuts.push_back({factor.size});
    return cuts;
  }

  // Adds a cut, of its parts too. False if it does not meet their edges.
  bool CutFactor(int factor, const Blocks& blocks, int m,
                 std::vector<DimCuts>* cuts) const {
    const auto add = [&](int f, const Blocks& own) {
      if ((*cuts)[f].cuts.empty()) (*cuts)[f].blocks = own;
      (*cuts)[f].cuts.push_back(m);
    };
    add(factor, blocks);
    for (const PartedFactor& parted : op_.parted) {
      if (parted.factor != factor) continue;
      std::vector<int64_t> sizes;
      for (const int part : parted.parts) sizes.push_back(SizeOfFactor(part));
      const auto parts =
          ToParts(blocks, SizeOfFactor(factor), sizes, mesh_.dim_size(m));
      // A second cut of the whole is none of each part.
      if (!parts.has_value() || (*cuts)[factor].cuts.size() > 1) return false;
      for (size_t i = 0; i < parts->size(); ++i) {
        add(parted.parts[i], (*parts)[i]);
      }
    }
    return true;
  }

  // Bytes to bring operand `i` from where it is to `to`, varying if `vary`,
  // with the gradient's way back.
  int64_t MoveBytes(size_t i, int m, const Placement& to, bool vary) const {
    const OperandState& state = operands_[i];
    const Placement& at = At(i, m);
    const int64_t bytes =
        ByteSize(state.type) * (state.parameter ? kParameterWeight : 1);
    const bool back = state.requires_grad;
    const bool cut = ShardDim(to) >= 0;
    if (at == to && cut) return 0;
    if (const Shard* from = std::get_if<Shard>(&at)) {
      if (cut && Refines(std::get<Shard>(to), *from)) return 0;
      if (from->blocks.IsSharedByAll(mesh_.dim_size(m)) && (cut || vary)) {
        return 1;  // only another name, but better none
      }
      const bool travels = cut && BlocksOf(at).empty() && BlocksOf(to).empty();
      if (travels) return 2 * bytes / mesh_.dim_size(m);
      return bytes + ((cut || vary) && back ? bytes : 0);
    }
    if (IsPartial(at)) {
      if (cut) return bytes + (back ? bytes : 0);
      return 2 * bytes + (vary && back ? 2 * bytes : 0);
    }
    if (!back) return 0;
    if (cut) return bytes;
    return vary ? 2 * bytes : 0;
  }

  int64_t ReduceBytes() const {
    int64_t bytes = 0;
    for (const ResultRule& result : op_.results) {
      bytes += 2 * ByteSize(result.type);
    }
    return bytes;
  }

  Choice Cut(int factor, const Blocks& blocks, int m) const {
    Choice choice{factor, blocks, false, 0};
    const bool reduced = op_.factors[factor].kind == FactorKind::kReduced;
    for (size_t i = 0; i < op_.operands.size(); ++i) {
      if (reduced && IsAdded(i)) continue;
      choice.bytes +=
          MoveBytes(i, m, PlacementIn(i, factor, blocks, m), /*vary=*/true);
    }
    if (reduced) choice.bytes += ReduceBytes();
    return choice;
  }

  Choice Replicated(int m) const {
    Choice choice;
    for (size_t i = 0; i < op_.operands.size(); ++i) {
      choice.bytes += MoveBytes(i, m, Replicate{}, /*vary=*/false);
    }
    return choice;
  }

  // Each term has exactly one Partial(sum) operand and is linear in it.
  std::optional<Choice> PassPartial(int m) const {
    Choice choice{kNoFactor, {}, true, ReduceBytes()};
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
        choice.bytes += MoveBytes(i, m, Replicate{}, /*vary=*/true);
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
      for (const Blocks& blocks : CutsAlready(f, m)) {
        if (!CanCut(f, blocks, m)) continue;
        const Choice cut = Cut(f, blocks, m);
        if (!best || cut.bytes < best->bytes) best = cut;
      }
    }
    return best.value_or(replicated);
  }

  bool AllReplicated(int m) const {
    for (size_t i = 0; i < operands_.size(); ++i) {
      if (!IsReplicate(At(i, m))) return false;
    }
    return true;
  }

  // How operands' dims cut `factor` already, each way once.
  std::vector<Blocks> CutsAlready(int factor, int m) const {
    std::vector<Blocks> ways;
    const int ranks = mesh_.dim_size(m);
    for (size_t i = 0; i < op_.operands.size(); ++i) {
      const FactorPlace& place = places_[i][factor];
      const Blocks at = BlocksOf(At(i, m));
      if (place.dim < 0) continue;
      std::optional<Blocks> way;
      if (at.IsSharedByAll(ranks)) {
        // What all ranks share is so along whatever dim nothing else cuts.
        const std::vector<int> others = CutsOf(operands_[i].spec, place.dim);
        if (others.empty() || others == std::vector<int>{m}) {
          way = SharedByAll(SizeOfFactor(factor), ranks);
        }
      } else if (ShardDim(At(i, m)) == place.dim) {
        way = ToFactor(at, SizeOfFactor(factor), place, ranks);
      }
      if (way && std::find(ways.begin(), ways.end(), *way) == ways.end()) {
        ways.push_back(*way);
      }
    }
    return ways;
  }

  // The mesh dims that cut `factor`, in the order of an operand that has them.
  std::vector<int> CutsOfFactor(int factor) const {
    std::vector<int> cuts;
    for (int m = 0; m < mesh_.ndim(); ++m) {
      if (choices_[m].factor == factor) cuts.push_back(m);
    }
    if (cuts.size() < 2) return cuts;
    for (size_t i = 0; i < op_.operands.size(); ++i) {
      const FactorPlace& place = places_[i][factor];
      if (place.dim < 0) continue;
      const std::vector<int> have = CutsOf(operands_[i].spec, place.dim);
      if (std::is_permutation(have.begin(), have.end(), cuts.begin(),
                              cuts.end())) {
        return have;
      }
    }
    return cuts;
  }

  DTensorSpec SpecFor(const DimFactors& dims,
                      const std::vector<DimCuts>& factor_cuts) const {
    DTensorSpec spec = DTensorSpec::Replicated(mesh_.ndim());
    for (int d = 0; d < static_cast<int>(dims.size()); ++d) {
      for (const int f : dims[d]) {
        const DimCuts& cuts = factor_cuts[f];
        const FactorPlace place = PlaceOf(op_.factors, dims, f);
        for (size_t i = 0; i < cuts.cuts.size(); ++i) {
          const int m = cuts.cuts[i];
          const Blocks own = i == 0 ? cuts.blocks : Blocks{};
          const Blocks blocks =
              i == 0 ? ToDim(own, SizeOfFactor(f), place, mesh_.dim_size(m))
                     : Blocks{};
          spec = WithPlacement(spec, m, Housed({d, blocks}, dims, m));
        }
      }
    }
    return spec;
  }

  // What all ranks share may be said of any dim. One of size 1 comes and goes
  // in views, so that it is said of another then.
  Shard Housed(const Shard& shard, const DimFactors& dims, int m) const {
    if (!shard.blocks.IsSharedByAll(mesh_.dim_size(m)) ||
        shard.blocks.size() > 1) {
      return shard;
    }
    for (int d = static_cast<int>(dims.size()) - 1; d >= 0; --d) {
      int64_t size = 1;
      for (const int f : dims[d]) size *= SizeOfFactor(f);
      if (size > 1) return {d, SharedByAll(size, mesh_.dim_size(m))};
    }
    return shard;
  }

  bool LeavesPartial(int m) const {
    const Choice& choice = choices_[m];
    return choice.pass_partial ||
           (choice.factor != kNoFactor &&
            op_.factors[choice.factor].kind == FactorKind::kReduced);
  }

  OpSharding Build() const {
    OpSharding result;
    result.factor_cuts = Uncut();
    for (int f = 0; f < static_cast<int>(op_.factors.size()); ++f) {
      for (const int m : CutsOfFactor(f)) {
        CutFactor(f, choices_[m].blocks, m, &result.factor_cuts);
      }
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

  OperandNeed NeedOf(size_t i, const std::vector<DimCuts>& factor_cuts) const {
    OperandNeed need{SpecFor(op_.operands[i].dims, factor_cuts),
                     std::vector<bool>(mesh_.ndim(), false)};
    for (int m = 0; m < mesh_.ndim(); ++m) {
      const Choice& choice = choices_[m];
      const auto* partial = std::get_if<Partial>(&At(i, m));
      if (choice.pass_partial && partial != nullptr &&
          partial->op == ReduceOp::kSum && op_.operands[i].linear) {
        need.spec.placements[m] = Partial{};
      } else if (HasReplicas(need.spec.placements[m])) {
        need.vary[m] = choice.pass_partial || choice.factor != kNoFactor;
      }
    }
    return need;
  }

  const OpInstance& op_;
  absl::Span<const OperandState> operands_;
  const DeviceMesh& mesh_;
  // Of each operand, then of each result: where its factors stand.
  std::vector<std::vector<FactorPlace>> places_;
  std::vector<Choice> choices_;
};

}  // namespace

OpSharding ChooseSharding(const OpInstance& op,
                          absl::Span<const OperandState> operands,
                          const DeviceMesh& mesh) {
  return Chooser(op, operands, mesh).Choose();
}

}  // namespace shardplane
