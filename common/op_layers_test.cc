// What the rows of layers and losses say about dims, as text: "!" a dim that
// must be whole, "+" one that is summed over, anything else passes.
#include <string>
#include <vector>

#include "common/op_rows_fixture.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

class OpRules : public testing::TestWithParam<RuleCase> {};

TEST_P(OpRules, NameWhatPasses) {
  EXPECT_EQ(RuleOf(GetParam()), GetParam().rule);
}

const Argument kNone;
const Shape k468 = {4, 6, 8};
Argument Text(const char* text) { return {std::string(text)}; }
Argument Two() { return {ArgumentList{T(), T()}}; }

INSTANTIATE_TEST_SUITE_P(
    Einsum, OpRules,
    testing::Values(RuleCase{"aten.einsum.default",
                             {k468, {4, 1, 8}},
                             {Text("bij,bij->bij"), Two()},
                             "[4, 6, 8], [4, , 8] -> [4, 6, 8]"},
                    RuleCase{"aten.einsum.default",
                             {k468, {4, 5, 8}},
                             {Text("bic,bjc->bij"), Two()},
                             "[4, 6, 8+], [4, 5, 8+] -> [4, 6, 5]"},
                    RuleCase{"aten.einsum.default",
                             {k468, {8, 5}},
                             {Text("...k, kn -> ...n"), Two()},
                             "[4, 6, 8+], [8+, 5] -> [4, 6, 5]"},
                    RuleCase{"aten.einsum.default",
                             {{6, 4}, {4, 3}},
                             {Text("zk,ka"), Two()},
                             "[6, 4+], [4+, 3] -> [3, 6]"},
                    RuleCase{"aten.einsum.default",
                             {{4, 4}},
                             {Text("ii->i"), {ArgumentList{T()}}},
                             "[4!, 4!] -> [4!]"},
                    RuleCase{"aten.einsum.default",
                             {{1, 6, 8}, {4, 8, 5}},
                             {Text("bik,bkj->bij"), Two()},
                             "[, 6, 8+], [4, 8+, 5] -> [4, 6, 5]"},
                    RuleCase{"aten.tensordot.default",
                             {k468, {8, 6, 5}},
                             {T(), T(), Ints({1, 2}), Ints({1, 0})},
                             "[4, 6+, 8+], [8+, 6+, 5] -> [4, 5]"},
                    RuleCase{"aten.outer.default",
                             {{4}, {6}},
                             {T(), T()},
                             "[4], [6] -> [4, 6]"}),
    RuleName);

INSTANTIATE_TEST_SUITE_P(
    Channels, OpRules,
    testing::Values(
        RuleCase{"aten.conv1d.default",
                 {k468, {5, 6, 3}},
                 {T(), T()},
                 "[4, 6+, 8!], [5, 6+, 3!] -> [4, 5, 6!]"},
        RuleCase{"aten.conv1d.default",
                 {k468, {5, 6, 3}, {5}},
                 {T(), T(), T(), Int(2), Int(1)},
                 "[4, 6!, 8!], [5, 6!, 3!], [5] -> [4, 5, 4!]"},
        RuleCase{"aten.conv1d.default",
                 {k468, {5, 6, 3}},
                 {T(), T(), kNone, Int(1), Int(0), Int(2)},
                 "[4, 6+, 8!], [5, 6+, 3!] -> [4, 5, 4!]"},
        RuleCase{"aten.conv1d.default",
                 {k468, {6, 2, 3}},
                 {T(), T(), kNone, Int(1), Int(0), Int(1), Int(3)},
                 "[4, 3*2!, 8!], [3*2, 2!, 3!] -> [4, 3*2, 6!]"},
        RuleCase{"aten.conv2d.padding",
                 {{4, 3, 8, 8}, {5, 3, 3, 3}},
                 {T(), T(), kNone, Int(1), Text("same")},
                 "[4, 3+, 8!, 8!], [5, 3+, 3!, 3!] -> [4, 5, 8!, 8!]"},
        RuleCase{"aten.conv_transpose1d.default",
                 {k468, {6, 5, 3}},
                 {T(), T(), kNone, Int(2)},
                 "[4, 6+, 8!], [6+, 5, 3!] -> [4, 5, 17!]"},
        RuleCase{"aten.batch_norm.default",
                 {k468, {6}, {6}, {6}, {6}},
                 {T(), T(), T(), T(), T(), {false}, {0.1}, {1e-5}, {false}},
                 "[4, 6, 8], [6], [6], [6], [6] -> [4, 6, 8]"},
        RuleCase{
            "aten.batch_norm.default",
            {k468},
            {T(), kNone, kNone, kNone, kNone, {true}, {0.1}, {1e-5}, {false}},
            "[4!, 6, 8!] -> [4!, 6, 8!]"},
        RuleCase{
            "aten.instance_norm.default",
            {k468},
            {T(), kNone, kNone, kNone, kNone, {true}, {0.1}, {1e-5}, {false}},
            "[4, 6, 8!] -> [4, 6, 8!]"},
        RuleCase{"aten.group_norm.default",
                 {k468, {6}, {6}},
                 {T(), Int(3), T(), T()},
                 "[4, 3*2!, 8!], [3*2!], [3*2!] -> [4, 3*2!, 8!]"},
        RuleCase{"aten.prelu.default",
                 {k468, {6}},
                 {T(), T()},
                 "[4, 6, 8], [6] -> [4, 6, 8]"},
        RuleCase{"aten.native_layer_norm.default",
                 {k468, {8}, {8}},
                 {T(), Ints({8}), T(), T(), {1e-5}},
                 "[4, 6, 8!], [8!], [8!] -> [4, 6, 8!], [4, 6, ], [4, 6, ]"}),
    RuleName);

INSTANTIATE_TEST_SUITE_P(
    Losses, OpRules,
    testing::Values(RuleCase{"aten.mse_loss.default",
                             {k468, k468},
                             {T(), T()},
                             "[4+, 6+, 8+], [4+, 6+, 8+] -> []"},
                    RuleCase{"aten.mse_loss.default",
                             {k468, {6, 8}},
                             {T(), T(), Int(0)},
                             "[4, 6, 8], [6, 8] -> [4, 6, 8]"},
                    RuleCase{"aten.binary_cross_entropy_with_logits.default",
                             {{4, 6}, {4, 6}, {6}},
                             {T(), T(), kNone, T(), Int(2)},
                             "[4+, 6+], [4+, 6+], [6+] -> []"},
                    RuleCase{"aten.kl_div.default",
                             {{4, 6}, {4, 6}},
                             {T(), T()},
                             "[4+, 6+], [4+, 6+] -> []",
                             {{"log_target", {true}}}},
                    RuleCase{"aten.nll_loss_nd.default",
                             {{4, 6}, {4}},
                             {T(), T(), kNone, Int(2)},
                             "[4+, 6!], [4+] -> []",
                             {},
                             1},
                    RuleCase{"aten.nll_loss_nd.default",
                             {{4, 6, 3}, {4, 3}},
                             {T(), T(), kNone, Int(0)},
                             "[4, 6!, 3], [4, 3] -> [4, 3]",
                             {},
                             1},
                    RuleCase{"aten.nll_loss_nd.default",
                             {{4, 6}, {4}},
                             {T(), T()},
                             "[4!, 6!], [4!] -> []",
                             {},
                             1}),
    RuleName);

INSTANTIATE_TEST_SUITE_P(
    Shapes, OpRules,
    testing::Values(RuleCase{"aten.repeat.default",
                             {{4, 1, 8}},
                             {T(), Ints({2, 1, 3, 5})},
                             "[4, 1, 8] -> [2!, 4, 3!, 5!*8]"},
                    RuleCase{"aten.expand_as.default",
                             {{6, 1}, k468},
                             {T(), T()},
                             "[6, ], [4, 6, 8] -> [4, 6, 8]"},
                    RuleCase{"aten.view_as.default",
                             {{4, 48}, k468},
                             {T(), T()},
                             "[4, 6*8], [4, 6, 8] -> [4, 6, 8]"},
                    RuleCase{"aten.movedim.int",
                             {k468},
                             {T(), Int(0), Int(-1)},
                             "[4, 6, 8] -> [6, 8, 4]"},
                    RuleCase{"aten.meshgrid.indexing",
                             {{4}, {6}},
                             {Two()},
                             "[4], [6] -> [6, 4], [6, 4]",
                             {{"indexing", Text("xy")}}},
                    RuleCase{"aten.diagonal.default",
                             {k468},
                             {T(), Int(1), Int(1), Int(2)},
                             "[4, 6!, 8!] -> [4, 6!]"},
                    RuleCase{"aten.new_zeros.default",
                             {k468},
                             {T(), Ints({3})},
                             "[4, 6, 8] -> [3]"},
                    RuleCase{"aten.broadcast_tensors.default",
                             {{6, 1}, {8}},
                             {{ArgumentList{T(), T()}}},
                             "[6, ], [8] -> [6, 8], [6, 8]"},
                    RuleCase{"aten.empty_like.default",
                             {k468},
                             {T()},
                             "[4, 6, 8] -> [4, 6, 8]"}),
    RuleName);

TEST(OpLayers, NothingIsLeftUnset) {
  const auto target = [](OpCall call) {
    call.operands.assign(call.target == "aten.empty.memory_format" ? 0 : 1,
                         {DType::kFloat64, {4}});
    const auto op = MakeOpInstance(call);
    EXPECT_TRUE(op.ok()) << op.status();
    return op.ok() ? op->target : "";
  };
  EXPECT_EQ(target({"aten.empty_like.default", {T()}, {}, {}, {}}),
            "aten.zeros_like.default");
  EXPECT_EQ(target({"aten.empty.memory_format", {Ints({4})}, {}, {}, {}}),
            "aten.zeros.default");
  EXPECT_EQ(target({"aten.new_empty.default", {T(), Ints({4})}, {}, {}, {}}),
            "aten.new_zeros.default");
}

TEST(OpLayers, NoiseThatIsOffIsTheIdentity) {
  OpCall call{"aten.alpha_dropout.default",
              {T(), {0.5}, {false}},
              {},
              {{DType::kFloat64, {4}}},
              {}};
  EXPECT_EQ(MakeOpInstance(call)->target, "aten.alias.default");
  call.args[2] = {true};
  const auto op = MakeOpInstance(call);
  EXPECT_EQ(op.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(op.status().message()),
              testing::HasSubstr("draws random numbers"));
}

TEST(OpLayers, StatisticsThatChangeAreRefused) {
  const TensorType x{DType::kFloat64, {4, 6}};
  const TensorType c{DType::kFloat64, {6}};
  const auto op = MakeOpInstance(
      {"aten.batch_norm.default",
       {T(), kNone, kNone, T(), T(), {true}, {0.1}, {1e-5}, {false}},
       {},
       {x, c, c},
       {}});
  EXPECT_EQ(op.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(op.status().message()),
              testing::HasSubstr("got: statistics that a forward changes"));
}

}  // namespace
}  // namespace shardplane
