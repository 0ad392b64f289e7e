#include "common/cheapest_redistribution.h"

#include <algorithm>
#include <functional>
#include <queue>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace shardplane {
namespace {

// All that one step can make of a value.
class Neighbours {
 public:
  Neighbours(const DTensorSpec& at, int tensor_rank, bool may_mask)
      : at_(at), tensor_rank_(tensor_rank), may_mask_(may_mask) {}

  std::vector<RedistributeStep> All() {
    for (int m = 0; m < static_cast<int>(at_.placements.size()); ++m) {
      const Placement& here = at_.placements[m];
      if (ShardDim(here) >= 0) {
        OfACut(m);
      } else if (IsPartial(here)) {
        Add(RedistributeKind::kAllReduce, m, Replicate{});
        ToEachDim(RedistributeKind::kReduceScatter, m, -1);
      } else {
        ToEachDim(RedistributeKind::kSlice, m, -1);
        if (may_mask_) Add(RedistributeKind::kMask, m, Partial{});
      }
    }
    return std::move(steps_);
  }

 private:
  void OfACut(int m) {
    const int dim = ShardDim(at_.placements[m]);
    if (CutsOf(at_, dim).back() != m) return;
    Add(RedistributeKind::kAllGather, m, Replicate{});
    ToEachDim(RedistributeKind::kAllToAll, m, dim);
  }
  void ToEachDim(RedistributeKind kind, int m, int but) {
    for (int dim = 0; dim < tensor_rank_; ++dim) {
      if (dim != but) Add(kind, m, Shard{dim});
    }
  }
  void Add(RedistributeKind kind, int m, const Placement& after) {
    steps_.push_back(StepFrom(at_, kind, m, after));
  }

  const DTensorSpec& at_;
  const int tensor_rank_;
  const bool may_mask_;
  std::vector<RedistributeStep> steps_;
};

// Where a value can be, in the order of what it costs to get there (Dijkstra).
class Search {
 public:
  Search(DTensorSpec from, DTensorSpec to, const TensorType& type,
         const DeviceMesh& mesh, const LinkCosts& costs, bool has_gradient)
      : to_(std::move(to)),
        type_(type),
        mesh_(mesh),
        costs_(costs),
        has_gradient_(has_gradient),
        to_partial_(std::ranges::any_of(to_.placements, IsPartial)) {
    Reach({.result = std::move(from)}, /*before=*/-1, 0);
  }

  // Empty: none that costs less than `limit`.
  std::vector<RedistributeStep> Run(double limit) {
    while (!open_.empty()) {
      const auto [cost, number] = open_.top();
      open_.pop();
      const DTensorSpec at = reached_[number].step.result;
      if (cost > best_.at(at)) continue;  // found a cheaper way since
      if (at == to_) return WayTo(number);
      Expand(at, cost, number, limit);
    }
    return {};
  }

 private:
  struct Reached {
    RedistributeStep step;  // that leads here; of where it begins only a result
    int before = -1;        // from that one
  };

  void Reach(RedistributeStep step, int before, double cost) {
    const auto [best, is_new] = best_.try_emplace(step.result, cost);
    if (!is_new && best->second <= cost) return;
    best->second = cost;
    open_.push({cost, static_cast<int>(reached_.size())});
    reached_.push_back({std::move(step), before});
  }

  void Expand(const DTensorSpec& at, double cost, int number, double limit) {
    Neighbours neighbours(at, static_cast<int>(type_.shape.size()),
                          to_partial_);
    for (RedistributeStep& step : neighbours.All()) {
      const double there =
          cost + kStepUs +
          CostUs({step}, at, type_, mesh_, costs_, has_gradient_);
      if (there < limit) Reach(std::move(step), number, there);
    }
  }

  std::vector<RedistributeStep> WayTo(int number) const {
    std::vector<RedistributeStep> way;
    for (; reached_[number].before >= 0; number = reached_[number].before) {
      way.push_back(reached_[number].step);
    }
    std::ranges::reverse(way);
    return way;
  }

  // Each step is work, also where nothing travels.
  static constexpr double kStepUs = 0.01;

  const DTensorSpec to_;
  const TensorType& type_;
  const DeviceMesh& mesh_;
  const LinkCosts& costs_;
  const bool has_gradient_;
  const bool to_partial_;
  std::vector<Reached> reached_;
  absl::flat_hash_map<DTensorSpec, double> best_;
  // What costs alike in the order of its finding.
  using Entry = std::pair<double, int>;  // cost, number in reached_
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> open_;
};

// What is gathered over several mesh dims has to come anyway, and costs the
// same in any order.
bool OnlyGathers(const std::vector<RedistributeStep>& steps) {
  return std::all_of(steps.begin(), steps.end(),
                     [](const RedistributeStep& step) {
                       return step.kind == RedistributeKind::kAllGather;
                     });
}

bool IsPacked(const DTensorSpec& spec) {
  return std::ranges::any_of(
      spec.placements, [](const Placement& p) { return !BlocksOf(p).empty(); });
}

}  // namespace

double CostUs(const std::vector<RedistributeStep>& steps,
              const DTensorSpec& from, const TensorType& type,
              const DeviceMesh& mesh, const LinkCosts& costs,
              bool has_gradient) {
  double us = 0;
  auto before = static_cast<double>(LargestBytes(type, from, mesh));
  for (const RedistributeStep& step : steps) {
    const int ranks = mesh.dim_size(step.mesh_dim);
    const auto after =
        static_cast<double>(LargestBytes(type, step.result, mesh));
    const double bytes = std::max(before, after);
    us += CostUs(costs, step.kind, ranks, bytes);
    if (has_gradient) us += CostUs(costs, Transpose(step).kind, ranks, bytes);
    before = after;
  }
  return us;
}

absl::StatusOr<std::vector<RedistributeStep>> CheapestRedistribution(
    const DTensorSpec& from, const DTensorSpec& to, const TensorType& type,
    const DeviceMesh& mesh, const LinkCosts& costs, bool has_gradient) {
  absl::StatusOr<std::vector<RedistributeStep>> plain =
      PlanRedistribute(from, to);
  if (!plain.ok() || plain->size() < 2 || OnlyGathers(*plain) ||
      IsPacked(from) || IsPacked(to)) {
    return plain;
  }
  const double cost = CostUs(*plain, from, type, mesh, costs, has_gradient);
  // By more than rounding.
  std::vector<RedistributeStep> cheaper =
      Search(Canonical(from), Canonical(to), type, mesh, costs, has_gradient)
          .Run(cost * 0.999);
  if (!cheaper.empty()) return cheaper;
  return plain;
}

}  // namespace shardplane
