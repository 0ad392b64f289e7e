#include "common/op_rules.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/op_sharding.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

std::string Text(const DimFactors& dims, const std::vector<Factor>& factors) {
  std::vector<std::string> texts;
  for (const std::vector<int>& dim : dims) {
    std::vector<std::string> parts;
    for (const int f : dim) {
      parts.push_back(absl::StrCat(
          factors[f].size, factors[f].kind == FactorKind::kWhole ? "!" : ""));
    }
    texts.push_back(absl::StrJoin(parts, "*"));
  }
  return absl::StrCat("[", absl::StrJoin(texts, ", "), "]");
}

struct ViewCase {
  const char* name;
  Shape from;
  Shape to;
  const char* expected_from;
  const char* expected_to;
};

class FactorViews : public testing::TestWithParam<ViewCase> {};

TEST_P(FactorViews, NameTheFactorsThatBothShapesHave) {
  const ViewCase& c = GetParam();
  const ViewFactors view = FactorView(c.from, c.to);
  EXPECT_EQ(Text(view.from, view.factors), c.expected_from);
  EXPECT_EQ(Text(view.to, view.factors), c.expected_to);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, FactorViews,
    testing::Values(
        ViewCase{"split", {2, 24}, {2, 6, 4}, "[2, 6*4]", "[2, 6, 4]"},
        ViewCase{"merge", {2, 6, 4}, {12, 4}, "[2, 6, 4]", "[2*6, 4]"},
        ViewCase{"split_and_merge", {6, 4}, {2, 12}, "[2*3, 4]", "[2, 3*4]"},
        ViewCase{"size_one_dims", {1, 6, 1}, {6}, "[, 6, ]", "[6]"},
        ViewCase{"inserted_dim", {6}, {6, 1}, "[6]", "[6, ]"},
        ViewCase{"no_refinement", {4, 6}, {6, 4}, "[24!, 24!]", "[24!, 24!]"},
        ViewCase{"no_refinement_behind_a_common_dim",
                 {5, 4, 6},
                 {5, 6, 4},
                 "[5, 24!, 24!]",
                 "[5, 24!, 24!]"},
        ViewCase{"empty", {0, 3}, {3, 0}, "[0!, 3!]", "[3!, 0!]"},
        ViewCase{"scalar", {1}, {}, "[]", "[]"},
        ViewCase{"same", {3, 5}, {3, 5}, "[3, 5]", "[3, 5]"}),
    [](const auto& info) { return std::string(info.param.name); });

DTensorSpec On(const Placement& p) { return {{p}, {}}; }

Argument Tensor() { return {NodeRef{"t"}}; }

// What one op does with operands that lie in given ways on [tp=2].
struct CutCase {
  const char* name;
  const char* target;
  std::vector<std::pair<Shape, Placement>> operands;
  std::vector<Argument> more_args;
  std::vector<Placement> needs;
  Placement result;
};

class OpCuts : public testing::TestWithParam<CutCase> {};

TEST_P(OpCuts, AreAsTheRowSays) {
  const CutCase& c = GetParam();
  OpCall call;
  call.target = c.target;
  std::vector<OperandState> states;
  for (const auto& [shape, placement] : c.operands) {
    call.args.push_back(Tensor());
    call.operands.push_back({DType::kFloat64, shape});
    states.push_back({call.operands.back(), On(placement), true, false});
  }
  call.args.insert(call.args.end(), c.more_args.begin(), c.more_args.end());
  const auto op = MakeOpInstance(call);
  ASSERT_TRUE(op.ok()) << op.status();
  const OpSharding sharding =
      ChooseSharding(*op, states, *DeviceMesh::Create({{"tp", 2}}));
  for (size_t i = 0; i < c.needs.size(); ++i) {
    EXPECT_EQ(ToString(sharding.operands[i].spec), ToString(On(c.needs[i])))
        << "operand " << i;
  }
  EXPECT_EQ(ToString(sharding.results[0]), ToString(On(c.result)));
}

const Replicate R;
const Partial P;
const Shard S0{0};
const Shard S1{1};

INSTANTIATE_TEST_SUITE_P(
    Rows, OpCuts,
    testing::Values(
        CutCase{"linear_colwise",
                "aten.linear.default",
                {{{8, 10}, R}, {{16, 10}, S0}, {{16}, S0}},
                {},
                {R, S0, S0},
                S1},
        CutCase{"linear_colwise_of_one_output",
                "aten.linear.default",
                {{{8, 10}, R}, {{1, 10}, S0}, {{1}, S0}},
                {},
                {R, S0, S0},
                S1},
        CutCase{"linear_rowwise",
                "aten.linear.default",
                {{{8, 10}, S1}, {{16, 10}, S1}},
                {},
                {S1, S1},
                P},
        CutCase{"linear_batch",
                "aten.linear.default",
                {{{8, 10}, S0}, {{16, 10}, R}, {{16}, R}},
                {},
                {S0, R, R},
                S0},
        CutCase{"mm_of_two_cuts_takes_the_cheaper",
                "aten.mm.default",
                {{{80, 10}, S0}, {{10, 4}, S1}},
                {},
                {S0, R},
                S0},
        CutCase{"relu_of_a_cut",
                "aten.relu.default",
                {{{8, 10}, S1}},
                {},
                {S1},
                S1},
        CutCase{"relu_reduces_first",
                "aten.relu.default",
                {{{8, 10}, P}},
                {},
                {R},
                R},
        CutCase{"sum_of_partials_stays_partial",
                "aten.add.Tensor",
                {{{8, 10}, P}, {{8, 10}, P}},
                {},
                {P, P},
                P},
        CutCase{"partial_and_replicated_reduces",
                "aten.add.Tensor",
                {{{8, 10}, P}, {{8, 10}, R}},
                {},
                {R, R},
                R},
        // The scale's gradient would have to be reduced beside the result.
        CutCase{"partial_times_trained_scale_reduces",
                "aten.mul.Tensor",
                {{{8, 10}, P}, {{10}, R}},
                {},
                {R, R},
                R},
        CutCase{"partial_times_partial_reduces",
                "aten.mul.Tensor",
                {{{8, 10}, P}, {{8, 10}, P}},
                {},
                {R, R},
                R},
        CutCase{"partial_over_scalar_stays",
                "aten.div.Tensor",
                {{{8, 10}, P}},
                {{2.0}},
                {P},
                P},
        CutCase{"scalar_plus_partial_reduces",
                "aten.add.Tensor",
                {{{8, 10}, P}},
                {{2.0}},
                {R},
                R},
        CutCase{"broadcast_operand_stays_whole",
                "aten.mul.Tensor",
                {{{8, 10}, S0}, {{10}, R}},
                {},
                {S0, R},
                S0},
        CutCase{"transpose_moves_the_cut",
                "aten.transpose.int",
                {{{8, 10}, S0}},
                {{int64_t{0}}, {int64_t{1}}},
                {S0},
                S1},
        CutCase{"permute_moves_the_cut",
                "aten.permute.default",
                {{{8, 10, 3}, S0}},
                {{ArgumentList{{int64_t{2}}, {int64_t{0}}, {int64_t{1}}}}},
                {S0},
                S1},
        CutCase{"sum_over_the_cut_is_partial",
                "aten.sum.default",
                {{{8, 10}, S0}},
                {},
                {S0},
                P},
        CutCase{"sum_beside_the_cut_keeps_it",
                "aten.sum.dim_IntList",
                {{{8, 10}, S0}},
                {{ArgumentList{{int64_t{1}}}}},
                {S0},
                S0},
        CutCase{"mean_over_the_cut_is_partial",
                "aten.mean.dim",
                {{{7, 10}, S0}},
                {{ArgumentList{{int64_t{0}}}}},
                {S0},
                P},
        CutCase{"maximum_over_the_cut_gathers",
                "aten.amax.default",
                {{{8, 10}, S0}},
                {{ArgumentList{{int64_t{0}}}}},
                {R},
                R},
        CutCase{"embedding_cut_along_its_width",
                "aten.embedding.default",
                {{{12, 8}, S1}, {{5}, R}},
                {},
                {S1, R},
                S1},
        CutCase{"embedding_of_cut_ids",
                "aten.embedding.default",
                {{{12, 8}, R}, {{5}, S0}},
                {},
                {R, S0},
                S0},
        CutCase{"softmax_along_the_cut_gathers",
                "aten.softmax.int",
                {{{8, 10}, S1}},
                {{int64_t{-1}}},
                {R},
                R},
        CutCase{"softmax_beside_the_cut_keeps_it",
                "aten.softmax.int",
                {{{8, 10}, S0}},
                {{int64_t{1}}},
                {S0},
                S0},
        CutCase{"view_splits_the_cut",
                "aten.view.default",
                {{{3, 8}, S1}},
                {{ArgumentList{{int64_t{3}}, {int64_t{4}}, {int64_t{2}}}}},
                {S1},
                S1},
        CutCase{"view_that_cuts_across_gathers",
                "aten.view.default",
                {{{3, 6}, S1}},
                {{ArgumentList{{int64_t{3}}, {int64_t{3}}, {int64_t{2}}}}},
                {R},
                R},
        CutCase{"expand_keeps_the_cut",
                "aten.expand.default",
                {{{1, 8}, S1}},
                {{ArgumentList{{int64_t{4}}, {int64_t{-1}}}}},
                {S1},
                S1},
        CutCase{"matmul_contracts_the_cut",
                "aten.matmul.default",
                {{{4, 3, 8}, Shard{2}}, {{8, 5}, S0}},
                {},
                {Shard{2}, S0},
                P}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(OpShardingTest, ReplicatedOperandsOfCutWorkVary) {
  OpCall call{"aten.linear.default",
              {Tensor(), Tensor()},
              {},
              {{DType::kFloat64, {8, 10}}, {DType::kFloat64, {16, 10}}},
              {}};
  const auto op = MakeOpInstance(call);
  const std::vector<OperandState> states = {
      {call.operands[0], On(R), true, false},
      {call.operands[1], On(S0), true, true}};
  const OpSharding sharding =
      ChooseSharding(*op, states, *DeviceMesh::Create({{"tp", 2}}));
  EXPECT_TRUE(sharding.operands[0].vary[0]);
  EXPECT_FALSE(sharding.operands[1].vary[0]);
}

TEST(OpShardingTest, PartialPassesThroughAConstantScale) {
  OpCall call{"aten.mul.Tensor",
              {Tensor(), Tensor()},
              {},
              {{DType::kFloat64, {8, 10}}, {DType::kFloat64, {10}}},
              {}};
  const auto op = MakeOpInstance(call);
  const std::vector<OperandState> states = {
      {call.operands[0], On(P), true, false},
      {call.operands[1], On(R), false, false}};
  const OpSharding sharding =
      ChooseSharding(*op, states, *DeviceMesh::Create({{"tp", 2}}));
  EXPECT_EQ(ToString(sharding.results[0]), "[P(sum)]");
  EXPECT_TRUE(sharding.partial);
}

TEST(OpRulesTest, BiasIsAnotherTermThatLacksTheReducedFactor) {
  const auto op = MakeOpInstance({"aten.linear.default",
                                  {Tensor(), Tensor(), Tensor()},
                                  {},
                                  {{DType::kFloat64, {2, 8, 10}},
                                   {DType::kFloat64, {16, 10}},
                                   {DType::kFloat64, {16}}},
                                  {}});
  ASSERT_TRUE(op.ok());
  EXPECT_EQ(op->lowering, Lowering::kAddTerm);
  EXPECT_EQ(op->added_operand, 2);
  EXPECT_EQ(op->operands[0].term, 0);
  EXPECT_EQ(op->operands[2].term, 1);
  EXPECT_EQ(op->results[0].type.shape, (Shape{2, 8, 16}));
  EXPECT_EQ(op->flops, 2 * 2 * 8 * 10 * 16);
}

// Reduction 0 is none, 1 (the default) the mean, 2 the sum.
TEST(OpRulesTest, ALossOverClassesSaysItsResultWhereNoneIsRecorded) {
  const auto shape_of = [](const Shape& scores,
                           std::vector<Argument> reduction) {
    Shape target = scores;
    target.erase(target.begin() + (scores.size() > 1 ? 1 : 0));
    OpCall call{"aten.cross_entropy_loss.default",
                {Tensor(), Tensor(), Argument{}},
                {},
                {{DType::kFloat32, scores}, {DType::kInt64, target}},
                {}};
    call.args.insert(call.args.end(), reduction.begin(), reduction.end());
    const auto op = MakeOpInstance(call);
    EXPECT_TRUE(op.ok()) << op.status();
    return op.ok() ? op->results[0].type : TensorType{};
  };
  const TensorType scalar{DType::kFloat32, {}};
  const Argument none = {int64_t{0}};
  EXPECT_EQ(shape_of({8, 10}, {}), scalar);
  EXPECT_EQ(shape_of({8, 10}, {{int64_t{2}}}), scalar);
  EXPECT_EQ(shape_of({8, 10, 3}, {none}),
            (TensorType{DType::kFloat32, {8, 3}}));
  EXPECT_EQ(shape_of({10}, {none}), scalar);
}

TEST(OpRulesTest, RecordedResultThatDiffersIsRefused) {
  const auto op = MakeOpInstance({"aten.relu.default",
                                  {Tensor()},
                                  {},
                                  {{DType::kFloat64, {8, 10}}},
                                  {{DType::kFloat64, {8, 11}}}});
  EXPECT_EQ(op.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(op.status().message()),
              testing::HasSubstr("got: f64[8, 11] recorded"));
}

}  // namespace
}  // namespace shardplane
