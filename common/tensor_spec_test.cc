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
using ::testing::IsEmpty;

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

TEST(TravelOrder, BeginsWithTheDimThatIsAskedFor) {
  EXPECT_THAT(TravelOrder({{Shard{0}, Replicate{}, Shard{1}}, {}}, 1),
              ElementsAre(1, 0, 2));
  EXPECT_THAT(TravelOrder({{Shard{0}, Shard{0}}, {1, 0}}, 1),
              ElementsAre(1, 0));
  EXPECT_THAT(TravelOrder({}, 0), ElementsAre());
}

TEST(TravelOrder, GoesIntoACutBeforeThoseWithinIt) {
  EXPECT_THAT(TravelOrder({{Shard{0}, Shard{0}}, {}}, 1), ElementsAre(0, 1));
  // Dim 1 is asked for, lies within 2, and that within 0.
  EXPECT_THAT(TravelOrder({{Shard{0}, Shard{0}, Shard{0}}, {0, 2, 1}}, 1),
              ElementsAre(0, 2, 1));
  EXPECT_THAT(TravelOrder({{Shard{1}, Shard{0}, Shard{0}}, {2, 1, 0}}, 1),
              ElementsAre(0, 2, 1));
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

TEST(LocalStretches, CutsWithinCuts) {
  // 10 rows over tp=4 are 3, 3, 3, 1; tp's second part over dp=2 is 2, 1.
  const DeviceMesh mesh = Mesh({{"dp", 2}, {"tp", 4}});
  const DTensorSpec spec{{Shard{0}, Shard{0}}, {1, 0}};

  EXPECT_THAT(
      LocalStretches({10, 5}, spec, mesh, {1, 1}),
      ElementsAre(ElementsAre(Extent{5, 1}), ElementsAre(Extent{0, 5})));
  EXPECT_THAT(LocalShape({10, 5}, spec, mesh, {0, 3}), ElementsAre(1, 5));
  EXPECT_THAT(LocalShape({10, 5}, spec, mesh, {1, 3}), ElementsAre(0, 5));
  EXPECT_THAT(LocalStretches({10, {1, 0}}, mesh, {1, 1}),
              ElementsAre(Extent{5, 1}));
  EXPECT_THAT(LocalStretches({10, {1, 0}}, mesh, {1, 3}), IsEmpty());
}

// Eight query heads of 4, two key heads that two ranks each share.
TEST(LocalStretches, OfPackedCuts) {
  const DeviceMesh mesh = Mesh({{"tp", 4}});
  const DTensorSpec spec{{Shard{0, Blocks::Of({{32}, {8, 4, 2}})}}, {}};

  EXPECT_THAT(LocalStretches({40}, spec, mesh, {0})[0],
              ElementsAre(Extent{0, 8}, Extent{32, 4}));
  EXPECT_THAT(LocalStretches({40}, spec, mesh, {1})[0],
              ElementsAre(Extent{8, 8}, Extent{32, 4}));
  // What touches is one.
  EXPECT_THAT(LocalStretches({40}, spec, mesh, {2})[0],
              ElementsAre(Extent{16, 8}, Extent{36, 4}));
  EXPECT_THAT(LocalStretches(DimCuts{40, {0}, Blocks::Of({{8, 8}, {32, 16}})},
                             mesh, {0}),
              ElementsAre(Extent{0, 24}));
  EXPECT_THAT(LocalShape({40, 3}, spec, mesh, {3}), ElementsAre(12, 3));
  EXPECT_EQ(LocalElements({40, 3}, spec, mesh, {3}), 36);
}

TEST(LocalStretches, OfUnitsThatDoNotDivide) {
  const DeviceMesh mesh = Mesh({{"tp", 4}});
  const DTensorSpec spec{{Shard{0, Blocks::Of({{48, 8}})}}, {}};
  std::vector<int64_t> sizes;
  for (int rank = 0; rank < 4; ++rank) {
    sizes.push_back(LocalShape({48}, spec, mesh, {rank})[0]);
  }
  EXPECT_THAT(sizes, ElementsAre(16, 16, 16, 0));
}

// Fully sharded within: the part of the packed dim, cut as one.
TEST(LocalStretches, OfPlainCutsWithinPackedOnes) {
  const DeviceMesh mesh = Mesh({{"dp", 2}, {"tp", 2}});
  const DTensorSpec spec{{Shard{0}, Shard{0, Blocks::Of({{8}, {4}})}}, {1, 0}};

  EXPECT_EQ(ToString(spec), "[S(0)#2, S(0: 8, 4)#1]");
  EXPECT_THAT(LocalStretches({12}, spec, mesh, {0, 1})[0],
              ElementsAre(Extent{4, 3}));
  EXPECT_THAT(LocalStretches({12}, spec, mesh, {1, 1})[0],
              ElementsAre(Extent{7, 1}, Extent{10, 2}));
}

// Each element once, whoever shares it.
TEST(FirstOf, LeavesReplicasOut) {
  const DeviceMesh mesh = Mesh({{"dp", 2}, {"tp", 4}});
  const DimCuts alone{40, {1}, Blocks::Of({{32}, {8, 4, 2}})};
  const DimCuts within{40, {1, 0}, Blocks::Of({{32}, {8, 4, 2}})};
  EXPECT_THAT(FirstOf(alone, mesh, {0, 2}), ElementsAre(Extent{0, 12}));
  EXPECT_THAT(FirstOf(alone, mesh, {0, 1}), ElementsAre(Extent{0, 8}));
  EXPECT_THAT(FirstOf(within, mesh, {0, 1}), ElementsAre(Extent{0, 6}));
  EXPECT_THAT(FirstOf(within, mesh, {1, 1}), ElementsAre(Extent{0, 2}));
  EXPECT_THAT(FirstOf({40, {}}, mesh, {1, 1}), ElementsAre(Extent{0, 40}));
  int64_t elements = 0;
  for (int rank = 0; rank < mesh.size(); ++rank) {
    elements += SizeOf(FirstOf(within, mesh, mesh.Coordinate(rank)));
  }
  EXPECT_EQ(elements, 40);
}

TEST(CheckBlocksTest, RefusesWhatIsNoCut) {
  EXPECT_THAT(CheckBlocks(Blocks::Of({{32}, {8, 4, 2}}), 40, 4), IsOk());
  EXPECT_THAT(CheckBlocks(Blocks{}, 40, 4), IsOk());
  for (const Blocks& bad :
       {Blocks::Of({{32}, {4}}), Blocks::Of({{40, 3}}),
        Blocks::Of({{32}, {8, 4, 3}}), Blocks::Of({{32}, {8, 2, 2}})}) {
    EXPECT_THAT(CheckBlocks(bad, 40, 4),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("blocks must be whole units, 40 elements")))
        << ToString(bad);
  }
}

TEST(ValidateTest, PackedCutsAreOutermost) {
  const DeviceMesh mesh = Mesh({{"dp", 2}, {"tp", 2}});
  const Shard packed{0, Blocks::Of({{8}, {4}})};

  EXPECT_THAT(Validate({{Shard{0}, packed}, {1, 0}}, mesh, 1), IsOk());
  EXPECT_THAT(Validate({{Shard{0}, packed}, {}}, mesh, 1),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("must be the outermost cut of its dim")));
}

// Counts how often the ranks' parts cover each element of a 2-d tensor.
std::vector<int> Cover(const Shape& shape, const DTensorSpec& spec,
                       const DeviceMesh& mesh) {
  std::vector<int> covered(shape[0] * shape[1]);
  for (int rank = 0; rank < mesh.size(); ++rank) {
    const std::vector<Stretches> part =
        LocalStretches(shape, spec, mesh, mesh.Coordinate(rank));
    for (const Extent& rows : part[0]) {
      for (const Extent& columns : part[1]) {
        for (int64_t i = 0; i < rows.size * columns.size; ++i) {
          ++covered[(rows.offset + i / columns.size) * shape[1] +
                    columns.offset + i % columns.size];
        }
      }
    }
  }
  return covered;
}

// Every element lies with as many ranks as there are replicas.
TEST(LocalStretches, TileTheTensorOnAllMeshesUpToThreeDims) {
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
