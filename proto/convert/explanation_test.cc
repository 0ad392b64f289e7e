#include "proto/convert/explanation.h"

#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "proto/convert/testing.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

TEST(ExplanationTest, IsWrittenWhole) {
  const Explanation explanation{
      .fqn = "net1.weight",
      .kind = Explanation::Kind::kParameter,
      .module_type = "torch.nn.Linear",
      .matches = {{"net*",
                   "ColwiseParallel(R -> S(-1))",
                   "tp",
                   MatchOutcome::kApplied,
                   {"weight [S(0)]"}},
                  {"net1",
                   "ColwiseParallel(R -> S(-1))",
                   "tp",
                   MatchOutcome::kCountedOnce,
                   {}},
                  {"", "SequenceParallel(1)", "tp", MatchOutcome::kPartly, {}}},
      .tensors = {{.fqn = "net1.weight",
                   .type = {DType::kFloat32, {5, 8}},
                   .spec = {{Shard{0}}, {}},
                   .alias_of = "first",
                   .requires_grad = true,
                   .parts = {{1, {{Extent{3, 2}}, {Extent{0, 8}}}, 64}}}},
      .bytes = {96, 64},
      .collectives = {{"deployments/d/programs/p",
                       "backward",
                       "all_reduce",
                       "tp",
                       320,
                       "gradient",
                       {"net1"},
                       "f32[8, 10]"}},
      .diagnostics = {{Severity::kNote, "TIED", "tied", "net1", "net*"}}};
  const auto expected = ParseText<pb::Explanation>(R"pb(
    fqn: "net1.weight"
    kind: KIND_PARAMETER
    module_type: "torch.nn.Linear"
    matches {
      pattern: "net*"
      style: "ColwiseParallel(R -> S(-1))"
      mesh_dim: "tp"
      outcome: OUTCOME_APPLIED
      contributed: "weight [S(0)]"
    }
    matches {
      pattern: "net1"
      style: "ColwiseParallel(R -> S(-1))"
      mesh_dim: "tp"
      outcome: OUTCOME_COUNTED_ONCE
    }
    matches {
      style: "SequenceParallel(1)"
      mesh_dim: "tp"
      outcome: OUTCOME_PARTLY
    }
    tensors {
      fqn: "net1.weight"
      type {
        dtype: DTYPE_FLOAT32
        shape: [ 5, 8 ]
      }
      spec { placements { shard {} } }
      text: "[S(0)]"
      alias_of: "first"
      requires_grad: true
      parts {
        rank: 1
        offsets: [ 3, 0 ]
        sizes: [ 2, 8 ]
        bytes: 64
      }
    }
    bytes { rank: 0 bytes: 96 }
    bytes { rank: 1 bytes: 64 }
    collectives {
      program: "deployments/d/programs/p"
      phase: "backward"
      kind: "all_reduce"
      mesh_dim: "tp"
      bytes: 320
      why: "gradient"
      modules: "net1"
      tensor: "f32[8, 10]"
    }
    diagnostics {
      severity: SEVERITY_NOTE
      reason: "TIED"
      message: "tied"
      fqn: "net1"
      pattern: "net*"
    })pb");
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(
      ToProto(explanation), expected))
      << ToProto(explanation).DebugString();
}

TEST(ExplanationTest, KindsHaveTheirNames) {
  Explanation explanation;
  EXPECT_EQ(ToProto(explanation).kind(), pb::Explanation::KIND_MODULE);
  explanation.kind = Explanation::Kind::kBuffer;
  EXPECT_EQ(ToProto(explanation).kind(), pb::Explanation::KIND_BUFFER);
}

}  // namespace
}  // namespace shardplane
