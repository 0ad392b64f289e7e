#include <string>
#include <utility>
#include <vector>

#include "common/compile_fixture.h"
#include "common/program_builder.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using testing::HasSubstr;
using testing::Not;

// All of the bytes' time passes beside operators, and calls cost nothing.
constexpr LinkCosts kBeside = {.us_per_mib = 1000, .beside = 1};

// net1, 10 -> 16, whose input is gathered on dim 1, and net2, 16 -> 10, whose
// sum is scattered on dim 1; no biases.
Request SequenceParallel(const LinkCosts& costs = kBeside) {
  GraphModule mlp = *GraphModule::Create(
      {Mod("", "Sequential"), Mod("net1", "Linear"), Mod("relu", "ReLU"),
       Mod("net2", "Linear")},
      {Param("net1.weight", {16, 10}), Param("net2.weight", {10, 16})});
  return {.module = std::move(mlp),
          .plan = {Entry("net1", Colwise(Shard{1})),
                   Entry("net2", Rowwise(Shard{-1}, Shard{1}))},
          .input = {2, 8, 10},
          .input_grad = true,
          .mesh = {{"tp", 2}},
          .link_costs = costs};
}

// What reads no weights of its own: two linears on what one gather makes.
Request Branches(std::vector<Node> nodes) {
  GraphModule module = *GraphModule::Create(
      {Root(std::move(nodes)), Mod("q", "Linear"), Mod("k", "Linear")},
      {Param("q.weight", {16, 10}), Param("k.weight", {16, 10})});
  Request request = SequenceParallel();
  request.module = std::move(module);
  request.plan = {
      {"",
       std::vector<ParallelStyle>{
           {PrepareModuleInput{{{Shard{1}, Replicate{}}}, {}}, ""}}},
      Entry("q", Colwise()),
      Entry("k", Colwise())};
  return request;
}

std::string Unchunked(Request request) {
  request.link_costs.beside = 0;
  return Steps(Compile(request));
}

TEST(ProgramChunksTest, PiecesTravelWhileOthersAreMultiplied) {
  EXPECT_EQ(Steps(Compile(SequenceParallel())), R"(forward
  segment 2 recording %0
    %10, %11 = aten.split.Tensor(%0, 1, 0)  # net1
  %12 = all_gather[tp, from 1] %10
  %13 = alias[tp] %12
  start %15 = all_gather[tp, from 1] %11
  segment 3 recording %13, %2
    %14 = aten.linear.default(%13, %2)  # net1
  wait %15
  %16 = alias[tp] %15
  segment 4 recording %16, %2
    %17 = aten.linear.default(%16, %2)  # net1
  segment 0 recording %14, %17
    %4 = aten.cat.default([%14, %17], 0)  # net1
    %5 = aten.relu.default(%4)  # relu
    %18, %19 = aten.split.Tensor(%5, 1, 0)  # net2
  segment 5 recording %18, %6
    %20 = aten.linear.default(%18, %6)  # net2
  start %21 = reduce_scatter[tp, to 1, sum] %20
  segment 6 recording %19, %6
    %22 = aten.linear.default(%19, %6)  # net2
  wait %21
  %23 = reduce_scatter[tp, to 1, sum] %22
  segment 7 recording %21, %23
    %8 = aten.cat.default([%21, %23], 0)  # net2
  segment 1 recording %8
    %9 = aten.sum.default(%8)  # loss
backward
  %24 = ones
  %25 = backward of 1 (%24)
  %26, %27 = backward of 7 (%25)
  %28 = all_gather[tp, from 1] %27
  start %31 = all_gather[tp, from 1] %26
  %29, %30 = backward of 6 (%28)
  wait %31
  %32, %33 = backward of 5 (%31)
  %34 = accumulate %30, %33
  %35, %36 = backward of 0 (%32, %29)
  %37, none = backward of 4 (%36)
  start %39 = reduce_scatter[tp, to 1, sum] %37
  %38 = weight gradients of 4 (%2)
  %40, none = backward of 3 (%35)
  wait %39
  start %42 = reduce_scatter[tp, to 1, sum] %40
  %41 = weight gradients of 3 (%2)
  %43 = accumulate %38, %41
  wait %42
  %44 = backward of 2 (%42, %39)
)");
}

TEST(ProgramChunksTest, NothingRunsBesideASharedProcessor) {
  const std::string steps = Unchunked(SequenceParallel());
  EXPECT_EQ(Count(steps, "= all_gather[tp, from 1] %0"), 1) << steps;
  EXPECT_EQ(Count(steps, "split"), 0) << steps;
}

// 1280 bytes are gathered, half of them travel: 0.61 us at 1000 us_per_mib. Two
// pieces save half of it and cost a call more, four save 0.46 us and cost
// three.
TEST(ProgramChunksTest, PiecesAreThoseThatPay) {
  const auto pieces = [](double latency_us, double beside) {
    Request request = SequenceParallel(
        {.latency_us = latency_us, .us_per_mib = 1000, .beside = beside});
    request.input = {4, 4, 10};
    const std::string steps = Steps(Compile(request));
    return Count(steps.substr(0, steps.find("segment 0")), "all_gather");
  };
  EXPECT_EQ(pieces(0, 1), 4);
  EXPECT_EQ(pieces(0.07, 1), 4);  // 0.2478 against 0.2352 of two
  EXPECT_EQ(pieces(0.08, 1), 2);  // 0.2178 against 0.2252
  EXPECT_EQ(pieces(0.30, 1), 2);
  EXPECT_EQ(pieces(0.31, 1), 1);
  EXPECT_EQ(pieces(0.15, 0.5), 2);
  EXPECT_EQ(pieces(0.16, 0.5), 1);
}

// Rather not the gathered dim, and never the one that is multiplied.
TEST(ProgramChunksTest, ADimIsDividedThatDoesNotTravel) {
  Request request = SequenceParallel();
  request.input = {3, 7, 10};
  EXPECT_EQ(Steps(Compile(request)), Unchunked(request));
  request.input = {3, 8, 6, 10};
  EXPECT_THAT(Steps(Compile(request)),
              HasSubstr("aten.split.Tensor(%0, 3, 2)"));
  request.plan = {Entry("net1", Colwise(Shard{0})),
                  Entry("net2", Rowwise(Shard{-1}, Shard{0}))};
  request.input = {3, 8, 10};
  EXPECT_THAT(Steps(Compile(request)),
              HasSubstr("aten.split.Tensor(%0, 2, 1)"));
}

// One sequence of 8 tokens: each rank has 4, of which a piece has 2.
TEST(ProgramChunksTest, TheDimThatTravelsIsDividedOnEachRank) {
  Request request = SequenceParallel();
  request.input = {1, 8, 10};
  request.link_costs.latency_us = 0.1;
  const std::string steps = Steps(Compile(request));
  EXPECT_THAT(steps, HasSubstr(R"(
    %10, %11 = aten.split.Tensor(%0, 4/tp, 1)  # net1
)"));
  EXPECT_THAT(steps, HasSubstr(R"(
    %18 = aten.reshape.default(%14, [1, 2, 2, 16/tp])  # net1
    %19 = aten.reshape.default(%17, [1, 2, 2, 16/tp])  # net1
    %20 = aten.cat.default([%18, %19], 2)  # net1
    %4 = aten.reshape.default(%20, [1, 8, 16/tp])  # net1
    %5 = aten.relu.default(%4)  # relu
    %21 = aten.reshape.default(%5, [1, 2, 4, 16/tp])  # net2
    %22, %23 = aten.split.Tensor(%21, 2, 2)  # net2
    %24 = aten.reshape.default(%22, [1, 4, 16/tp])  # net2
    %25 = aten.reshape.default(%23, [1, 4, 16/tp])  # net2
)"));
  EXPECT_THAT(steps, HasSubstr(", 1)  # net2\n"));  // a rank's own are joined
}

// Every rank has as many rows in each piece: 8 rows over two ranks in two.
TEST(ProgramChunksTest, PiecesAreEqualOnEveryRank) {
  Request request = SequenceParallel();
  request.mesh = {{"dp", 2}, {"tp", 2}};
  request.data_parallel = {{"dp", DataParallelKind::kReplicate}};
  request.input = {8, 8, 10};
  EXPECT_THAT(Steps(Compile(request)),
              HasSubstr("aten.split.Tensor(%0, 2/dp, 0)"));
  request.input = {4, 8, 10};
  EXPECT_THAT(Steps(Compile(request)),
              HasSubstr("aten.split.Tensor(%0, 2/dp, 0)"));
  request.input = {6, 7, 10};
  EXPECT_EQ(Steps(Compile(request)), Unchunked(request));
  // Of rows that dp has cut, those of two ranks are no neighbours.
  request.plan = {Entry("net1", Colwise(Shard{0})),
                  Entry("net2", Rowwise(Shard{-1}, Shard{0}))};
  request.input = {16, 10};
  EXPECT_EQ(Steps(Compile(request)), Unchunked(request));
}

TEST(ProgramChunksTest, OneGatherServesSeveralProducts) {
  const std::string steps = Steps(
      Compile(Branches({Placeholder("x"), Call("q_", "q", {Ref("x")}),
                        Call("k_", "k", {Ref("x")}),
                        Call("qk", "aten.mul.Tensor", {Ref("q_"), Ref("k_")}),
                        Output(Ref("qk"))})));
  EXPECT_THAT(steps, HasSubstr(R"(
    %13 = aten.linear.default(%12, %2)  # q
    %14 = aten.linear.default(%12, %5)  # k
)"));
  EXPECT_EQ(Count(steps, "= all_gather"), 2) << steps;
  EXPECT_EQ(Count(steps, "aten.cat"), 2) << steps;
}

TEST(ProgramChunksTest, WhatOthersReadIsGatheredWhole) {
  const Request request = Branches(
      {Placeholder("x"), Call("q_", "q", {Ref("x")}),
       Call("s", "aten.sum.default", {Ref("x")}),
       Call("y", "aten.mul.Tensor", {Ref("q_"), Ref("s")}), Output(Ref("y"))});
  EXPECT_EQ(Count(Steps(Compile(request)), "= all_gather[tp, from 1] %0"), 1)
      << Steps(Compile(request));
  EXPECT_EQ(Steps(Compile(request)), Unchunked(request));
}

// The module's result is what was gathered.
TEST(ProgramChunksTest, WhatIsAskedForIsGatheredWhole) {
  const Request request =
      Branches({Placeholder("x"), Call("q_", "q", {Ref("x")}),
                Call("s", "aten.sum.default", {Ref("q_")}),
                Output({ArgumentList{Ref("s"), Ref("x")}})});
  Request forward = request;
  forward.loss = false;
  EXPECT_EQ(Count(Steps(Compile(forward)), "= all_gather[tp, from 1] %0"), 1)
      << Steps(Compile(forward));
}

// Its gradient is that of the whole sum, which is gathered for the product
// anyway, piece by piece.
TEST(ProgramChunksTest, ABiasIsAddedToEachPiece) {
  Request request = SequenceParallel();
  request.module = Mlp();
  const std::string steps = Steps(Compile(request));
  EXPECT_THAT(steps, HasSubstr(R"(
  segment 6 recording %22, %7
    %24 = aten.linear.default(%22, %7)  # net2
  start %25 = reduce_scatter[tp, to 1, sum] %24
  segment 7 recording %23, %7
    %26 = aten.linear.default(%23, %7)  # net2
  wait %25
  start %27 = reduce_scatter[tp, to 1, sum] %26
  segment 8
    %28 = aten.add.Tensor(%25, %8)
  wait %27
  segment 9
    %29 = aten.add.Tensor(%27, %8)
  segment 1 recording %28, %29
    %12 = aten.cat.default([%28, %29], 0)  # net2
)"));
  EXPECT_THAT(steps, HasSubstr(R"(
  %34 = all_gather[tp, from 1] %33
  segment 10
    %35 = aten.sum_to_size.default(%34, [10])
  start %38 = all_gather[tp, from 1] %32
  %36, %37 = backward of 7 (%34)
  wait %38
  segment 11
    %39 = aten.sum_to_size.default(%38, [10])
  %40 = accumulate %35, %39
  %41, %42 = backward of 6 (%38)
)"));
}

// Cut rows and whole ones of a sum, made of one scatter: it has no pieces, as
// nothing would make the sum without the bias.
TEST(ProgramChunksTest, ASumThatIsReadTwiceStaysWhole) {
  ProgramBuilder builder(*DeviceMesh::Create({{"dp", 2}, {"tp", 2}}),
                         {.link_costs = kBeside});
  const auto type = [](Shape shape) {
    return TensorType{DType::kFloat64, std::move(shape)};
  };
  const ValueId x = builder.AddInput("x", type({4, 8, 16}), true);
  builder.Claim(x, 0, Shard{0});
  builder.Claim(x, 1, Shard{2});
  const DTensorSpec cut{{Replicate{}, Shard{1}}, {}};
  const ValueId weight = builder.AddParameter("w", type({10, 16}), cut, true);
  const ValueId bias =
      builder.AddParameter("b", type({10}), DTensorSpec::Replicated(2), true);
  Op op{.target = "aten.linear.default",
        .args = {{ValueRef{x}},
                 {ValueRef{*builder.Demand(weight, cut, {true, false})}}}};
  const ValueId base = builder.EmitOp(
      std::move(op),
      {{"y", type({4, 8, 10}), {{Shard{0}, Partial{}}, {}}, true}})[0];
  const ValueId sum = builder.AddAfterReduction(base, bias, "y");
  const auto rows = builder.Demand(sum, {{Shard{0}, Shard{1}}, {}}, {});
  const auto whole = builder.Demand(sum, {{Replicate{}, Shard{1}}, {}}, {});
  ASSERT_TRUE(rows.ok() && whole.ok());
  builder.ChunkProducts({*rows, *whole});
  const ShardedProgram program = builder.Finish({*rows, *whole});
  EXPECT_TRUE(Validate(program).ok()) << Validate(program);
  const std::string text = ToString(program);
  EXPECT_EQ(Count(text, "reduce_scatter[tp, to 1, sum]"), 1) << text;
  EXPECT_THAT(text, HasSubstr("all_gather[dp, from 0]"));
}

// What runs again for the backward pass is what ran.
TEST(ProgramChunksTest, PiecesRunAgain) {
  Request request = SequenceParallel();
  request.recompute = {""};
  const std::string steps = Steps(Compile(request));
  const size_t backward = steps.find("backward\n");
  for (const char* line : {"aten.split.Tensor", "aten.linear.default"}) {
    EXPECT_EQ(Count(steps.substr(0, backward), line),
              Count(steps.substr(backward), line))
        << steps;
  }
}

// The first product's gather stands before what runs again.
TEST(ProgramChunksTest, WhatRunsAgainDoesNotGatherMore) {
  Request request = SequenceParallel();
  request.plan[0] = Entry("net1", Colwise());
  request.plan.push_back(
      {"", std::vector<ParallelStyle>{
               {PrepareModuleInput{{{Shard{1}, Replicate{}}}, {}}, ""}}});
  request.recompute = {"net1"};
  const std::string steps = Steps(Compile(request));
  EXPECT_EQ(Count(steps, "= all_gather[tp, from 1] %0"), 1) << steps;
}

}  // namespace
}  // namespace shardplane
