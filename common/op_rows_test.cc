// Rows that Transformers need: what is cut, and how, on [tp=2].
#include <string>
#include <utility>
#include <vector>

#include "common/op_rows_fixture.h"
#include "common/op_rules.h"
#include "common/op_sharding.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

const Replicate R;
const Partial P;
const Shard S0{0};
const Shard S1{1};
const Shard S2{2};

DTensorSpec On(const Placement& p) { return {{p}, {}}; }
struct RowCase {
  const char* name;
  const char* target;
  std::vector<std::pair<Shape, Placement>> operands;
  std::vector<Argument> args;
  absl::btree_map<std::string, Argument> kwargs;
  std::vector<Placement> needs;
  std::vector<Placement> results;
  std::vector<Shape> shapes;  // of the results
};

class OpRows : public testing::TestWithParam<RowCase> {};

TEST_P(OpRows, CutAsTheyShould) {
  const RowCase& c = GetParam();
  OpCall call{c.target, c.args, c.kwargs, {}, {}};
  std::vector<OperandState> states;
  for (const auto& [shape, placement] : c.operands) {
    call.operands.push_back({DType::kFloat64, shape});
    states.push_back({call.operands.back(), On(placement), true, false});
  }
  const auto op = MakeOpInstance(call);
  ASSERT_TRUE(op.ok()) << op.status();
  EXPECT_TRUE(op->has_row);
  const OpSharding sharding =
      ChooseSharding(*op, states, *DeviceMesh::Create({{"tp", 2}}));
  for (size_t i = 0; i < c.needs.size(); ++i) {
    EXPECT_EQ(ToString(sharding.operands[i].spec), ToString(On(c.needs[i])))
        << "operand " << i;
  }
  ASSERT_EQ(sharding.results.size(), c.results.size());
  for (size_t i = 0; i < c.results.size(); ++i) {
    EXPECT_EQ(ToString(sharding.results[i]), ToString(On(c.results[i])));
    EXPECT_EQ(op->results[i].type.shape, c.shapes[i]);
  }
}

std::string Name(const testing::TestParamInfo<RowCase>& info) {
  return info.param.name;
}

constexpr char kEmbedding[] = "aten.embedding.default";
constexpr char kLayerNorm[] = "aten.layer_norm.default";
constexpr char kAttention[] = "aten.scaled_dot_product_attention.default";

INSTANTIATE_TEST_SUITE_P(
    Layers, OpRows,
    testing::Values(RowCase{"embedding_with_a_cut_vocabulary_is_partial",
                            kEmbedding,
                            {{{12, 8}, S0}, {{5}, R}},
                            {T(), T()},
                            {},
                            {S0, R},
                            {P},
                            {{5, 8}}},
                    RowCase{"layer_norm_of_a_cut_sequence_keeps_it",
                            kLayerNorm,
                            {{{4, 6, 8}, S1}, {{8}, R}, {{8}, R}},
                            {T(), Ints({8}), T(), T()},
                            {},
                            {S1, R, R},
                            {S1},
                            {{4, 6, 8}}},
                    RowCase{"layer_norm_of_a_cut_width_gathers",
                            kLayerNorm,
                            {{{4, 6, 8}, S2}, {{8}, R}, {{8}, R}},
                            {T(), Ints({8}), T(), T()},
                            {},
                            {R, R, R},
                            {R},
                            {{4, 6, 8}}},
                    RowCase{"layer_norm_of_a_partial_reduces",
                            kLayerNorm,
                            {{{4, 8}, P}},
                            {T(), Ints({8})},
                            {},
                            {R},
                            {R},
                            {{4, 8}}},
                    RowCase{"rms_norm_over_two_dims",
                            "aten.rms_norm.default",
                            {{{4, 6, 8}, S0}, {{6, 8}, R}},
                            {T(), Ints({6, 8}), T()},
                            {},
                            {S0, R},
                            {S0},
                            {{4, 6, 8}}}),
    Name);

INSTANTIATE_TEST_SUITE_P(
    Attention, OpRows,
    testing::Values(
        RowCase{"heads",
                kAttention,
                {{{2, 4, 6, 8}, S1}, {{2, 4, 6, 8}, S1}, {{2, 4, 6, 8}, S1}},
                {T(), T(), T()},
                {},
                {S1, S1, S1},
                {S1},
                {{2, 4, 6, 8}}},
        RowCase{"one_cut_of_heads_slices_the_others",
                kAttention,
                {{{2, 4, 6, 8}, S1}, {{2, 4, 6, 8}, R}, {{2, 4, 6, 8}, R}},
                {T(), T(), T()},
                {},
                {S1, S1, S1},
                {S1},
                {{2, 4, 6, 8}}},
        RowCase{"mask_with_heads_is_cut_with_them",
                kAttention,
                {{{2, 4, 6, 8}, S1},
                 {{2, 4, 6, 8}, S1},
                 {{2, 4, 6, 8}, S1},
                 {{4, 6, 6}, R}},
                {T(), T(), T(), T()},
                {},
                {S1, S1, S1, S0},
                {S1},
                {{2, 4, 6, 8}}},
        RowCase{"mask_alike_for_heads_stays_whole",
                kAttention,
                {{{2, 4, 6, 8}, S1},
                 {{2, 4, 6, 8}, S1},
                 {{2, 4, 6, 8}, S1},
                 {{2, 1, 6, 6}, R}},
                {T(), T(), T(), T()},
                {},
                {S1, S1, S1, R},
                {S1},
                {{2, 4, 6, 8}}},
        RowCase{"grouped_queries_follow_their_keys",
                kAttention,
                {{{2, 8, 6, 8}, S1}, {{2, 4, 6, 8}, S1}, {{2, 4, 6, 8}, S1}},
                {T(), T(), T()},
                {{"enable_gqa", {true}}},
                {S1, S1, S1},
                {S1},
                {{2, 8, 6, 8}}},
        RowCase{"queries_of_a_cut_sequence",
                kAttention,
                {{{2, 4, 6, 8}, S2}, {{2, 4, 6, 8}, R}, {{2, 4, 6, 8}, R}},
                {T(), T(), T()},
                {},
                {S2, R, R},
                {S2},
                {{2, 4, 6, 8}}},
        RowCase{"causal_queries_are_gathered",
                kAttention,
                {{{2, 4, 6, 8}, S2}, {{2, 4, 6, 8}, R}, {{2, 4, 6, 8}, R}},
                {T(), T(), T(), {}, {0.0}, {true}},
                {},
                {R, R, R},
                {R},
                {{2, 4, 6, 8}}},
        RowCase{"keys_of_a_cut_sequence_are_gathered",
                kAttention,
                {{{2, 4, 6, 8}, R}, {{2, 4, 6, 8}, S2}, {{2, 4, 6, 8}, S2}},
                {T(), T(), T()},
                {},
                {R, R, R},
                {R},
                {{2, 4, 6, 8}}},
        RowCase{"width_of_values_and_another_of_queries",
                kAttention,
                {{{4, 6, 8}, S0}, {{4, 5, 8}, S0}, {{4, 5, 3}, S0}},
                {T(), T(), T()},
                {},
                {S0, S0, S0},
                {S0},
                {{4, 6, 3}}}),
    Name);

INSTANTIATE_TEST_SUITE_P(
    Indices, OpRows,
    testing::Values(RowCase{"that_are_cut_pick_rows",
                            "aten.index.Tensor",
                            {{{6, 8}, R}, {{4}, S0}},
                            {T(), {ArgumentList{T()}}},
                            {},
                            {R, S0},
                            {S0},
                            {{4, 8}}},
                    RowCase{"that_are_cut_are_gathered_to_write",
                            "aten.index_put.default",
                            {{{6, 8}, R}, {{4}, S0}, {{4, 8}, S0}},
                            {T(), {ArgumentList{T()}}, T()},
                            {},
                            {R, R, R},
                            {R},
                            {{6, 8}}},
                    RowCase{"write_columns_where_they_are",
                            "aten.index_put.default",
                            {{{6, 8}, S1}, {{4}, R}, {{4, 8}, S1}},
                            {T(), {ArgumentList{T()}}, T()},
                            {},
                            {S1, R, S1},
                            {S1},
                            {{6, 8}}}),
    Name);

INSTANTIATE_TEST_SUITE_P(
    Indexing, OpRows,
    testing::Values(
        RowCase{"cat_beside_the_cut",
                "aten.cat.default",
                {{{4, 3}, S0}, {{4, 5}, S0}},
                {{ArgumentList{T(), T()}}, Int(-1)},
                {},
                {S0, S0},
                {S0},
                {{4, 8}}},
        RowCase{"cat_along_the_cut_gathers",
                "aten.cat.default",
                {{{4, 3}, S0}, {{2, 3}, S0}},
                {{ArgumentList{T(), T()}}},
                {},
                {R, R},
                {R},
                {{6, 3}}},
        RowCase{"cat_of_partials_stays_partial",
                "aten.cat.default",
                {{{4, 3}, P}, {{4, 5}, P}},
                {{ArgumentList{T(), T()}}, Int(1)},
                {},
                {P, P},
                {P},
                {{4, 8}}},
        RowCase{"cat_of_a_partial_and_a_whole_reduces",
                "aten.cat.default",
                {{{4, 3}, P}, {{4, 5}, R}},
                {{ArgumentList{T(), T()}}, Int(1)},
                {},
                {R, R},
                {R},
                {{4, 8}}},
        RowCase{"stack_moves_the_cut",
                "aten.stack.default",
                {{{4, 3}, S0}, {{4, 3}, S0}},
                {{ArgumentList{T(), T()}}, Int(0)},
                {},
                {S0, S0},
                {S1},
                {{2, 4, 3}}},
        RowCase{"split_beside_the_cut",
                "aten.split.Tensor",
                {{{4, 7}, S0}},
                {T(), Int(3), Int(1)},
                {},
                {S0},
                {S0, S0, S0},
                {{4, 3}, {4, 3}, {4, 1}}},
        RowCase{"split_by_sizes_along_the_cut_gathers",
                "aten.split_with_sizes.default",
                {{{6, 2}, S0}},
                {T(), Ints({2, 4})},
                {},
                {R},
                {R, R},
                {{2, 2}, {4, 2}}},
        RowCase{"chunk",
                "aten.chunk.default",
                {{{4, 5}, S0}},
                {T(), Int(2), Int(-1)},
                {},
                {S0},
                {S0, S0},
                {{4, 3}, {4, 2}}},
        RowCase{"unbind_before_the_cut",
                "aten.unbind.int",
                {{{2, 4}, S1}},
                {T()},
                {},
                {S1},
                {S0, S0},
                {{4}, {4}}},
        RowCase{"select_before_the_cut",
                "aten.select.int",
                {{{2, 4, 3}, S1}},
                {T(), Int(0), Int(-1)},
                {},
                {S1},
                {S0},
                {{4, 3}}},
        RowCase{"select_along_the_cut_gathers",
                "aten.select.int",
                {{{4, 3}, S0}},
                {T(), Int(0), Int(2)},
                {},
                {R},
                {R},
                {{3}}},
        RowCase{"slice_beside_the_cut",
                "aten.slice.Tensor",
                {{{4, 9}, S0}},
                {T(), Int(1), Int(1), Int(8), Int(3)},
                {},
                {S0},
                {S0},
                {{4, 3}}},
        RowCase{"narrow_beside_the_cut",
                "aten.narrow.default",
                {{{4, 9}, S0}},
                {T(), Int(1), Int(-7), Int(3)},
                {},
                {S0},
                {S0},
                {{4, 3}}},
        RowCase{"slice_of_all_along_the_cut_keeps_it",
                "aten.slice.Tensor",
                {{{4, 9}, S0}},
                {T(), Int(0), Int(0), Int(9223372036854775807)},
                {},
                {S0},
                {S0},
                {{4, 9}}},
        RowCase{"slice_along_the_cut_gathers",
                "aten.slice.Tensor",
                {{{4, 9}, S0}},
                {T(), Int(0), Int(-3)},
                {},
                {R},
                {R},
                {{3, 9}}},
        RowCase{"repeated_heads_stay_cut",
                "aten.repeat_interleave.self_int",
                {{{2, 4, 3}, S1}},
                {T(), Int(3), Int(1)},
                {},
                {S1},
                {S1},
                {{2, 12, 3}}},
        RowCase{"triangle_keeps_a_cut_batch",
                "aten.tril.default",
                {{{4, 5, 5}, S0}},
                {T()},
                {},
                {S0},
                {S0},
                {{4, 5, 5}}},
        RowCase{
            "arange", "aten.arange.default", {}, {Int(7)}, {}, {}, {R}, {{7}}}),
    Name);

TEST(OpRowsTest, DropoutThatIsOffIsTheIdentity) {
  for (const bool training : {false, true}) {
    const OpCall call{"aten.dropout.default",
                      {T(), {training ? 0.0 : 0.5}, {training}},
                      {},
                      {{DType::kFloat32, {4}}},
                      {}};
    EXPECT_EQ(MakeOpInstance(call)->target, "aten.alias.default");
  }
}

TEST(OpRowsTest, BadCallsNameWhatDoesNotFit) {
  const auto message = [](OpCall call, std::vector<Shape> shapes) {
    for (Shape& shape : shapes) {
      call.operands.push_back({DType::kFloat32, std::move(shape)});
    }
    const auto op = MakeOpInstance(call);
    EXPECT_EQ(op.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(op.status().message());
  };
  using testing::HasSubstr;
  EXPECT_THAT(message({kLayerNorm, {T(), Ints({7})}}, {{4, 8}}),
              HasSubstr("ends in [7]; got: f32[4, 8]"));
  EXPECT_THAT(
      message({kAttention, {T(), T(), T()}}, {{2, 4, 8}, {2, 4, 7}, {2, 4, 8}}),
      HasSubstr("got: f32[2, 4, 7]"));
  EXPECT_THAT(message({"aten.cat.default", {{ArgumentList{T(), T()}}}},
                      {{2, 4}, {2, 5}}),
              HasSubstr("but for dim 0; got: f32[2, 5]"));
  EXPECT_THAT(message({"aten.select.int", {T(), Int(0), Int(4)}}, {{4}}),
              HasSubstr("an index below 4; got: 4"));
  EXPECT_THAT(
      message({"aten.split_with_sizes.default", {T(), Ints({1, 2})}}, {{4}}),
      HasSubstr("parts of 4 elements; got: 3"));
}

}  // namespace
}  // namespace shardplane
