#include "worker/global_norm.h"

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/full.h"
#include "common/gradient_norm.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"
#include "worker/gang_for_test.h"
#include "worker/torch_tensors.h"

namespace shardplane {
namespace {

using NamedTensors = absl::btree_map<std::string, at::Tensor>;

// A gradient and how it is placed.
struct Placed {
  at::Tensor global;
  DTensorSpec spec;
};

at::Tensor LocalPart(const Placed& placed, const DeviceMesh& mesh,
                     const std::vector<int>& coordinate) {
  at::Tensor part = placed.global;
  const std::vector<Stretches> own =
      LocalStretches(part.sizes().vec(), placed.spec, mesh, coordinate);
  for (size_t dim = 0; dim < own.size(); ++dim) {
    part = NarrowTo(part, static_cast<int>(dim), own[dim]);
  }
  return part.contiguous();
}

// What every rank computes; it must be the same bits, and what it runs what
// NormCollectives says.
double NormOn(const std::vector<MeshDim>& dims,
              const absl::btree_map<std::string, Placed>& gradients) {
  GangForTest gang(dims);
  std::vector<double> norms(gang.mesh().size());
  gang.Run([&](int rank, Communicator& communicator) {
    const std::vector<int> coordinate = gang.mesh().Coordinate(rank);
    Parameters parameters;
    NamedTensors local;
    for (const auto& [fqn, placed] : gradients) {
      local[fqn] = LocalPart(placed, gang.mesh(), coordinate);
      parameters[fqn].type = TypeOf(placed.global);
      parameters[fqn].spec = placed.spec;
      parameters[fqn].local = local[fqn];
    }
    const auto norm =
        GlobalNorm(parameters, local, gang.mesh(), coordinate, communicator);
    ASSERT_THAT(norm, IsOk());
    norms[rank] = *norm;
    EXPECT_EQ(communicator.TakeRecords(), NormCollectives(gang.mesh()));
  });
  for (const double norm : norms) {
    EXPECT_TRUE(norm == norms[0] || std::isnan(norms[0]));
  }
  return norms[0];
}

at::Tensor Values(at::IntArrayRef shape, at::ScalarType type = at::kDouble) {
  return at::arange(at::empty(shape).numel(), at::kDouble)
      .sin()
      .reshape(shape)
      .to(type);
}

DTensorSpec On(Placements placements) { return {std::move(placements), {}}; }

TEST(GlobalNormTest, CountsEveryElementOnceOnOneMeshDim) {
  const at::Tensor all =
      at::cat({Values({5, 3}).flatten(), Values({2, 3}).flatten(),
               Values({4}).flatten()});
  const double expected = all.norm().item<double>();
  for (const int ranks : {1, 2, 3, 4}) {
    SCOPED_TRACE(ranks);
    // Uneven, with an empty shard from 3 ranks on, and whole.
    EXPECT_NEAR(
        NormOn({{"tp", ranks}}, {{"a", {Values({5, 3}), On({Shard{0}})}},
                                 {"b", {Values({2, 3}), On({Shard{0}})}},
                                 {"c", {Values({4}), On({Replicate{}})}}}),
        expected, 1e-14);
  }
}

TEST(GlobalNormTest, CountsEveryElementOnceOnTwoMeshDims) {
  const at::Tensor all =
      at::cat({Values({5, 3}).flatten(), Values({2, 3}).flatten(),
               Values({4}).flatten(), Values({6}).flatten()});
  EXPECT_NEAR(NormOn({{"dp", 2}, {"tp", 2}},
                     {{"a", {Values({5, 3}), On({Replicate{}, Shard{0}})}},
                      {"b", {Values({2, 3}), On({Shard{1}, Shard{0}})}},
                      {"c", {Values({4}), On({Replicate{}, Replicate{}})}},
                      {"d", {Values({6}), On({Shard{0}, Replicate{}})}}}),
              all.norm().item<double>(), 1e-14);
}

TEST(GlobalNormTest, LowPrecisionIsSummedInF64) {
  // Each square rounds away in f32 once the sum is large.
  const at::Tensor many = at::full({1 << 16}, 1.0 / 3, at::kFloat);
  const at::Tensor large = at::full({1}, 4096.0, at::kBFloat16);
  const double third = 1.0f / 3.0f;
  EXPECT_DOUBLE_EQ(NormOn({{"tp", 2}}, {{"a", {large, On({Replicate{}})}},
                                        {"b", {many, On({Shard{0}})}}}),
                   std::sqrt(4096.0 * 4096.0 + 65536 * third * third));
}

TEST(GlobalNormTest, NothingHasNoNorm) {
  EXPECT_EQ(NormOn({{"tp", 2}}, {}), 0);
  EXPECT_EQ(NormOn({{"tp", 2}}, {{"a", {Values({0}), On({Shard{0}})}}}), 0);
}

TEST(GlobalNormTest, WhatIsNotFiniteIsTold) {
  at::Tensor values = Values({4});
  values[3] = std::numeric_limits<double>::infinity();
  EXPECT_TRUE(
      std::isinf(NormOn({{"tp", 2}}, {{"a", {values, On({Shard{0}})}}})));
  values[3] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(
      std::isnan(NormOn({{"tp", 2}}, {{"a", {values, On({Shard{0}})}}})));
}

}  // namespace
}  // namespace shardplane
