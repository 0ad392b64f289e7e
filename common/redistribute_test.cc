#include "common/redistribute.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/cheapest_redistribution.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using Data = std::vector<double>;

// Calls `visit(flat index of the part, flat index of the whole)`.
template <typename Visit>
void ForEach(const Shape& whole, const std::vector<Extent>& part,
             const Visit& visit) {
  int64_t elements = 1;
  for (const Extent& e : part) elements *= e.size;
  for (int64_t flat = 0; flat < elements; ++flat) {
    int64_t rest = flat;
    int64_t global = 0;
    int64_t stride = 1;
    for (int d = static_cast<int>(whole.size()) - 1; d >= 0; --d) {
      global += (part[d].offset + rest % part[d].size) * stride;
      rest /= part[d].size;
      stride *= whole[d];
    }
    visit(flat, global);
  }
}

// Every rank's shard of one tensor, with the collectives done by hand.
class Ranks {
 public:
  Ranks(DeviceMesh mesh, Shape shape, const DTensorSpec& spec)
      : mesh_(std::move(mesh)), shape_(std::move(shape)), spec_(spec) {
    shards_.resize(mesh_.size());
    for (int rank = 0; rank < mesh_.size(); ++rank) {
      const auto extents = Extents(spec_, rank);
      shards_[rank].resize(Size(extents));
      ForEach(shape_, extents, [&](int64_t local, int64_t global) {
        shards_[rank][local] = Share(rank, static_cast<double>(global + 1));
      });
    }
  }

  void Take(const RedistributeStep& step) {
    std::vector<Data> next(mesh_.size());
    for (int rank = 0; rank < mesh_.size(); ++rank) {
      next[rank] = After(step, rank);
    }
    spec_ = step.result;
    shards_ = std::move(next);
  }

  // Whether every rank has what its spec says: partials add up, along the mesh
  // dims that hold them.
  bool Right() const {
    for (int rank = 0; rank < mesh_.size(); ++rank) {
      Data sum(shards_[rank].size(), 0);
      for (const int other : PartialGroup(rank)) {
        for (size_t i = 0; i < sum.size(); ++i) sum[i] += shards_[other][i];
      }
      bool right = true;
      ForEach(shape_, Extents(spec_, rank), [&](int64_t local, int64_t global) {
        right = right && sum[local] == static_cast<double>(global + 1);
      });
      if (!right) return false;
    }
    return true;
  }

 private:
  std::vector<Extent> Extents(const DTensorSpec& spec, int rank) const {
    std::vector<Extent> extents;
    for (const Stretches& dim :
         LocalStretches(shape_, spec, mesh_, mesh_.Coordinate(rank))) {
      extents.push_back(dim.empty() ? Extent{} : dim[0]);
    }
    return extents;
  }
  static size_t Size(const std::vector<Extent>& extents) {
    size_t size = 1;
    for (const Extent& e : extents) size *= e.size;
    return size;
  }
  // A Partial's pieces: coordinate 0 has the value plus the others' debts.
  double Share(int rank, double value) const {
    const std::vector<int> at = mesh_.Coordinate(rank);
    for (int m = 0; m < mesh_.ndim(); ++m) {
      if (!IsPartial(spec_.placements[m])) continue;
      const int n = mesh_.dim_size(m);
      value = at[m] == 0 ? value + 16.0 * (n - 1) : -16.0;
    }
    return value;
  }
  // Ranks whose shards add up to this rank's part of the tensor.
  std::vector<int> PartialGroup(int rank) const {
    std::vector<int> group;
    const std::vector<int> at = mesh_.Coordinate(rank);
    for (int other = 0; other < mesh_.size(); ++other) {
      const std::vector<int> to = mesh_.Coordinate(other);
      bool in = true;
      for (int m = 0; m < mesh_.ndim(); ++m) {
        in = in && (at[m] == to[m] || IsPartial(spec_.placements[m]));
      }
      if (in) group.push_back(other);
    }
    return group;
  }

  Data After(const RedistributeStep& step, int rank) const {
    const auto to = Extents(step.result, rank);
    Data out(Size(to), 0);
    const std::vector<int> group = mesh_.Group(rank, step.mesh_dim);
    const bool sums = step.kind == RedistributeKind::kAllReduce ||
                      step.kind == RedistributeKind::kReduceScatter;
    const bool masked =
        step.kind == RedistributeKind::kMask && group[0] != rank;
    if (masked) return out;
    // By global index: what each peer has of it.
    const int64_t elements = NumElements(shape_);
    Data whole(elements, 0);
    const bool local = step.kind == RedistributeKind::kSlice ||
                       step.kind == RedistributeKind::kMask ||
                       step.kind == RedistributeKind::kSpread ||
                       step.kind == RedistributeKind::kAlias;
    for (const int peer : group) {
      if (local && peer != rank) continue;
      ForEach(shape_, Extents(spec_, peer), [&](int64_t l, int64_t g) {
        whole[g] = sums ? whole[g] + shards_[peer][l] : shards_[peer][l];
      });
    }
    ForEach(shape_, to, [&](int64_t l, int64_t g) { out[l] = whole[g]; });
    return out;
  }

  DeviceMesh mesh_;
  Shape shape_;
  DTensorSpec spec_;
  std::vector<Data> shards_;
};

DeviceMesh Mesh(const std::vector<int>& sizes) {
  std::vector<MeshDim> dims;
  for (size_t i = 0; i < sizes.size(); ++i) {
    dims.push_back({absl::StrCat("m", i), sizes[i]});
  }
  return *DeviceMesh::Create(dims);
}

// Every layout of a tensor of `rank` dims on a mesh of `ndim`, in every order
// of cuts.
std::vector<DTensorSpec> AllSpecs(int ndim, int rank) {
  std::vector<DTensorSpec> specs = {{{}, {}}};
  for (int m = 0; m < ndim; ++m) {
    std::vector<DTensorSpec> longer;
    for (DTensorSpec spec : specs) {
      spec.placements.push_back(Replicate{});
      longer.push_back(spec);
      spec.placements[m] = Partial{};
      longer.push_back(spec);
      for (int d = 0; d < rank; ++d) {
        spec.placements[m] = Shard{d};
        longer.push_back(spec);
      }
    }
    specs = std::move(longer);
  }
  std::vector<DTensorSpec> ordered;
  for (const DTensorSpec& spec : specs) {
    std::vector<int> order(ndim);
    for (int m = 0; m < ndim; ++m) order[m] = m;
    do {
      DTensorSpec with_order = spec;
      for (const int m : order) {
        if (ShardDim(spec.placements[m]) >= 0)
          with_order.cut_order.push_back(m);
      }
      const DTensorSpec canonical = Canonical(with_order);
      if (std::find(ordered.begin(), ordered.end(), canonical) ==
          ordered.end()) {
        ordered.push_back(canonical);
      }
    } while (std::next_permutation(order.begin(), order.end()));
  }
  return ordered;
}

struct Case {
  const char* name;
  std::vector<int> mesh;
  Shape shape;
};

class RedistributeEverything : public testing::TestWithParam<Case> {};

TEST_P(RedistributeEverything, ReachesEveryLayoutFromEveryLayout) {
  const DeviceMesh mesh = Mesh(GetParam().mesh);
  const Shape& shape = GetParam().shape;
  const auto specs = AllSpecs(mesh.ndim(), static_cast<int>(shape.size()));
  for (const DTensorSpec& from : specs) {
    for (const DTensorSpec& to : specs) {
      const auto steps = PlanRedistribute(from, to);
      ASSERT_TRUE(steps.ok()) << steps.status();
      Ranks ranks(mesh, shape, from);
      ASSERT_TRUE(ranks.Right()) << ToString(from);
      for (const RedistributeStep& step : *steps) ranks.Take(step);
      ASSERT_EQ(steps->empty() ? from : steps->back().result, to);
      ASSERT_TRUE(ranks.Right()) << ToString(from) << " to " << ToString(to);
    }
  }
}

// Whatever way is taken, it leads there, and costs no more than the plain one.
TEST_P(RedistributeEverything, CheapestWaysLeadThereToo) {
  const DeviceMesh mesh = Mesh(GetParam().mesh);
  const TensorType type{DType::kFloat64, GetParam().shape};
  const auto specs = AllSpecs(mesh.ndim(), static_cast<int>(type.shape.size()));
  const size_t stride = mesh.ndim() > 2 ? 37 : 1;
  size_t pair = 0;
  int cheaper = 0;
  for (const DTensorSpec& from : specs) {
    for (const DTensorSpec& to : specs) {
      if (++pair % stride != 0) continue;
      const bool gradient = pair % 2 == 0;
      const LinkCosts costs{.latency_us = pair % 3 == 0 ? 1.0 : 0.0,
                            .us_per_mib = 1 << 20};
      const auto plain = PlanRedistribute(from, to);
      const auto steps =
          CheapestRedistribution(from, to, type, mesh, costs, gradient);
      ASSERT_TRUE(steps.ok()) << steps.status();
      Ranks ranks(mesh, type.shape, from);
      for (const RedistributeStep& step : *steps) ranks.Take(step);
      ASSERT_EQ(steps->empty() ? from : steps->back().result, to);
      ASSERT_TRUE(ranks.Right()) << ToString(from) << " to " << ToString(to);
      const double cost = CostUs(*steps, from, type, mesh, costs, gradient);
      const double limit = CostUs(*plain, from, type, mesh, costs, gradient);
      ASSERT_LE(cost, limit) << ToString(from) << " to " << ToString(to);
      if (cost < limit) ++cheaper;
    }
  }
  EXPECT_EQ(cheaper > 0, mesh.ndim() > 1);
}

std::string Way(const DTensorSpec& from, const DTensorSpec& to, int64_t rows,
                bool gradient) {
  const LinkCosts costs{.latency_us = 10, .us_per_mib = 100};
  const auto steps = CheapestRedistribution(
      from, to, {DType::kFloat32, {rows, 256}}, Mesh({2, 2}), costs, gradient);
  std::string way;
  for (const RedistributeStep& step : *steps) {
    absl::StrAppend(&way, ToString(step.kind), " ", ToString(step.result), " ");
  }
  return way;
}

// Much that is partial along both mesh dims is scattered along one, reduced
// along the other, and gathered; little, and what has a gradient, which would
// have to be gathered on its way back, is all-reduced twice.
TEST(CheapestRedistributionTest, PartialAlongTwoMeshDims) {
  const DTensorSpec from = {{Partial{}, Partial{}}, {}};
  const DTensorSpec to = {{Replicate{}, Replicate{}}, {}};
  EXPECT_EQ(Way(from, to, 4096, false),
            "reduce_scatter [S(0), P(sum)] all_reduce [S(0), R] "
            "all_gather [R, R] ");
  const std::string twice = "all_reduce [R, P(sum)] all_reduce [R, R] ";
  EXPECT_EQ(Way(from, to, 16, false), twice);
  EXPECT_EQ(Way(from, to, 4096, true), twice);
}

INSTANTIATE_TEST_SUITE_P(
    Meshes, RedistributeEverything,
    testing::Values(Case{"two_ranks", {2}, {5, 4, 3}},
                    Case{"three_ranks", {3}, {7, 2, 3}},
                    Case{"four_ranks_with_empty_shards", {4}, {3, 5, 1}},
                    Case{"one_rank", {1}, {3, 2}},
                    Case{"two_by_two", {2, 2}, {5, 6}},
                    Case{"two_by_three_uneven", {2, 3}, {7, 5}},
                    Case{"two_by_two_by_two", {2, 2, 2}, {9, 3}}),
    [](const auto& info) { return std::string(info.param.name); });

// The transpose of the only step.
struct Back {
  RedistributeKind kind = RedistributeKind::kAlias;
  int from_dim = -1;
  int to_dim = -1;
};

struct StepCase {
  const char* name;
  Placement from;
  Placement to;
  std::vector<RedistributeKind> steps;
  Back back = {};
};

class RedistributeOneDim : public testing::TestWithParam<StepCase> {};

TEST_P(RedistributeOneDim, TakesTheCheapestStepAndItsTranspose) {
  const StepCase& c = GetParam();
  const auto steps = PlanRedistribute({{c.from}, {}}, {{c.to}, {}});
  ASSERT_TRUE(steps.ok()) << steps.status();
  std::vector<RedistributeKind> kinds;
  for (const RedistributeStep& step : *steps) kinds.push_back(step.kind);
  EXPECT_EQ(kinds, c.steps);
  if (kinds.size() == 1) {
    const RedistributeStep back = Transpose((*steps)[0]);
    EXPECT_EQ(back.kind, c.back.kind);
    EXPECT_EQ(back.from_dim, c.back.from_dim);
    EXPECT_EQ(back.to_dim, c.back.to_dim);
  }
}

using K = RedistributeKind;
const Blocks kFused = Blocks::Of({{8}, {4}});
const Blocks kShared = Blocks::Of({{16, 8, 2}});
INSTANTIATE_TEST_SUITE_P(
    Pairs, RedistributeOneDim,
    testing::Values(
        StepCase{"gather",
                 Shard{0},
                 Replicate{},
                 {K::kAllGather},
                 {.kind = K::kSlice, .to_dim = 0}},
        StepCase{"slice",
                 Replicate{},
                 Shard{1},
                 {K::kSlice},
                 {.kind = K::kAllGather, .from_dim = 1}},
        StepCase{"reduce", Partial{}, Replicate{}, {K::kAllReduce}},
        StepCase{"reduce_scatter",
                 Partial{},
                 Shard{1},
                 {K::kReduceScatter},
                 {.kind = K::kAllGather, .from_dim = 1}},
        StepCase{"all_to_all",
                 Shard{0},
                 Shard{1},
                 {K::kAllToAll},
                 {.kind = K::kAllToAll, .from_dim = 1, .to_dim = 0}},
        StepCase{"mask", Replicate{}, Partial{}, {K::kMask}},
        StepCase{"spread",
                 Shard{0},
                 Partial{},
                 {K::kSpread},
                 {.kind = K::kSlice, .to_dim = 0}},
        // Packed cuts are gathered, and cut anew.
        StepCase{"gather_packed",
                 Shard{0, kFused},
                 Replicate{},
                 {K::kAllGather},
                 {.kind = K::kSlice, .to_dim = 0}},
        StepCase{"slice_packed",
                 Replicate{},
                 Shard{0, kFused},
                 {K::kSlice},
                 {.kind = K::kAllGather, .from_dim = 0}},
        StepCase{"scatter_packed",
                 Partial{},
                 Shard{0, kFused},
                 {K::kReduceScatter},
                 {.kind = K::kAllGather, .from_dim = 0}},
        StepCase{
            "pack", Shard{0}, Shard{0, kFused}, {K::kAllGather, K::kSlice}},
        StepCase{
            "unpack", Shard{0, kFused}, Shard{1}, {K::kAllGather, K::kSlice}},
        // Two heads of 8, each shared by two of four ranks.
        StepCase{"share_out",
                 Shard{0, kShared},
                 Shard{0},
                 {K::kSlice},
                 {.kind = K::kSpread, .from_dim = 0, .to_dim = 0}},
        StepCase{"spread_shared",
                 Shard{0},
                 Shard{0, kShared.WithPartial(true)},
                 {K::kSpread},
                 {.kind = K::kSlice, .to_dim = 0}},
        StepCase{"reduce_shared",
                 Shard{0, kShared.WithPartial(true)},
                 Shard{0, kShared},
                 {K::kAllReduce}},
        StepCase{"gather_shared_sums",
                 Shard{0, kShared.WithPartial(true)},
                 Replicate{},
                 {K::kAllReduce, K::kAllGather}},
        StepCase{"scatter_to_shared",
                 Partial{},
                 Shard{0, kShared},
                 {K::kAllReduce, K::kSlice}},
        StepCase{"nothing", Shard{0}, Shard{0}, {}},
        StepCase{
            "maximum", Partial{ReduceOp::kMax}, Replicate{}, {K::kAllReduce}}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(RedistributeTest, OuterCutIsUndoneOnlyAfterTheInner) {
  const auto steps = PlanRedistribute({{Shard{0}, Shard{0}}, {}},
                                      {{Replicate{}, Shard{0}}, {}});
  ASSERT_TRUE(steps.ok());
  ASSERT_EQ(steps->size(), 3);
  EXPECT_EQ((*steps)[0].mesh_dim, 1);
  EXPECT_EQ((*steps)[0].kind, K::kAllGather);
  EXPECT_EQ((*steps)[1].mesh_dim, 0);
  EXPECT_EQ((*steps)[1].kind, K::kAllGather);
  EXPECT_EQ((*steps)[2].kind, K::kSlice);
}

TEST(RedistributeTest, KeepsTheOrderOfCuts) {
  DTensorSpec spec{{Replicate{}, Shard{0}}, {}};
  spec = WithPlacement(spec, 0, Shard{0});
  EXPECT_EQ(spec.cut_order, (std::vector<int>{1, 0}));
  EXPECT_EQ(ToString(spec), "[S(0)#2, S(0)#1]");
}

TEST(RedistributeTest, PartialKindsDoNotMix) {
  const auto steps = PlanRedistribute({{Partial{ReduceOp::kMax}}, {}},
                                      {{Partial{ReduceOp::kSum}}, {}});
  EXPECT_EQ(steps.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(steps.status().message()),
              testing::HasSubstr("got: [P(max)]"));
}

}  // namespace
}  // namespace shardplane
