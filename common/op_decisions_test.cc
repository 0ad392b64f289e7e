#include "common/op_decisions.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

DeviceMesh Mesh() { return *DeviceMesh::Create({{"tp", 2}}); }

Argument Tensor(int id) { return {NodeRef{absl::StrCat(id)}}; }

OperandState State(const Placement& placement = Replicate{}) {
  return {{DType::kFloat64, {4, 6}},
          DTensorSpec{{placement}, {}},
          /*requires_grad=*/true};
}

struct Asked {
  ValueCall call{"aten.add.Tensor", {Tensor(0), Tensor(1)}, {}, {}, "", ""};
  std::vector<OperandState> operands = {State(), State()};
};

TEST(OpDecisionsTest, AreThoseOfTheRowAndTheCheapestCut) {
  OpDecisions decisions(Mesh());
  Asked asked;
  asked.operands[0] = State(Shard{1});
  const auto decision = decisions.Of(asked.call, asked.operands);
  ASSERT_TRUE(decision.ok()) << decision.status();
  EXPECT_EQ((*decision)->op.target, "aten.add.Tensor");
  EXPECT_EQ(ToString((*decision)->sharding.results[0]), "[S(1)]");
}

// Which values they are of, and where in the module, makes no difference.
TEST(OpDecisionsTest, AreSharedByCallsThatAreAlike) {
  OpDecisions decisions(Mesh());
  Asked asked;
  const OpDecision* first = *decisions.Of(asked.call, asked.operands);
  asked.call.args = {Tensor(7), Tensor(7)};
  asked.call.fqn = "layers.1";
  asked.call.name = "again";
  EXPECT_EQ(*decisions.Of(asked.call, asked.operands), first);
  EXPECT_EQ(decisions.size(), 1);
}

struct DifferenceCase {
  const char* name;
  void (*change)(Asked* asked);
};

class Differences : public testing::TestWithParam<DifferenceCase> {};

TEST_P(Differences, AreDecidedApart) {
  OpDecisions decisions(Mesh());
  Asked asked;
  asked.call.kwargs["alpha"] = {0.0};
  ASSERT_TRUE(decisions.Of(asked.call, asked.operands).ok());
  GetParam().change(&asked);
  const auto other = decisions.Of(asked.call, asked.operands);
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(decisions.size(), 2);
  EXPECT_EQ(*decisions.Of(asked.call, asked.operands), *other);
  EXPECT_EQ(decisions.size(), 2);
}

INSTANTIATE_TEST_SUITE_P(
    OfCalls, Differences,
    testing::Values(
        DifferenceCase{"target",
                       [](Asked* a) { a->call.target = "aten.mul.Tensor"; }},
        DifferenceCase{"a_keyword",
                       [](Asked* a) { a->call.kwargs["alpha"] = {2.0}; }},
        DifferenceCase{"a_keyword_less",
                       [](Asked* a) { a->call.kwargs.clear(); }},
        DifferenceCase{
            "a_kind_of_number",
            [](Asked* a) { a->call.kwargs["alpha"] = {int64_t{0}}; }},
        DifferenceCase{"a_sign_of_zero",
                       [](Asked* a) { a->call.kwargs["alpha"] = {-0.0}; }},
        DifferenceCase{"recorded_results",
                       [](Asked* a) {
                         a->call.results = {{DType::kFloat64, {4, 6}}};
                       }},
        DifferenceCase{"a_number_for_a_tensor",
                       [](Asked* a) {
                         a->call.args[1] = {1.0};
                         a->operands.pop_back();
                       }},
        DifferenceCase{"dtypes",
                       [](Asked* a) {
                         for (OperandState& operand : a->operands) {
                           operand.type.dtype = DType::kFloat32;
                         }
                       }},
        DifferenceCase{"a_shape",
                       [](Asked* a) { a->operands[1].type.shape = {6}; }},
        DifferenceCase{"a_placement",
                       [](Asked* a) { a->operands[1] = State(Shard{0}); }},
        DifferenceCase{"a_gradient_asked_for",
                       [](Asked* a) { a->operands[1].requires_grad = false; }},
        DifferenceCase{"a_parameter",
                       [](Asked* a) { a->operands[1].parameter = true; }}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(OpDecisionsTest, TellListsApart) {
  OpDecisions decisions(Mesh());
  const auto view = [](std::vector<int64_t> sizes) {
    Asked asked;
    ArgumentList list;
    for (const int64_t size : sizes) list.push_back({size});
    asked.call.target = "aten.view.default";
    asked.call.args = {Tensor(0), {std::move(list)}};
    asked.operands.pop_back();
    return asked;
  };
  for (const auto& sizes :
       {std::vector<int64_t>{24}, {6, 4}, {4, 6}, {4, 3, 2}}) {
    const Asked asked = view(sizes);
    const auto decision = decisions.Of(asked.call, asked.operands);
    ASSERT_TRUE(decision.ok()) << decision.status();
    EXPECT_EQ((*decision)->op.results[0].type.shape, sizes);
  }
  EXPECT_EQ(decisions.size(), 4);
}

TEST(OpDecisionsTest, RememberNoError) {
  OpDecisions decisions(Mesh());
  Asked asked;
  asked.operands[1].type.shape = {5};
  const auto first = decisions.Of(asked.call, asked.operands);
  EXPECT_EQ(first.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(decisions.Of(asked.call, asked.operands).status(), first.status());
  EXPECT_EQ(decisions.size(), 0);
}

}  // namespace
}  // namespace shardplane
