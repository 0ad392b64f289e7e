// Three ranks over Gloo. On CPUs, and in the target tagged gpu on one GPU,
// which needs no NCCL.
#include "worker/host_staged_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <vector>

#include "ATen/core/Formatting.h"
#include "ATen/core/Tensor.h"
#include "ATen/ops/tensor.h"
#include "c10/core/DeviceGuard.h"
#include "torch/csrc/distributed/c10d/HashStore.hpp"
#include "worker/device_for_test.h"
#include "worker/gang_for_test.h"
#include "worker/gloo_group.h"

namespace shardplane {
namespace {

constexpr int kRanks = 3;

class HostStagedGroupTest : public testing::Test {
 protected:
  // Runs `body` for each rank, each on a thread of its own.
  void Run(const std::function<void(int, ProcessGroup&)>& body) {
    ForEachRank(kRanks, [&](int rank) {
      const c10::DeviceGuard guard(device_);
      HostStagedGroup group(
          std::make_unique<GlooGroup>(
              store_, GlooGroup::Options{.rank = rank, .size = kRanks}),
          device_);
      EXPECT_EQ(group.rank(), rank);
      EXPECT_EQ(group.size(), kRanks);
      body(rank, group);
      group.Finish();
    });
  }
  at::Tensor On(const std::vector<float>& values) const {
    return at::tensor(values, at::kFloat).to(device_);
  }
  void ExpectIs(const at::Tensor& found, const std::vector<float>& expected) {
    EXPECT_EQ(found.device(), device_);
    EXPECT_TRUE(found.cpu().equal(at::tensor(expected, at::kFloat))) << found;
  }

  const c10::Device device_ = c10::Device(DeviceForTest(0));
  const c10::intrusive_ptr<c10d::Store> store_ =
      c10::make_intrusive<c10d::HashStore>();
};

TEST_F(HostStagedGroupTest, Sums) {
  Run([&](int rank, ProcessGroup& group) {
    const at::Tensor input = On({1.0f * rank, 10, 20});
    ExpectIs(group.AllReduce(input, ReduceOp::kSum), {3, 30, 60});
    ExpectIs(group.AllReduce(input, ReduceOp::kMax), {2, 10, 20});
    ExpectIs(group.ReduceScatter(input, ReduceOp::kSum),
             {rank == 0 ? 3.0f : rank * 30.0f});
    ExpectIs(input, {1.0f * rank, 10, 20});
  });
}

TEST_F(HostStagedGroupTest, Moves) {
  Run([&](int rank, ProcessGroup& group) {
    const float own = static_cast<float>(rank);
    const at::Tensor all = On({-1, -1, -1});
    group.AllGather(all, On({own}));
    ExpectIs(all, {0, 1, 2});

    // Rank r sends r + 1 elements to rank 0.
    std::vector<float> sent(rank + 1, own);
    std::vector<int64_t> sent_counts(kRanks, 0);
    sent_counts[0] = rank + 1;
    std::vector<int64_t> counts(kRanks, 0);
    if (rank == 0) counts = {1, 2, 3};
    const at::Tensor received = On(std::vector<float>(rank == 0 ? 6 : 0, -1));
    group.AllToAll(received, On(sent), counts, sent_counts);
    if (rank == 0) ExpectIs(received, {0, 1, 1, 2, 2, 2});

    const at::Tensor part = On({-1});
    group.Scatter(part, rank == 1 ? On({7, 8, 9}) : at::Tensor(), 1);
    ExpectIs(part, {7.0f + rank});
    const at::Tensor buffer = On({own, own});
    group.Broadcast(buffer, 2);
    ExpectIs(buffer, {2, 2});
  });
}

// f32[2, 3] of which each rank has a column; then of rows.
TEST_F(HostStagedGroupTest, MovesAlongDims) {
  Run([&](int rank, ProcessGroup& group) {
    const float own = static_cast<float>(rank);
    const at::Tensor column = On({own, 10 + own}).view({2, 1});
    const at::Tensor all = group.AllGatherAlong(column, 1, 3);
    ExpectIs(all.flatten(), {0, 1, 2, 10, 11, 12});
    ExpectIs(group.ReduceScatterAlong(all, 1, ReduceOp::kSum).flatten(),
             {3 * own, 30 + 3 * own});
    const at::Tensor row = group.AllToAllAlong(column, 1, 0, 3);
    EXPECT_EQ(row.sizes(), (std::vector<int64_t>{rank < 2 ? 1 : 0, 3}));
    if (rank < 2)
      ExpectIs(row.flatten(), {10 * own, 10 * own + 1, 10 * own + 2});
  });
}

TEST_F(HostStagedGroupTest, AbortEndsWhatFollows) {
  Run([&](int, ProcessGroup& group) {
    group.Abort();
    EXPECT_THROW(group.AllReduce(On({1}), ReduceOp::kSum), c10::Error);
  });
}

}  // namespace
}  // namespace shardplane
