#include "common/device_mesh.h"

#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

DeviceMesh Mesh(std::vector<MeshDim> dims) {
  return DeviceMesh::Create(std::move(dims)).value();
}

struct BadCase {
  std::string name;
  std::vector<MeshDim> dims;
  std::string message;
};
void PrintTo(const BadCase& c, std::ostream* os) { *os << c.name; }

class BadMeshTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadMeshTest, IsRefused) {
  EXPECT_THAT(DeviceMesh::Create(GetParam().dims),
              AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                             HasSubstr(GetParam().message)),
                    HasReason("INVALID_MESH")));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadMeshTest,
    ::testing::Values(
        BadCase{"no dim", {}, "got: []"},
        BadCase{"size zero", {{"tp", 0}}, "\"tp\" must have a size"},
        BadCase{"negative size", {{"tp", -4}}, "got: -4"},
        BadCase{"no name", {{"", 2}}, "got: \"\""},
        BadCase{"a space", {{"t p", 2}}, "got: \"t p\""},
        BadCase{"a digit first", {{"2d", 2}}, "got: \"2d\""},
        BadCase{"an empty part", {{"tp.", 2}}, "got: \"tp.\""},
        BadCase{"a name twice", {{"tp", 2}, {"tp", 2}}, "\"tp\" occurs twice"},
        BadCase{"too many ranks",
                {{"a", 1 << 15}, {"b", 1 << 15}},
                "at most 1048576 ranks"},
        BadCase{"too many for an int",
                {{"a", 2147483647}, {"b", 2147483647}, {"c", 2147483647}},
                "at most 1048576 ranks"}),
    CaseName<BadCase>);

TEST(DeviceMesh, TextForm) {
  EXPECT_EQ(Mesh({{"dp", 2}, {"tp", 4}}).ToString(), "[dp=2, tp=4]");
}

TEST(DeviceMesh, LastDimVariesFastest) {
  const DeviceMesh mesh = Mesh({{"dp", 2}, {"tp", 4}});

  EXPECT_EQ(mesh.size(), 8);
  EXPECT_THAT(mesh.Coordinate(5), ElementsAre(1, 1));
  EXPECT_EQ(mesh.Rank({1, 1}), 5);
}

TEST(DeviceMesh, RankAndCoordinateAreInverse) {
  const DeviceMesh mesh = Mesh({{"a", 3}, {"b", 1}, {"c", 4}, {"d", 2}});

  for (int rank = 0; rank < mesh.size(); ++rank) {
    EXPECT_EQ(mesh.Rank(mesh.Coordinate(rank)), rank);
  }
}

TEST(DeviceMesh, GroupsVaryAlongOneDim) {
  const DeviceMesh mesh = Mesh({{"dp", 2}, {"tp", 4}});

  EXPECT_THAT(mesh.Group(5, 1), ElementsAre(4, 5, 6, 7));
  EXPECT_THAT(mesh.Group(5, 0), ElementsAre(1, 5));
}

TEST(DeviceMesh, FindsDims) {
  const DeviceMesh mesh = Mesh({{"dp", 2}, {"tp", 4}});

  EXPECT_EQ(mesh.FindDim("tp"), 1);
  EXPECT_EQ(mesh.FindDim("pp"), -1);
}

TEST(Split, NamesSubDimsMajorFirst) {
  const DeviceMesh mesh = Mesh({{"dp", 2}, {"tp", 8}});

  const auto split = mesh.Split(1, {2, 4});

  EXPECT_THAT(split, IsOkAndHolds(Mesh({{"dp", 2}, {"tp.0", 2}, {"tp.1", 4}})));
}

// Rank 13 is {1, 5} of [dp=2, tp=8], and 5 is {1, 1} of [2, 4].
TEST(Split, KeepsTheNumbersOfRanks) {
  const DeviceMesh mesh = Mesh({{"dp", 2}, {"tp", 8}}).Split(1, {2, 4}).value();

  EXPECT_THAT(mesh.Coordinate(13), ElementsAre(1, 1, 1));
}

TEST(Split, CanBeSplitAgain) {
  const DeviceMesh mesh = Mesh({{"tp", 8}}).Split(0, {2, 4}).value();

  EXPECT_THAT(mesh.Split(1, {2, 2}),
              IsOkAndHolds(Mesh({{"tp.0", 2}, {"tp.1.0", 2}, {"tp.1.1", 2}})));
}

TEST(Split, RefusesSizesThatDoNotMultiply) {
  const DeviceMesh mesh = Mesh({{"tp", 8}});

  EXPECT_THAT(mesh.Split(0, {3, 2}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("must multiply to 8; got: [3, 2]")));
  EXPECT_THAT(
      mesh.Split(0, {-2, -4}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("got: [-2, -4]")));
  EXPECT_THAT(mesh.Split(1, {2, 4}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("no dim of that index; got: 1")));
}

}  // namespace
}  // namespace shardplane
