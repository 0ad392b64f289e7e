// A group of one rank, on a GPU: collectives_gpu_test has those of several.
#include "worker/nccl_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/zeros_like.h"
#include "tests/matchers.h"
#include "worker/fake_gang_store.h"
#include "worker/gang_for_test.h"
#include "worker/gang_store_adapter.h"

namespace shardplane {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::HasSubstr;

constexpr std::chrono::seconds kTimeout{20};

class NcclGroupTest : public testing::Test {
 protected:
  static absl::StatusOr<std::unique_ptr<ProcessGroup>> Make(
      const std::shared_ptr<FakeGangStore>& store, int rank, int size) {
    CudaGroupOptions options{
        .name = "tp", .rank = rank, .timeout = kTimeout, .device = Device()};
    for (int i = 0; i < size; ++i) options.ranks.push_back(i);
    return NcclGroup::Create(
        c10::make_intrusive<GangStoreAdapter>(store, kTimeout), options);
  }

  static c10::Device Device() { return c10::Device(DeviceForTest(0)); }

  static at::Tensor Range(int64_t count, at::ScalarType type) {
    return at::arange(count, at::dtype(at::kFloat).device(Device())).to(type);
  }

  std::unique_ptr<ProcessGroup> group_ =
      *Make(std::make_shared<FakeGangStore>(), 0, 1);
};

TEST_F(NcclGroupTest, OneRankGetsWhatItGave) {
  for (const at::ScalarType type :
       {at::kBool, at::kByte, at::kShort, at::kInt, at::kLong, at::kHalf,
        at::kBFloat16, at::kFloat, at::kDouble}) {
    for (const int64_t count : {0, 6}) {
      SCOPED_TRACE(absl::StrCat(c10::toString(type), "[", count, "]"));
      const at::Tensor x = Range(count, type);
      for (const ReduceOp op :
           {ReduceOp::kSum, ReduceOp::kMax, ReduceOp::kMin}) {
        EXPECT_TRUE(group_->AllReduce(x, op).equal(x));
        EXPECT_TRUE(group_->ReduceScatter(x, op).equal(x));
      }
      const auto fill = [&](auto&& move) {
        at::Tensor output = at::zeros_like(x);
        move(output);
        group_->Finish();
        EXPECT_TRUE(output.equal(x));
      };
      fill([&](const at::Tensor& y) { group_->AllGather(y, x); });
      fill([&](const at::Tensor& y) {
        group_->AllToAll(y, x, {count}, {count});
      });
      fill([&](const at::Tensor& y) { group_->Scatter(y, x, 0); });
      fill([&](const at::Tensor& y) {
        y.copy_(x);
        group_->Broadcast(y, 0);
      });
    }
  }
}

TEST_F(NcclGroupTest, WhatFollowsOnTheStreamFindsTheResult) {
  // Long kernels before and after, and no wait of the host between.
  at::Tensor x =
      at::ones({2048, 2048}, at::dtype(at::kDouble).device(Device()));
  for (int i = 0; i < 3; ++i) {
    x = x.matmul(x).div(2048);
    x = group_->AllReduce(x, ReduceOp::kSum).mul(2);
  }
  group_->Finish();
  // x -> 2 x^2 elementwise, on equal elements: 2, 8, 128.
  EXPECT_TRUE(x.eq(128).all().item<bool>());
}

TEST_F(NcclGroupTest, HoldsNoResultsThatHaveCome) {
  const at::Tensor sum =
      group_->AllReduce(Range(4, at::kFloat), ReduceOp::kSum);
  group_->Finish();
  EXPECT_EQ(sum.use_count(), 1u);
  EXPECT_EQ(sum.storage().use_count(), 1u);
  group_->Finish();
}

TEST_F(NcclGroupTest, AnAbortedGroupIsOfNoMoreUse) {
  const at::Tensor x = Range(4, at::kFloat);
  group_->AllReduce(x, ReduceOp::kSum);
  group_->Abort();
  group_->Abort();
  EXPECT_THROW(group_->AllReduce(x, ReduceOp::kSum), c10::DistBackendError);
  EXPECT_THROW(group_->Finish(), c10::DistBackendError);
}

TEST_F(NcclGroupTest, HasNoWatchdogThatCouldEndTheProcess) {
  group_->AllReduce(Range(4, at::kFloat), ReduceOp::kSum);
  group_->Finish();
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream file(task.path() / "comm");
    std::string name;
    std::getline(file, name);
    EXPECT_THAT(name, testing::Not(testing::StartsWith("pt_nccl")));
  }
}

TEST_F(NcclGroupTest, RanksThatShareAGpuUnaskedAreRefused) {
  unsetenv("NCCL_MULTI_RANK_GPU_ENABLE");
  auto store = std::make_shared<FakeGangStore>();
  ForEachRank(2, [&](int rank) {
    EXPECT_THAT(Make(store, rank, 2),
                AllOf(StatusIs(StatusCode::kFailedPrecondition,
                               AllOf(HasSubstr("mesh dim tp"),
                                     HasSubstr("ranks 0 and 1 on GPU-"),
                                     HasSubstr("with NCCL "))),
                      HasReason("GPU_SHARED")));
  });
}

TEST_F(NcclGroupTest, ARankThatDoesNotComeIsWaitedForInVain) {
  CudaGroupOptions options{.name = "tp",
                           .ranks = {0, 1},
                           .rank = 0,
                           .timeout = std::chrono::milliseconds(200),
                           .device = Device()};
  EXPECT_THROW(
      NcclGroup::Create(c10::make_intrusive<GangStoreAdapter>(
                            std::make_shared<FakeGangStore>(), options.timeout),
                        options)
          .IgnoreError(),
      c10::DistStoreError);
}

}  // namespace
}  // namespace shardplane
