#include "common/timeline.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ShardedProgram Program() {
  ShardedProgram p;
  p.mesh = *DeviceMesh::Create({{"dp", 1}, {"tp", 2}});
  for (int i = 0; i < 6; ++i) {
    p.values.push_back(
        {"", {DType::kFloat32, {3, 2}}, DTensorSpec::Replicated(2)});
  }
  p.segments = {{.ops = {{.target = "aten.a", .fqn = "net.up"},
                         {.target = "aten.b", .fqn = "net.down"}}},
                {}};
  const auto all_reduce = [](int mesh_dim) {
    return Redistribute{.kind = RedistributeKind::kAllReduce,
                        .mesh_dim = mesh_dim,
                        .input = 0,
                        .output = 1};
  };
  p.instructions = {
      RunSegment{0},
      all_reduce(0),
      all_reduce(1),
      Bucket{.mesh_dim = 1, .inputs = {0, 1}, .outputs = {2, 3}, .async = true},
      RunSegmentBackward{0, {}, {}},
      RunWeightGradients{0, {}, {}},
      Wait{{2, 3}},
      Reshard{{2}},
      Accumulate{{2}, 4},
      Ones{5},
      Free{{2}}};
  p.backward_begin = 3;
  return p;
}

TEST(TimelineTest, InstructionsAreSummarized) {
  using Of = InstructionSummary;
  const SpanKind compute = SpanKind::kCompute;
  EXPECT_THAT(
      SummarizeInstructions(Program(), {0, 1}),
      ElementsAre(Of{compute, "segment 0", "net"},
                  Of{SpanKind::kLocal, "all_reduce[dp]"},
                  Of{SpanKind::kCollective, "all_reduce[tp]", "", 24},
                  Of{SpanKind::kStart, "all_reduce[tp]", "", 48},
                  Of{compute, "backward of 0", "net"},
                  Of{compute, "weight gradients of 0", "net"},
                  Of{SpanKind::kWait, "wait", "", 0, 3},
                  Of{SpanKind::kLocal, "reshard"},
                  Of{SpanKind::kLocal, "accumulate"},
                  Of{SpanKind::kLocal, "ones"}, Of{SpanKind::kLocal, "free"}));
}

TEST(TimelineTest, SpansGetTheirInstructions) {
  const auto timeline =
      Describe({.begin_unix = 7, .spans = {{2, 10, 5}}}, Program(), {0, 0});
  ASSERT_THAT(timeline, IsOk());
  EXPECT_EQ(timeline->begin_unix, 7);
  ASSERT_EQ(timeline->spans.size(), 1);
  EXPECT_EQ(timeline->spans[0].when, (InstructionSpan{2, 10, 5}));
  EXPECT_EQ(timeline->spans[0].what.name, "all_reduce[tp]");
  EXPECT_THAT(Describe({.spans = {{11, 0, 0}}}, Program(), {0, 0}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("below 11; got: 11")));
}

}  // namespace
}  // namespace shardplane
