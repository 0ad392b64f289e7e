#include "common/cheapest_redistribution.h"

#include <algorithm>
#include <map>
#include <queue>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"

namespace shardplane {
namespace {

// Of a rank that has the first chunk of every cut.
double LargestBytes(const DTensorSpec& spec, const TensorType& type,
                    const DeviceMesh& mesh) {
  double bytes = ByteSize(type.dtype);
  for (int dim = 0; dim < static_cast<int>(type.shape.size()); ++dim) {
    int64_t size = type.shape[dim];
    for (const int m : CutsOf(spec, dim)) {
      const int64_t ranks = mesh.dim_size(m);
      size = (size + ranks - 1) / ranks;
    }
    bytes *= static_cast<double>(size);
  }
  return bytes;
}

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
    RedistributeStep step{.kind = kind,
                          .mesh_dim = m,
                          .from_dim = ShardDim(at_.placements[m]),
                          .to_dim = ShardDim(after),
                          .result = WithPlacement(at_, m, after)};
    if (const auto* partial = std::get_if<Partial>(&at_.placements[m])) {
      step.op = partial->op;
    }
    steps_.push_back(std::move(step));
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
      : from_(std::move(from)),
        to_(std::move(to)),
        type_(type),
        mesh_(mesh),
        costs_(costs),
        has_gradient_(has_gradient) {}

  // Empty: none that costs less than `limit`.
  std::vector<RedistributeStep> Run(double limit) {
    limit_ = limit;
    Reach(from_, 0, {});
    while (!open_.empty()) {
      const auto [cost, number] = open_.top();
      open_.pop();
      const DTensorSpec at = reached_[number].spec;
      if (!done_.insert(at).second) continue;
      if (at == to_) return reached_[number].steps;
      Expand(cost, number);
    }
    return {};
  }

 private:
  struct Reached {
    DTensorSpec spec;
    std::vector<RedistributeStep> steps;
  };

  void Reach(const DTensorSpec& spec, double cost,
             std::vector<RedistributeStep> steps) {
    const auto [best, is_new] = best_.try_emplace(spec, cost);
    if (!is_new && best->second <= cost) return;
    best->second = cost;
    open_.push({cost, static_cast<int>(reached_.size())});
    reached_.push_back({spec, std::move(steps)});
  }

  void Expand(double cost, int number) {
    const DTensorSpec at = reached_[number].spec;
    const std::vector<RedistributeStep> way = reached_[number].steps;
    const bool to_partial =
        std::any_of(to_.placements.begin(), to_.placements.end(),
                    [](const Placement& p) { return IsPartial(p); });
    Neighbours neighbours(at, static_cast<int>(type_.shape.size()), to_partial);
    for (RedistributeStep& step : neighbours.All()) {
      const double more =
          CostUs({step}, at, type_, mesh_, costs_, has_gradient_);
      if (cost + more + kStepUs >= limit_) continue;
      std::vector<RedistributeStep> steps = way;
      const DTensorSpec next = step.result;
      steps.push_back(std::move(step));
      Reach(next, cost + more + kStepUs, std::move(steps));
    }
  }

  // Each step is work, also where nothing travels.
  static constexpr double kStepUs = 0.01;

  const DTensorSpec from_;
  const DTensorSpec to_;
  const TensorType& type_;
  const DeviceMesh& mesh_;
  const LinkCosts& costs_;
  const bool has_gradient_;
  double limit_ = 0;  // what costs as much is no way
  std::vector<Reached> reached_;
  absl::flat_hash_map<DTensorSpec, double> best_;
  absl::flat_hash_set<DTensorSpec> done_;
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

}  // namespace

double CostUs(const std::vector<RedistributeStep>& steps,
              const DTensorSpec& from, const TensorType& type,
              const DeviceMesh& mesh, const LinkCosts& costs,
              bool has_gradient) {
  double us = 0;
  double before = LargestBytes(from, type, mesh);
  for (const RedistributeStep& step : steps) {
    const int ranks = mesh.dim_size(step.mesh_dim);
    const double after = LargestBytes(step.result, type, mesh);
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
  if (!plain.ok() || plain->size() < 2 || OnlyGathers(*plain)) return plain;
  const double cost = CostUs(*plain, from, type, mesh, costs, has_gradient);
  // Anything that is there: the shortest way may be found at another cost by
  // rounding.
  std::vector<RedistributeStep> cheaper =
      Search(Canonical(from), Canonical(to), type, mesh, costs, has_gradient)
          .Run(cost * 0.999);
  if (!cheaper.empty()) return cheaper;
  return plain;
}

}  // namespace shardplane
