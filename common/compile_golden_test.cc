// Whole programs, forward and backward, as text.
#include "common/compile_fixture.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

TEST(CompileGolden, ColwiseThenRowwise) {
  const auto compiled =
      Compile({Mlp(), {Entry("net1", Colwise()), Entry("net2", Rowwise())}});
  EXPECT_EQ(Steps(compiled), R"(forward
  segment 0 recording %1, %2, %5
    %3 = aten.linear.default(%0, %1, %2)  # net1
    %4 = aten.relu.default(%3)  # relu
    %7 = aten.linear.default(%4, %5)  # net2
  %9 = all_reduce[tp, sum] %7
  segment 1 recording %9, %6
    %10 = aten.add.Tensor(%9, %6)
    %11 = aten.sum.default(%10)  # loss
backward
  %12 = ones
  %13, %14 = backward of 1 (%12)
  %15, %16, %17 = backward of 0 (%13)
)");
  EXPECT_EQ(Specs(compiled),
            "net1.weight [S(0)] [S(0)]; net1.bias [S(0)] [S(0)]; "
            "net2.weight [S(1)] [S(1)]; net2.bias [R] [R]");
}

TEST(CompileGolden, InputGradientIsReducedOnce) {
  Request request{Mlp(), {Entry("net1", Colwise()), Entry("net2", Rowwise())}};
  request.input_grad = true;
  EXPECT_EQ(Steps(Compile(request)), R"(forward
  %3 = alias[tp] %0
  segment 0 recording %3, %1, %2, %6
    %4 = aten.linear.default(%3, %1, %2)  # net1
    %5 = aten.relu.default(%4)  # relu
    %8 = aten.linear.default(%5, %6)  # net2
  %10 = all_reduce[tp, sum] %8
  segment 1 recording %10, %7
    %11 = aten.add.Tensor(%10, %7)
    %12 = aten.sum.default(%11)  # loss
backward
  %13 = ones
  %14, %15 = backward of 1 (%13)
  %16, %17, %18, %19 = backward of 0 (%14)
  %20 = all_reduce[tp, sum] %16
)");
}

// The gather of the output's gradient serves the reduce-scatter's backward and
// the bias: no collective for the bias.
TEST(CompileGolden, SequenceParallelMlp) {
  Request request{Mlp(),
                  {Entry("net1", Colwise(Shard{0})),
                   Entry("net2", Rowwise(Shard{-1}, Shard{0}))}};
  request.input_grad = true;
  EXPECT_EQ(Steps(Compile(request)), R"(forward
  %1 = all_gather[tp, from 0] %0
  %4 = alias[tp] %1
  segment 0 recording %4, %2, %3, %7
    %5 = aten.linear.default(%4, %2, %3)  # net1
    %6 = aten.relu.default(%5)  # relu
    %9 = aten.linear.default(%6, %7)  # net2
  %11 = reduce_scatter[tp, to 0, sum] %9
  segment 1
    %12 = aten.add.Tensor(%11, %8)
  segment 2 recording %12
    %13 = aten.sum.default(%12)  # loss
backward
  %14 = ones
  %15 = backward of 2 (%14)
  %16 = all_gather[tp, from 0] %15
  segment 3
    %17 = aten.sum_to_size.default(%16, [10])
  %18, %19, %20, %21 = backward of 0 (%16)
  %22 = reduce_scatter[tp, to 0, sum] %18
)");
}

TEST(CompileGolden, RowwiseScatteredAlongTheBias) {
  Request request{
      Mlp(),
      {Entry("net1", Colwise()), Entry("net2", Rowwise(Shard{-1}, Shard{-1}))}};
  EXPECT_EQ(Steps(Compile(request)), R"(forward
  segment 0 recording %1, %2, %5
    %3 = aten.linear.default(%0, %1, %2)  # net1
    %4 = aten.relu.default(%3)  # relu
    %7 = aten.linear.default(%4, %5)  # net2
  %9 = reduce_scatter[tp, to 1, sum] %7
  %10 = slice[tp, to 0] %6
  segment 1
    %11 = aten.add.Tensor(%9, %10)
  segment 2 recording %11
    %12 = aten.sum.default(%11)  # loss
backward
  %13 = ones
  %14 = backward of 2 (%13)
  %15 = all_gather[tp, from 1] %14
  segment 3
    %16 = aten.sum_to_size.default(%15, [10])
  %17, %18, %19 = backward of 0 (%15)
)");
}

// Left partial: the bias goes in on one rank alone.
TEST(CompileGolden, RowwiseLeftPartial) {
  Request request{
      Mlp(),
      {Entry("net1", Colwise()), Entry("net2", Rowwise(Shard{-1}, Partial{}))}};
  request.loss = false;
  EXPECT_EQ(Steps(Compile(request)), R"(forward
  %9 = mask[tp] %6
  segment 0
    %3 = aten.linear.default(%0, %1, %2)  # net1
    %4 = aten.relu.default(%3)  # relu
    %7 = aten.linear.default(%4, %5)  # net2
    %10 = aten.add.Tensor(%7, %9)
)");
}

}  // namespace
}  // namespace shardplane
