#include "proto/convert/report.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "proto/convert/testing.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

TEST(ReportTest, IsWrittenWhole) {
  const TensorType type{DType::kFloat32, {16, 8}};
  const DTensorSpec spec{{Replicate{}, Shard{0}}, {}};
  const Report report{
      .assignments = {{.fqn = "net1",
                       .module_type = "torch.nn.Linear",
                       .style = "ColwiseParallel",
                       .pattern = "net*",
                       .parameters = {{"weight", type, spec}},
                       .input_layouts = "R",
                       .output_layouts = "S(-1)"}},
      .diagnostics = {{Severity::kWarning, "PATTERN_WITHOUT_MATCH",
                       "no module matches", "net1", "x"},
                      {Severity::kNote, "TIED", "tied", "", ""}},
      .collectives = {{"forward", "all_reduce", 1, 320}},
      .memory = {{1, 2, 3, 4, 5, 6, {{"Adam", 7}}}},
      .flops_per_rank = 99,
      .parameters = {{"net1.weight", type, spec}},
      .program_text = "program",
      .module_collectives = {{"net1", "backward", "all_reduce", "tp", 2, 640,
                              "gradient of the input of net1"}},
      .flops = {{1, {10, 20}}}};
  const auto expected = ParseText<pb::Report>(R"pb(
    assignments {
      fqn: "net1"
      style: "ColwiseParallel"
      pattern: "net*"
      module_type: "torch.nn.Linear"
      input_layouts: "R"
      output_layouts: "S(-1)"
      parameters {
        name: "weight"
        text: "[R, S(0)]"
        type {
          dtype: DTYPE_FLOAT32
          shape: [ 16, 8 ]
        }
        spec {
          placements { replicate {} }
          placements { shard {} }
        }
      }
    }
    diagnostics {
      severity: SEVERITY_WARNING
      reason: "PATTERN_WITHOUT_MATCH"
      message: "no module matches"
      fqn: "net1"
      pattern: "x"
    }
    diagnostics { severity: SEVERITY_NOTE reason: "TIED" message: "tied" }
    collectives { phase: "forward" kind: "all_reduce" count: 1 bytes: 320 }
    memory {
      rank: 1
      parameter_bytes: 2
      gradient_bytes: 3
      buffer_bytes: 4
      peak_activation_bytes: 5
      peak_run_bytes: 6
      optimizer_state { optimizer: "Adam" bytes: 7 }
    }
    flops_per_rank: 99
    parameters {
      name: "net1.weight"
      text: "[R, S(0)]"
      type {
        dtype: DTYPE_FLOAT32
        shape: [ 16, 8 ]
      }
      spec {
        placements { replicate {} }
        placements { shard {} }
      }
    }
    program_text: "program"
    module_collectives {
      fqn: "net1"
      phase: "backward"
      kind: "all_reduce"
      mesh_dim: "tp"
      count: 2
      bytes: 640
      why: "gradient of the input of net1"
    }
    flops { rank: 1 forward: 10 backward: 20 })pb");
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(
      ToProto(report), expected))
      << ToProto(report).DebugString();
}

TEST(ReportTest, CountsComeBack) {
  const std::vector<CollectiveCount> counts{{"forward", "all_reduce", 1, 320},
                                            {"backward", "all_gather", 2, 0}};
  const auto back = CountsFromProto(CountsToProto(counts), "collectives");
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(*back, counts);
}

TEST(ReportTest, BadCountsAreRefused) {
  const std::vector<BadMessage> table{
      {"no phase", "collectives { kind: 'a' }", "collectives[0].phase"},
      {"no kind", "collectives { phase: 'a' }", "collectives[0].kind"},
      {"negative count", "collectives { phase: 'a' kind: 'b' count: -1 }",
       "collectives[0].count"},
      {"negative bytes", "collectives { phase: 'a' kind: 'b' bytes: -1 }",
       "collectives[0].bytes"},
  };
  for (const BadMessage& bad : table) {
    SCOPED_TRACE(bad.name);
    EXPECT_THAT(CountsFromProto(ParseText<pb::Report>(bad.text).collectives(),
                                "collectives")
                    .status(),
                IsFieldError(bad.code, bad.field));
  }
}

}  // namespace
}  // namespace shardplane
