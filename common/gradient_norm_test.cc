#include "common/gradient_norm.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

DeviceMesh Mesh(std::vector<MeshDim> dims) {
  return *DeviceMesh::Create(std::move(dims));
}

TEST(NormCollectivesTest, AreOneAMeshDim) {
  const auto one = [](int mesh_dim) {
    return CollectiveRecord{RedistributeKind::kAllReduce, mesh_dim,
                            DType::kFloat64, 1, 1};
  };
  EXPECT_THAT(NormCollectives(Mesh({{"tp", 4}})), ElementsAre(one(0)));
  EXPECT_THAT(NormCollectives(Mesh({{"dp", 2}, {"x", 1}, {"tp", 4}})),
              ElementsAre(one(0), one(2)));
  EXPECT_THAT(NormCollectives(Mesh({{"tp", 1}})), IsEmpty());
}

// Every element of a tensor is counted by exactly one rank.
TEST(CountsInNormTest, CountsEveryElementOnce) {
  const DeviceMesh mesh = Mesh({{"dp", 2}, {"tp", 3}});
  const Shape shape{5, 4};
  const std::vector<Placement> all{Replicate{}, Shard{0}, Shard{1}};
  for (const Placement& dp : all) {
    for (const Placement& tp : all) {
      const DTensorSpec spec{{dp, tp}, {}};
      SCOPED_TRACE(ToString(spec));
      int64_t counted = 0;
      for (int rank = 0; rank < mesh.size(); ++rank) {
        const std::vector<int> coordinate = mesh.Coordinate(rank);
        if (!CountsInNorm(spec, coordinate)) continue;
        counted += NumElements(LocalShape(shape, spec, mesh, coordinate));
      }
      EXPECT_EQ(counted, NumElements(shape));
    }
  }
}

// What torch.nn.utils.clip_grad_norm_ multiplies by.
TEST(ClipScaleTest, IsTorchs) {
  EXPECT_DOUBLE_EQ(ClipScale(4, 2), 2 / (4 + 1e-6));
  EXPECT_EQ(ClipScale(1, 2), 1);
  EXPECT_EQ(ClipScale(0, 2), 1);
  EXPECT_EQ(ClipScale(3, kInfinity), 1);
  EXPECT_EQ(ClipScale(kInfinity, 2), 0);
  EXPECT_TRUE(std::isnan(ClipScale(kNan, 2)));
  EXPECT_TRUE(std::isnan(ClipScale(kInfinity, kInfinity)));
}

}  // namespace
}  // namespace shardplane
