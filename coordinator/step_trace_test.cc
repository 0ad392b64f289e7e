#include "coordinator/step_trace.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using ::testing::ElementsAre;

// A segment, an all_reduce along dim 1 of [a=2, b=2], one along dim 0.
ShardedProgram TwoSums() {
  ShardedProgram program;
  program.mesh = *DeviceMesh::Create({{"a", 2}, {"b", 2}});
  program.instructions = {
      RunSegment{},
      Redistribute{.kind = RedistributeKind::kAllReduce, .mesh_dim = 1},
      Bucket{.kind = RedistributeKind::kAllReduce, .mesh_dim = 0},
      Redistribute{.kind = RedistributeKind::kSlice, .mesh_dim = 0}};
  return program;
}

TimelineSpan At(int instruction, int64_t begin, int64_t end,
                SpanKind kind = SpanKind::kCollective) {
  return {{instruction, begin, end - begin}, {.kind = kind}};
}

TEST(WaitsForPeersTest, LastUntilTheLastOfTheGroupHasBegun) {
  const auto waits = WaitsForPeers(
      TwoSums(), {{{.begin_unix = 0,
                    .spans = {At(0, 0, 10, SpanKind::kCompute), At(1, 10, 50)}},
                   {.begin_unix = 5, .spans = {At(1, 35, 45)}},
                   {.begin_unix = 0, .spans = {At(1, 70, 90)}},
                   {.begin_unix = 0, .spans = {At(1, 60, 90)}}}});
  // Ranks 0 and 1 meet, and 2 and 3.
  EXPECT_THAT(waits, ElementsAre(ElementsAre(0, 30), ElementsAre(0),
                                 ElementsAre(0), ElementsAre(10)));
}

TEST(WaitsForPeersTest, BucketsMeetAlongTheirDimToo) {
  const auto waits = WaitsForPeers(TwoSums(), {{{.spans = {At(2, 1, 9)}},
                                                {.spans = {At(2, 2, 9)}},
                                                {.spans = {At(2, 5, 9)}},
                                                {.spans = {At(2, 3, 9)}}}});
  EXPECT_THAT(waits, ElementsAre(ElementsAre(4), ElementsAre(1), ElementsAre(0),
                                 ElementsAre(0)));
}

// As clocks that differ would have it.
TEST(WaitsForPeersTest, NoneIsLongerThanItsCollective) {
  const auto waits = WaitsForPeers(
      TwoSums(),
      {{{.spans = {At(1, 0, 10)}}, {.spans = {At(1, 500, 510)}}, {}, {}}});
  EXPECT_THAT(waits[0], ElementsAre(10));
  EXPECT_THAT(waits[1], ElementsAre(0));
}

}  // namespace
}  // namespace shardplane
