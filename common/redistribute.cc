#include "common/redistribute.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {
namespace {

// The largest tensor dim that a spec cuts, plus one.
int CutRank(const DTensorSpec& spec) {
  int rank = 0;
  for (const Placement& p : spec.placements) {
    rank = std::max(rank, ShardDim(p) + 1);
  }
  return rank;
}

bool IsPrefix(const std::vector<int>& prefix, const std::vector<int>& whole) {
  return prefix.size() <= whole.size() &&
         std::equal(prefix.begin(), prefix.end(), whole.begin());
}

// Where a spec stands on its way to another.
class Route {
 public:
  Route(DTensorSpec from, DTensorSpec to)
      : at_(std::move(from)), to_(std::move(to)) {}

  bool Done() const { return at_ == to_; }
  const DTensorSpec& at() const { return at_; }

  // The next step, cheapest kind first; nullopt if no way is known.
  std::optional<RedistributeStep> Next() const {
    using Try = std::optional<RedistributeStep> (Route::*)(int) const;
    static constexpr Try kTries[] = {
        &Route::Slice,        &Route::Refine,        &Route::Spread,
        &Route::ReduceShared, &Route::ReduceScatter, &Route::AllToAll,
        &Route::Gather,       &Route::AllReduce,     &Route::Mask,
        &Route::Clear};
    for (const Try attempt : kTries) {
      for (int m = 0; m < static_cast<int>(at_.placements.size()); ++m) {
        if (std::optional<RedistributeStep> step = (this->*attempt)(m)) {
          return step;
        }
      }
    }
    return std::nullopt;
  }

  void Take(const RedistributeStep& step) { at_ = step.result; }

 private:
  const Placement& At(int m) const { return at_.placements[m]; }
  const Placement& To(int m) const { return to_.placements[m]; }

  static bool SameCut(const Placement& a, const Placement& b) {
    return ShardDim(a) >= 0 && a == b;
  }
  static bool IsPacked(const Placement& p) { return !BlocksOf(p).empty(); }

  // Whether `at`'s cuts of a dim are the first of the target's.
  bool LeadsThere(const std::vector<int>& cuts, int dim) const {
    return IsPrefix(cuts, CutsOf(to_, dim));
  }
  // Whether `m` may become the next cut of the dim that the target wants.
  bool CanCut(int m) const {
    const int dim = ShardDim(To(m));
    if (dim < 0) return false;
    std::vector<int> cuts = CutsOf(at_, dim);
    for (const int cut : cuts) {
      if (!SameCut(At(cut), To(cut))) return false;
    }
    cuts.push_back(m);
    return LeadsThere(cuts, dim);
  }
  bool IsInnermost(int m) const {
    const int dim = ShardDim(At(m));
    return dim >= 0 && CutsOf(at_, dim).back() == m;
  }
  // Whether the cuts of m's dim have to be undone as far as m.
  bool InTheWay(int m) const {
    const int dim = ShardDim(At(m));
    if (IsPacked(At(m)) || IsPacked(To(m))) return !SameCut(At(m), To(m));
    const std::vector<int> cuts = CutsOf(at_, dim);
    return !LeadsThere(cuts, dim) ||
           std::any_of(cuts.begin(), cuts.end(), [this](int cut) {
             return BlocksOf(At(cut)) != BlocksOf(To(cut));
           });
  }

  RedistributeStep Make(RedistributeKind kind, int m,
                        const Placement& after) const {
    return StepFrom(at_, kind, m, after);
  }

  std::optional<RedistributeStep> Slice(int m) const {
    if (!IsReplicate(At(m)) || !CanCut(m)) return std::nullopt;
    return Make(RedistributeKind::kSlice, m, To(m));
  }
  // Between what groups of ranks share and what each has for itself. The cut
  // keeps its place among those of its dim.
  std::optional<RedistributeStep> Refine(int m) const {
    const Shard* from = std::get_if<Shard>(&At(m));
    const Shard* to = std::get_if<Shard>(&To(m));
    if (from == nullptr || to == nullptr || !IsInnermost(m)) {
      return std::nullopt;
    }
    if (!from->blocks.partial() && Refines(*to, *from)) {
      return Make(RedistributeKind::kSlice, m, To(m));
    }
    if (to->blocks.partial() && Refines(*from, *to)) {
      return Make(RedistributeKind::kSpread, m, To(m));
    }
    return std::nullopt;
  }
  // Each has its part of a sum, and zeros elsewhere.
  std::optional<RedistributeStep> Spread(int m) const {
    const auto* partial = std::get_if<Partial>(&To(m));
    if (ShardDim(At(m)) < 0 || HasReplicas(At(m)) || partial == nullptr ||
        partial->op != ReduceOp::kSum || !IsInnermost(m)) {
      return std::nullopt;
    }
    return Make(RedistributeKind::kSpread, m, To(m));
  }
  // Sums that groups of ranks have.
  std::optional<RedistributeStep> ReduceShared(int m) const {
    const Blocks blocks = BlocksOf(At(m));
    if (!blocks.partial() || At(m) == To(m) || !IsInnermost(m)) {
      return std::nullopt;
    }
    return Make(RedistributeKind::kAllReduce, m,
                Shard{ShardDim(At(m)), blocks.WithPartial(false)});
  }
  std::optional<RedistributeStep> ReduceScatter(int m) const {
    if (!IsPartial(At(m)) || HasReplicas(To(m)) || !CanCut(m)) {
      return std::nullopt;
    }
    return Make(RedistributeKind::kReduceScatter, m, To(m));
  }
  std::optional<RedistributeStep> AllToAll(int m) const {
    if (ShardDim(At(m)) < 0 || ShardDim(At(m)) == ShardDim(To(m)) ||
        IsPacked(At(m)) || IsPacked(To(m)) || !IsInnermost(m) || !CanCut(m)) {
      return std::nullopt;
    }
    return Make(RedistributeKind::kAllToAll, m, To(m));
  }
  std::optional<RedistributeStep> Gather(int m) const {
    if (ShardDim(At(m)) < 0 || ShardDim(To(m)) >= 0 || !IsInnermost(m)) {
      return std::nullopt;
    }
    return Make(RedistributeKind::kAllGather, m, Replicate{});
  }
  std::optional<RedistributeStep> AllReduce(int m) const {
    if (!IsPartial(At(m)) || IsPartial(To(m))) return std::nullopt;
    return Make(RedistributeKind::kAllReduce, m, Replicate{});
  }
  std::optional<RedistributeStep> Mask(int m) const {
    const auto* partial = std::get_if<Partial>(&To(m));
    if (!IsReplicate(At(m)) || partial == nullptr ||
        partial->op != ReduceOp::kSum) {
      return std::nullopt;
    }
    return Make(RedistributeKind::kMask, m, To(m));
  }
  // An innermost cut that stands in the way of another.
  std::optional<RedistributeStep> Clear(int m) const {
    if (ShardDim(At(m)) < 0 || !IsInnermost(m) || !InTheWay(m)) {
      return std::nullopt;
    }
    return Make(RedistributeKind::kAllGather, m, Replicate{});
  }

  DTensorSpec at_;
  DTensorSpec to_;
};

}  // namespace

DTensorSpec SpecOf(Placements placements,
                   const std::vector<std::vector<int>>& cuts_by_dim) {
  DTensorSpec spec{std::move(placements), {}};
  bool in_mesh_order = true;
  for (const std::vector<int>& cuts : cuts_by_dim) {
    in_mesh_order = in_mesh_order && std::is_sorted(cuts.begin(), cuts.end());
    spec.cut_order.insert(spec.cut_order.end(), cuts.begin(), cuts.end());
  }
  if (in_mesh_order) spec.cut_order.clear();
  return spec;
}

DTensorSpec Canonical(const DTensorSpec& spec) {
  if (spec.cut_order.empty()) return spec;
  std::vector<std::vector<int>> cuts(CutRank(spec));
  for (int d = 0; d < static_cast<int>(cuts.size()); ++d) {
    cuts[d] = CutsOf(spec, d);
  }
  return SpecOf(spec.placements, cuts);
}

DTensorSpec WithPlacement(const DTensorSpec& spec, int mesh_dim,
                          const Placement& placement) {
  const int dim = ShardDim(placement);
  if (spec.placements.size() == 1) return {{placement}, {}};
  std::vector<std::vector<int>> cuts(std::max(CutRank(spec), dim + 1));
  for (int d = 0; d < static_cast<int>(cuts.size()); ++d) {
    cuts[d] = CutsOf(spec, d);
    if (d == ShardDim(spec.placements[mesh_dim]) && d == dim) continue;
    std::erase(cuts[d], mesh_dim);
    if (d == dim) cuts[d].push_back(mesh_dim);
  }
  Placements placements = spec.placements;
  placements[mesh_dim] = placement;
  return SpecOf(std::move(placements), cuts);
}

RedistributeStep StepFrom(const DTensorSpec& at, RedistributeKind kind,
                          int mesh_dim, const Placement& after) {
  const Placement& here = at.placements[mesh_dim];
  RedistributeStep step{.kind = kind,
                        .mesh_dim = mesh_dim,
                        .result = WithPlacement(at, mesh_dim, after)};
  if (kind != RedistributeKind::kAllReduce) {
    step.from_dim = ShardDim(here);
    step.to_dim = ShardDim(after);
  }
  if (const auto* partial = std::get_if<Partial>(&here)) step.op = partial->op;
  return step;
}

Redistribute MoveOf(const RedistributeStep& step, ValueId input,
                    ValueId output) {
  return {.kind = step.kind,
          .mesh_dim = step.mesh_dim,
          .from_dim = step.from_dim,
          .to_dim = step.to_dim,
          .op = step.op,
          .input = input,
          .output = output};
}

absl::StatusOr<std::vector<RedistributeStep>> PlanRedistribute(
    const DTensorSpec& from, const DTensorSpec& to) {
  std::vector<RedistributeStep> steps;
  if (from == to) return steps;
  Route route(Canonical(from), Canonical(to));
  while (!route.Done()) {
    const std::optional<RedistributeStep> step = route.Next();
    if (!step) {
      return MakeError(absl::StatusCode::kUnimplemented,
                       absl::StrCat("no redistribution to ", ToString(to),
                                    " is known; got: ", ToString(route.at())),
                       {"REDISTRIBUTE_UNSUPPORTED", {}});
    }
    route.Take(*step);
    steps.push_back(*step);
  }
  return steps;
}

RedistributeStep Transpose(const RedistributeStep& step) {
  using Kind = RedistributeKind;
  RedistributeStep back;
  back.mesh_dim = step.mesh_dim;
  switch (step.kind) {
    case Kind::kAllGather:
      back.kind = Kind::kSlice;
      back.to_dim = step.from_dim;
      break;
    case Kind::kSlice:
      back.kind = step.from_dim < 0 ? Kind::kAllGather : Kind::kSpread;
      back.from_dim = step.to_dim;
      back.to_dim = step.from_dim;
      break;
    case Kind::kReduceScatter:
      back.kind = Kind::kAllGather;
      back.from_dim = step.to_dim;
      break;
    case Kind::kAllToAll:
      back.kind = Kind::kAllToAll;
      back.from_dim = step.to_dim;
      back.to_dim = step.from_dim;
      break;
    case Kind::kSpread:
      back.kind = Kind::kSlice;
      back.to_dim = step.from_dim;
      break;
    case Kind::kAllReduce:
    case Kind::kMask:
    case Kind::kAlias:
      break;
  }
  return back;
}

}  // namespace shardplane
