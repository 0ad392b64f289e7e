#include "worker/collectives.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "ATen/ATen.h"
#include "absl/strings/str_cat.h"
#include "common/tensor_spec.h"
#include "worker/gang_for_test.h"

namespace shardplane {
namespace {

// Different numbers of very different size: a sum's order shows in its bits.
at::Tensor Values(at::IntArrayRef shape, int rank, at::ScalarType type) {
  at::Tensor index = at::arange(c10::multiply_integers(shape), at::kDouble);
  at::Tensor values = (index * 0.7 + rank + 1).sin() *
                      ((index * 1.3 + 2 * rank).cos() * 12).exp();
  return values.to(type).view(shape);
}

at::Tensor ChunkOf(const at::Tensor& full, int64_t dim, int ranks, int rank) {
  const Extent part = Chunk(full.size(dim), ranks, rank);
  return full.narrow(dim, part.offset, part.size);
}

// The sum that one process would make, rank after rank.
at::Tensor SumOf(const std::vector<at::Tensor>& pieces) {
  at::Tensor sum = pieces[0];
  for (size_t i = 1; i < pieces.size(); ++i) sum = sum + pieces[i];
  return sum;
}

struct Case {
  int ranks;
  int64_t rows;  // of dim 0 of [rows, 3, 7]
};

class CollectivesTest : public testing::TestWithParam<Case> {
 protected:
  CollectivesTest() : gang_({{"tp", GetParam().ranks}}) {}

  int ranks() const { return GetParam().ranks; }
  std::vector<int64_t> shape() const { return {GetParam().rows, 3, 7}; }
  std::vector<at::Tensor> Pieces(at::ScalarType type = at::kFloat) const {
    std::vector<at::Tensor> pieces;
    for (int rank = 0; rank < ranks(); ++rank) {
      pieces.push_back(Values(shape(), rank, type));
    }
    return pieces;
  }

  GangForTest gang_;
};

TEST_P(CollectivesTest, AllReduceSumsInRankOrder) {
  const std::vector<at::Tensor> pieces = Pieces();
  gang_.Run([&](int rank, Communicator& communicator) {
    auto sum = communicator.AllReduce(pieces[rank], 0, ReduceOp::kSum);
    ASSERT_EQ(sum.status(), absl::OkStatus());
    EXPECT_TRUE(sum->equal(SumOf(pieces)));
    const int64_t n = pieces[0].numel();
    const CollectiveRecord record{.kind = RedistributeKind::kAllReduce,
                                  .mesh_dim = 0,
                                  .dtype = DType::kFloat32,
                                  .send_elements = n,
                                  .recv_elements = n};
    EXPECT_THAT(communicator.TakeRecords(),
                ranks() == 1 ? testing::Matcher<std::vector<CollectiveRecord>>(
                                   testing::IsEmpty())
                             : testing::ElementsAre(record));
  });
}

TEST_P(CollectivesTest, AllGatherPutsChunksTogether) {
  const at::Tensor full = Values(shape(), 0, at::kFloat);
  gang_.Run([&](int rank, Communicator& communicator) {
    for (int dim = 0; dim < 3; ++dim) {
      auto all = communicator.AllGather(ChunkOf(full, dim, ranks(), rank), 0,
                                        dim, full.size(dim));
      ASSERT_EQ(all.status(), absl::OkStatus());
      EXPECT_TRUE(all->equal(full)) << "dim " << dim;
      EXPECT_TRUE(all->is_contiguous());
    }
  });
}

TEST_P(CollectivesTest, ReduceScatterGivesTheChunkOfTheSum) {
  const std::vector<at::Tensor> pieces = Pieces();
  const at::Tensor sum = SumOf(pieces);
  gang_.Run([&](int rank, Communicator& communicator) {
    for (int dim = 0; dim < 3; ++dim) {
      auto part =
          communicator.ReduceScatter(pieces[rank], 0, dim, ReduceOp::kSum);
      ASSERT_EQ(part.status(), absl::OkStatus());
      EXPECT_TRUE(part->equal(ChunkOf(sum, dim, ranks(), rank)))
          << "dim " << dim;
    }
  });
}

TEST_P(CollectivesTest, AllToAllMovesTheCut) {
  const at::Tensor full = Values(shape(), 0, at::kDouble);
  gang_.Run([&](int rank, Communicator& communicator) {
    for (const auto& [from, to] :
         {std::pair(0, 1), std::pair(1, 0), std::pair(2, 1)}) {
      const at::Tensor mine = ChunkOf(full, from, ranks(), rank);
      auto moved = communicator.AllToAll(mine, 0, from, to, full.size(from));
      ASSERT_EQ(moved.status(), absl::OkStatus());
      const at::Tensor expected = ChunkOf(full, to, ranks(), rank);
      EXPECT_TRUE(moved->equal(expected)) << from << " to " << to;
      const auto records = communicator.TakeRecords();
      if (ranks() == 1) continue;
      ASSERT_EQ(records.size(), 1u);
      EXPECT_EQ(records[0].send_elements, mine.numel());
      EXPECT_EQ(records[0].recv_elements, expected.numel());
    }
  });
}

TEST_P(CollectivesTest, ScatterAndBroadcastComeFromTheRoot) {
  const at::Tensor full = Values(shape(), 0, at::kFloat);
  const TensorType type{DType::kFloat32, shape()};
  const int root = ranks() - 1;
  gang_.Run([&](int rank, Communicator& communicator) {
    const at::Tensor source = rank == root ? full : at::Tensor();
    for (int dim = 0; dim < 3; ++dim) {
      auto part = communicator.Scatter(source, type, 0, dim, root);
      ASSERT_EQ(part.status(), absl::OkStatus());
      if (ranks() == 1) continue;  // nothing runs: the source itself
      EXPECT_TRUE(part->equal(ChunkOf(full, dim, ranks(), rank)));
    }
    auto copy = communicator.Broadcast(source, type, 0, root);
    ASSERT_EQ(copy.status(), absl::OkStatus());
    EXPECT_TRUE(copy->equal(full));
    EXPECT_EQ(communicator.TakeMaterialized().scatters, ranks() == 1 ? 0 : 3);
  });
}

TEST_P(CollectivesTest, MovesEveryElementType) {
  gang_.Run([&](int rank, Communicator& communicator) {
    for (const at::ScalarType type :
         {at::kBool, at::kByte, at::kChar, at::kShort, at::kInt, at::kLong,
          at::kHalf, at::kBFloat16}) {
      const at::Tensor full = at::arange(10).remainder(3).to(type);
      auto all = communicator.AllGather(ChunkOf(full, 0, ranks(), rank), 0, 0,
                                        full.size(0));
      ASSERT_EQ(all.status(), absl::OkStatus());
      EXPECT_TRUE(all->equal(full)) << type;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(RanksAndRows, CollectivesTest,
                         testing::Values(Case{1, 5}, Case{2, 8}, Case{3, 5},
                                         Case{4, 5}, Case{4, 2}, Case{3, 0},
                                         Case{4, 9000}),
                         [](const testing::TestParamInfo<Case>& info) {
                           return absl::StrCat("Ranks", info.param.ranks,
                                               "Rows", info.param.rows);
                         });

TEST(ReduceInRankOrderTest, MaxAndMin) {
  const at::Tensor pieces = at::tensor({1, 5, 3, 2}, at::kFloat).view({2, 2});
  EXPECT_TRUE(ReduceInRankOrder(pieces, ReduceOp::kMax)
                  .equal(at::tensor({3, 5}, at::kFloat)));
  EXPECT_TRUE(ReduceInRankOrder(pieces, ReduceOp::kMin)
                  .equal(at::tensor({1, 2}, at::kFloat)));
}

TEST(ReduceInRankOrderTest, Bfloat16IsRoundedOnce) {
  // 256 + 1 + 1 = 258 in f32; bf16 would round 257 back to 256 twice.
  const at::Tensor pieces =
      at::tensor({256, 1, 1}, at::kFloat).to(at::kBFloat16).view({3, 1});
  EXPECT_EQ(ReduceInRankOrder(pieces, ReduceOp::kSum).item<float>(), 258);
}

TEST(CommunicatorTest, RunsAlongOneMeshDimAlone) {
  GangForTest gang({{"dp", 2}, {"tp", 2}});
  gang.Run([&](int rank, Communicator& communicator) {
    const at::Tensor mine = at::full({1}, 1 << rank, at::kFloat);
    auto tp = communicator.AllReduce(mine, 1, ReduceOp::kSum);
    auto dp = communicator.AllReduce(mine, 0, ReduceOp::kSum);
    ASSERT_TRUE(tp.ok() && dp.ok());
    EXPECT_EQ(tp->item<float>(), rank < 2 ? 1 + 2 : 4 + 8);
    EXPECT_EQ(dp->item<float>(), rank % 2 == 0 ? 1 + 4 : 2 + 8);
  });
}

TEST(CommunicatorTest, ShardOfAnotherSizeIsRefused) {
  GangForTest gang({{"tp", 2}});
  gang.Run([&](int, Communicator& communicator) {
    auto all = communicator.AllGather(at::zeros({4}), 0, 0, 5);
    EXPECT_EQ(all.status().code(), absl::StatusCode::kInvalidArgument);
  });
}

TEST(CommunicatorTest, AbortEndsAWaitForAPeerThatDoesNotCome) {
  GangForTest gang({{"tp", 2}});
  gang.Run([&](int rank, Communicator& communicator) {
    if (rank == 1) {
      gang.groups(0).Abort();
      return;
    }
    auto sum = communicator.AllReduce(at::zeros({4}), 0, ReduceOp::kSum);
    EXPECT_EQ(sum.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(sum.status().message()),
                testing::HasSubstr("mesh dim tp at rank 0"));
  });
}

}  // namespace
}  // namespace shardplane
