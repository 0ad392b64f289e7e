#include "common/tensor_spec.h"

#include <algorithm>
#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/spec_enumeration.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

DeviceMesh Mesh(std::vector<MeshDim> dims) {
  return DeviceMesh::Create(std::move(dims)).value();
}

struct ChunkCase {
  std::string name;
  int64_t n;
  std::vector<int64_t> sizes;  // by rank
};
void PrintTo(const ChunkCase& c, std::ostream* os) { *os << c.name; }

class ChunkTest : public ::testing::TestWithParam<ChunkCase> {};

TEST_P(ChunkTest, CutsAsTorchDoes) {
  const int parts = static_cast<int>(GetParam().sizes.size());
  std::vector<int64_t> sizes;
  int64_t offset = 0;
  for (int i = 0; i < parts; ++i) {
    const Extent chunk = Chunk(GetParam().n, parts, i);
    EXPECT_EQ(chunk.offset, offset) << "part " << i;
    offset += chunk.size;
    sizes.push_back(chunk.size);
  }
  EXPECT_THAT(sizes, ElementsAreArray(GetParam().sizes));
  EXPECT_EQ(offset, GetParam().n);
}

INSTANTIATE_TEST_SUITE_P(
    All, ChunkTest,
    ::testing::Values(ChunkCase{"even", 8, {2, 2, 2, 2}},
                      ChunkCase{"five over two", 5, {3, 2}},
                      ChunkCase{"one over two", 1, {1, 0}},
                      ChunkCase{"five over four", 5, {2, 2, 1, 0}},
                      ChunkCase{"ten over four", 10, {3, 3, 3, 1}},
                      ChunkCase{"seventeen over four", 17, {5, 5, 5, 2}},
                      ChunkCase{"six over four", 6, {2, 2, 2, 0}},
                      ChunkCase{"three over four", 3, {1, 1, 1, 0}},
                      ChunkCase{"nothing", 0, {0, 0, 0}},
                      ChunkCase{"one part", 7, {7}}),
    CaseName<ChunkCase>);

TEST(DTensorSpec, TextForm) {
  EXPECT_EQ(ToString(DTensorSpec{{Shard{0}, Replicate{}}, {}}), "[S(0), R]");
  EXPECT_EQ(ToString(DTensorSpec{{Shard{0}, Shard{0}}, {1, 0}}),
            "[S(0)#2, S(0)#1]");
  EXPECT_EQ(ToString(DTensorSpec{}), "[]");
}

TEST(DTensorSpec, Predicates) {
  EXPECT_TRUE(IsFullyReplicated(DTensorSpec::Replicated(2)));
  const DTensorSpec spec{{Shard{0}, Partial{}}, {}};
  EXPECT_FALSE(IsFullyReplicated(spec));
  EXPECT_TRUE(HasShard(spec));
  EXPECT_TRUE(HasPartial(spec));
  EXPECT_FALSE(HasShard(DTensorSpec::Replicated(2)));
}

TEST(CutsOf, FollowsTheMeshUnlessToldOtherwise) {
  EXPECT_THAT(CutsOf({{Shard{0}, Shard{1}, Shard{0}}, {}}, 0),
              ElementsAre(0, 2));
  EXPECT_THAT(CutsOf({{Shard{0}, Shard{1}, Shard{0}}, {2, 1, 0}}, 0),
              ElementsAre(2, 0));
  EXPECT_THAT(CutsOf({{Shard{0}, Replicate{}}, {}}, 1), ElementsAre());
}

struct BadCase {
  std::string name;
  DTensorSpec spec;
  std::string message;
};
void PrintTo(const BadCase& c, std::ostream* os) { *os << c.name; }

class BadSpecTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadSpecTest, IsRefused) {
  EXPECT_THAT(Validate(GetParam().spec, Mesh({{"dp", 2}, {"tp", 2}}), 2),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(absl::StrCat(GetParam().message, "; got: ",
                                              ToString(GetParam().spec)))));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadSpecTest,
    ::testing::Values(BadCase{"too few placements",
                              {{Replicate{}}, {}},
                              "needs 2 placements"},
                      BadCase{"dim too large",
                              {{Replicate{}, Shard{2}}, {}},
                              "must name one of them"},
                      BadCase{"dim from the end",
                              {{Replicate{}, Shard{-1}}, {}},
                              "must name one of them"},
                      BadCase{"order of one that does not cut",
                              {{Replicate{}, Shard{0}}, {0, 1}},
                              "not [0, 1]"},
                      BadCase{"order with one twice",
                              {{Shard{0}, Shard{0}}, {0, 0}},
                              "not [0, 0]"},
                      BadCase{"order with one missing",
                              {{Shard{0}, Shard{0}}, {1}},
                              "not [1]"},
                      BadCase{"order outside the mesh",
                              {{Shard{0}, Shard{0}}, {0, 7}},
                              "not [0, 7]"}),
    CaseName<BadCase>);

TEST(LocalExtents, CutsWithinCuts) {
  // 10 rows over tp=4 are 3, 3, 3, 1; tp's second part over dp=2 is 2, 1.
  const DeviceMesh mesh = Mesh({{"dp", 2}, {"tp", 4}});
  const DTensorSpec spec{{Shard{0}, Shard{0}}, {1, 0}};

  EXPECT_THAT(LocalExtents({10, 5}, spec, mesh, {1, 1}),
              ElementsAre(Extent{5, 1}, Extent{0, 5}));
  EXPECT_THAT(LocalShape({10, 5}, spec, mesh, {0, 3}), ElementsAre(1, 5));
  EXPECT_THAT(LocalShape({10, 5}, spec, mesh, {1, 3}), ElementsAre(0, 5));
  EXPECT_EQ(LocalExtent(10, {1, 0}, mesh, {1, 1}), (Extent{5, 1}));
}

// Counts how often the ranks' parts cover each element of a 2-d tensor.
std::vector<int> Cover(const Shape& shape, const DTensorSpec& spec,
                       const DeviceMesh& mesh) {
  std::vector<int> covered(shape[0] * shape[1]);
  for (int rank = 0; rank < mesh.size(); ++rank) {
    const std::vector<Extent> part =
        LocalExtents(shape, spec, mesh, mesh.Coordinate(rank));
    for (int64_t i = 0; i < part[0].size; ++i) {
      for (int64_t j = 0; j < part[1].size; ++j) {
        ++covered[(part[0].offset + i) * shape[1] + part[1].offset + j];
      }
    }
  }
  return covered;
}

// Every element lies with as many ranks as there are replicas.
TEST(LocalExtents, TileTheTensorOnAllMeshesUpToThreeDims) {
  for (const DeviceMesh& mesh : SmallMeshes()) {
    for (const DTensorSpec& spec : AllSpecs(mesh, 2)) {
      int replicas = 1;
      for (int i = 0; i < mesh.ndim(); ++i) {
        if (ShardDim(spec.placements[i]) == -1) replicas *= mesh.dim_size(i);
      }
      for (const Shape& shape : {Shape{1, 1}, Shape{5, 3}, Shape{8, 17}}) {
        const std::vector<int> covered = Cover(shape, spec, mesh);
        ASSERT_TRUE(std::all_of(covered.begin(), covered.end(),
                                [&](int times) { return times == replicas; }))
            << mesh.ToString() << " " << ToString(spec) << " "
            << ShapeToString(shape);
      }
    }
  }
}

TEST(AllSpecs, AreValid) {
  for (const DeviceMesh& mesh : SmallMeshes()) {
    for (const DTensorSpec& spec : AllSpecs(mesh, 2)) {
      ASSERT_THAT(Validate(spec, mesh, 2), IsOk());
    }
  }
}

}  // namespace
}  // namespace shardplane
