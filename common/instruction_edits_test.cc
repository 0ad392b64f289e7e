#include "common/instruction_edits.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

// Instructions are told apart by the value that they free.
ShardedProgram Program(int instructions, int backward_begin) {
  ShardedProgram program;
  for (int i = 0; i < instructions; ++i) {
    program.instructions.push_back(Free{{i}});
  }
  program.backward_begin = backward_begin;
  return program;
}

// "0 1 | 2": the bar is where the backward pass begins.
std::string Text(const ShardedProgram& program) {
  std::string text;
  const int size = static_cast<int>(program.instructions.size());
  for (int i = 0; i <= size; ++i) {
    if (i == program.backward_begin) absl::StrAppend(&text, "| ");
    if (i == size) break;
    absl::StrAppend(&text, std::get<Free>(program.instructions[i]).values[0],
                    " ");
  }
  return text;
}

TEST(InstructionEditsTest, NothingChangesNothing) {
  ShardedProgram program = Program(3, 1);
  InstructionEdits().Apply(&program);
  EXPECT_EQ(Text(program), "0 | 1 2 ");
}

// Beside the first of the backward pass it belongs to that, beside the last of
// the forward pass to this.
TEST(InstructionEditsTest, WhatIsInsertedIsOfThePhaseOfItsNeighbour) {
  ShardedProgram program = Program(3, 1);
  InstructionEdits edits;
  edits.InsertBefore(1, Free{{11}});
  edits.InsertAfter(0, Free{{10}});
  edits.InsertBefore(3, Free{{13}});
  edits.InsertBefore(1, Free{{12}});
  edits.Apply(&program);
  EXPECT_EQ(Text(program), "0 10 | 11 12 1 2 13 ");
}

TEST(InstructionEditsTest, WithoutABackwardPassTheEndIsOfTheForwardPass) {
  ShardedProgram program = Program(2, 2);
  InstructionEdits edits;
  edits.InsertAfter(1, Free{{10}});
  edits.InsertBefore(2, Free{{11}});
  edits.Apply(&program);
  EXPECT_EQ(Text(program), "0 1 10 11 | ");
}

TEST(InstructionEditsTest, WhatStandsBesideADroppedOneStays) {
  ShardedProgram program = Program(4, 2);
  InstructionEdits edits;
  edits.Drop(2);
  edits.Drop(0);
  edits.InsertBefore(2, Free{{10}});
  edits.InsertAfter(2, Free{{11}});
  edits.Apply(&program);
  EXPECT_EQ(Text(program), "1 | 10 11 3 ");
}

TEST(AsBucketTest, CollectivesAreBucketsOfOne) {
  const Redistribute scatter{.kind = RedistributeKind::kReduceScatter,
                             .mesh_dim = 1,
                             .to_dim = 2,
                             .op = ReduceOp::kMax,
                             .input = 3,
                             .output = 4};
  const auto bucket = AsBucket(scatter);
  ASSERT_TRUE(bucket.has_value());
  EXPECT_EQ(StepOf(*bucket, 0), scatter);
  EXPECT_EQ(AsBucket(*bucket), bucket);
  EXPECT_FALSE(AsBucket(Redistribute{.kind = RedistributeKind::kAllToAll}));
  EXPECT_FALSE(AsBucket(Redistribute{.kind = RedistributeKind::kSlice}));
  EXPECT_FALSE(AsBucket(Free{}));
}

}  // namespace
}  // namespace shardplane
