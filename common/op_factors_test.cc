// What each row says about dims, as text: "!" a dim that must be whole, "+" one
// that is summed over, anything else passes.
#include <string>
#include <vector>

#include "common/op_rows_fixture.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

constexpr DType kI64 = DType::kInt64;

class OpRules : public testing::TestWithParam<RuleCase> {};

TEST_P(OpRules, NameWhatPasses) {
  EXPECT_EQ(RuleOf(GetParam()), GetParam().rule);
}

const Argument kNone;
const Shape k468 = {4, 6, 8};

INSTANTIATE_TEST_SUITE_P(
    Along, OpRules,
    testing::Values(
        RuleCase{"aten.cumsum.default",
                 {k468},
                 {T(), Int(1)},
                 "[4, 6!, 8] -> [4, 6!, 8]"},
        RuleCase{"aten.flip.default",
                 {k468},
                 {T(), Ints({0, -1})},
                 "[4!, 6, 8!] -> [4!, 6, 8!]"},
        RuleCase{"aten.roll.default",
                 {k468},
                 {T(), Ints({2}), Ints({1})},
                 "[4, 6!, 8] -> [4, 6!, 8]"},
        RuleCase{"aten.roll.default",
                 {k468},
                 {T(), Ints({2})},
                 "[4!, 6!, 8!] -> [4!, 6!, 8!]"},
        RuleCase{"aten.sort.default",
                 {k468},
                 {T()},
                 "[4, 6, 8!] -> [4, 6, 8!], [4, 6, 8!]"},
        RuleCase{"aten.sort.stable",
                 {k468},
                 {T()},
                 "[4!, 6, 8] -> [4!, 6, 8], [4!, 6, 8]",
                 {{"stable", {true}}, {"dim", Int(0)}}},
        RuleCase{"aten.max.dim",
                 {k468},
                 {T(), Int(1)},
                 "[4, 6!, 8] -> [4, 8], [4, 8]"},
        RuleCase{"aten.min.dim",
                 {k468},
                 {T(), Int(1), {true}},
                 "[4, 6!, 8] -> [4, , 8], [4, , 8]"},
        RuleCase{"aten.argmax.default", {k468}, {T()}, "[4!, 6!, 8!] -> []"},
        RuleCase{"aten.var.correction",
                 {k468},
                 {T(), Ints({0, 2})},
                 "[4!, 6, 8!] -> [, 6, ]",
                 {{"correction", Int(0)}, {"keepdim", {true}}}},
        RuleCase{"aten.var_mean.correction",
                 {k468},
                 {T()},
                 "[4!, 6!, 8!] -> [], []"},
        RuleCase{"aten.linalg_vector_norm.default",
                 {k468},
                 {T(), Int(2), Ints({-1}), {true}},
                 "[4, 6, 8!] -> [4, 6, ]"},
        RuleCase{"aten.cosine_similarity.default",
                 {k468, {4, 6, 8}},
                 {T(), T(), Int(2)},
                 "[4, 6, 8!], [4, 6, 8!] -> [4, 6]"},
        RuleCase{"aten.topk.default",
                 {k468},
                 {T(), Int(3), Int(1)},
                 "[4, 6!, 8] -> [4, 3!, 8], [4, 3!, 8]"},
        RuleCase{"aten.diff.default",
                 {k468},
                 {T(), Int(2)},
                 "[4, 6, 8!] -> [4, 6, 6!]"},
        RuleCase{"aten.diff.default",
                 {k468, {1, 6, 8}},
                 {T(), Int(1), Int(0), T()},
                 "[4!, 6, 8], [1!, 6, 8] -> [4!, 6, 8]"},
        RuleCase{"aten.pad.default",
                 {k468},
                 {T(), Ints({0, 0, 2, 1})},
                 "[4, 6!, 8] -> [4, 9!, 8]"},
        RuleCase{"aten.glu.default", {k468}, {T()}, "[4, 6, 8!] -> [4, 6, 4!]"},
        RuleCase{"aten.unfold.default",
                 {k468},
                 {T(), Int(2), Int(4), Int(2)},
                 "[4, 6, 8!] -> [4, 6, 3!, 4!]"}),
    RuleName);

INSTANTIATE_TEST_SUITE_P(
    Picking, OpRules,
    testing::Values(RuleCase{"aten.index.Tensor",
                             {k468, {5, 3}},
                             {T(), {ArgumentList{kNone, T()}}},
                             "[4, 6!, 8], [5, 3] -> [4, 5, 3, 8]",
                             {},
                             1},
                    RuleCase{"aten.index.Tensor",
                             {k468, {5, 1}, {3}},
                             {T(), {ArgumentList{T(), kNone, T()}}},
                             "[4!, 6, 8!], [5, ], [3] -> [5, 3, 6]",
                             {},
                             1},
                    RuleCase{"aten.index_put.default",
                             {k468, {3}, {3, 8}},
                             {T(), {ArgumentList{kNone, T()}}, T()},
                             "[4, 6!, 8], [3!], [3!, 8] -> [4, 6!, 8]",
                             {},
                             1},
                    RuleCase{"aten.gather.default",
                             {k468, {4, 6, 3}},
                             {T(), Int(2), T()},
                             "[4, 6, 8!], [4, 6, 3] -> [4, 6, 3]",
                             {},
                             1},
                    RuleCase{"aten.gather.default",
                             {k468, {2, 6, 3}},
                             {T(), Int(2), T()},
                             "[4!, 6, 8!], [2!, 6, 3] -> [2!, 6, 3]",
                             {},
                             1},
                    RuleCase{"aten.take_along_dim.default",
                             {k468, {4, 6, 3}},
                             {T(), T(), Int(-1)},
                             "[4, 6, 8!], [4, 6, 3] -> [4, 6, 3]",
                             {},
                             1},
                    RuleCase{"aten.scatter_add.default",
                             {{6, 8}, {6, 4}, {6, 4}},
                             {T(), Int(1), T(), T()},
                             "[6, 8!], [6, 4!], [6, 4!] -> [6, 8!]",
                             {},
                             1},
                    RuleCase{"aten.scatter.value",
                             {{6, 8}, {5, 4}},
                             {T(), Int(1), T(), {0.5}},
                             "[6!, 8!], [5!, 4!] -> [6!, 8!]",
                             {},
                             1},
                    RuleCase{"aten.index_select.default",
                             {k468, {5}},
                             {T(), Int(1), T()},
                             "[4, 6!, 8], [5] -> [4, 5, 8]",
                             {},
                             1},
                    RuleCase{"aten.index_add.default",
                             {k468, {3}, {4, 3, 8}},
                             {T(), Int(1), T(), T()},
                             "[4, 6!, 8], [3!], [4, 3!, 8] -> [4, 6!, 8]",
                             {},
                             1},
                    RuleCase{"aten.select_scatter.default",
                             {k468, {4, 8}},
                             {T(), T(), Int(1), Int(0)},
                             "[4, 6!, 8], [4, 8] -> [4, 6!, 8]"},
                    RuleCase{"aten.slice_scatter.default",
                             {k468, {4, 2, 8}},
                             {T(), T(), Int(1), Int(0), Int(2)},
                             "[4, 6!, 8], [4, 2!, 8] -> [4, 6!, 8]"},
                    RuleCase{"aten.one_hot.default",
                             {{4, 6}},
                             {T(), Int(3)},
                             "[4, 6] -> [4, 6, 3!]",
                             {},
                             0},
                    RuleCase{"aten.histc.default",
                             {{4, 6}},
                             {T(), Int(3), {0.0}, {1.0}},
                             "[4+, 6+] -> [3!]"},
                    RuleCase{"aten.histc.default",
                             {{4, 6}},
                             {T(), Int(3)},
                             "[4!, 6!] -> [3!]"},
                    RuleCase{"aten.bucketize.Tensor",
                             {k468, {3}},
                             {T(), T()},
                             "[4, 6, 8], [3!] -> [4, 6, 8]"}),
    RuleName);

TEST(OpRefusals, SayWhatIsLacking) {
  const auto message = [](OpCall call, std::vector<TensorType> operands) {
    call.operands = std::move(operands);
    const auto op = MakeOpInstance(call);
    EXPECT_EQ(op.status().code(), absl::StatusCode::kUnimplemented);
    return std::string(op.status().message());
  };
  using testing::HasSubstr;
  const TensorType x{DType::kFloat64, {4, 6}};
  EXPECT_THAT(message({"aten.bernoulli.p", {T(), {0.5}}}, {x}),
              HasSubstr("draws random numbers, which would differ by rank"));
  EXPECT_THAT(message({"aten.nonzero.default", {T()}}, {x}),
              HasSubstr("depends on values"));
  EXPECT_THAT(message({"aten.index.Tensor", {T(), {ArgumentList{T()}}}},
                      {x, {DType::kBool, {4}}}),
              HasSubstr("but for one option; got: a mask as index, bool[4]"));
  EXPECT_THAT(message({"aten.one_hot.default", {T()}}, {{kI64, {4}}}),
              HasSubstr("got: no number of classes"));
  EXPECT_THAT(message({"mine.op.default", {T()}}, {x}),
              HasSubstr("has no sharding rule and is not known to be safe"));
}

}  // namespace
}  // namespace shardplane
