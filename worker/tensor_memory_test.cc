#include "worker/tensor_memory.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "ATen/core/Tensor.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/full.h"
#include "ATen/ops/ones.h"
#include "c10/core/CPUAllocator.h"
#include "c10/util/Exception.h"

namespace shardplane {
namespace {

const void* PlaceOf(int64_t elements) {
  return at::empty({elements}, at::kFloat).const_data_ptr();
}

class TensorMemoryTest : public testing::Test {
 protected:
  void SetUp() override { KeepTensorMemory(); }
};

TEST_F(TensorMemoryTest, TensorsGetWhatOthersHaveLeft) {
  const void* const place = PlaceOf(1'000'000);
  EXPECT_EQ(PlaceOf(1'000'000), place);
  const at::Tensor other = at::empty({1'000'000}, at::kFloat);
  EXPECT_EQ(other.const_data_ptr(), place);
  EXPECT_NE(PlaceOf(1'000'000), place);
}

TEST_F(TensorMemoryTest, ResultsOfOperatorsToo) {
  const at::Tensor x = at::ones({1000});
  const void* const place = x.add(1).const_data_ptr();
  EXPECT_EQ(x.mul(3).const_data_ptr(), place);
}

TEST_F(TensorMemoryTest, ViewsHoldIt) {
  at::Tensor part = at::full({1000}, 3.0).narrow(0, 10, 5);
  at::full({1000}, 4.0);
  EXPECT_TRUE(part.equal(at::full({5}, 3.0)));
}

TEST_F(TensorMemoryTest, TensorsFromBeforeStayAsTheyAre) {
  c10::SetCPUAllocator(c10::GetDefaultCPUAllocator(), /*priority=*/1);
  at::Tensor before = at::full({1000}, 3.0);
  KeepTensorMemory();
  before.add_(at::ones({1000}));
  EXPECT_TRUE(before.equal(at::full({1000}, 4.0)));
  before.reset();
}

TEST_F(TensorMemoryTest, StoragesGrow) {
  at::Tensor x = at::full({10}, 3.0);
  x.resize_({2000});
  EXPECT_TRUE(x.narrow(0, 0, 10).equal(at::full({10}, 3.0)));
}

TEST_F(TensorMemoryTest, IsMeasured) {
  const int64_t before = MeasureTensorMemory().now;
  const at::Tensor x = at::ones({1000}, at::kFloat);
  ResetTensorMemoryMark();
  at::ones({500}, at::kFloat);
  EXPECT_EQ(MeasureTensorMemory().now - before, 4000);
  EXPECT_EQ(MeasureTensorMemory().most - before, 6000);
}

TEST_F(TensorMemoryTest, EmptyTensorsNeedNone) {
  EXPECT_EQ(at::empty({0}).const_data_ptr(), nullptr);
}

TEST_F(TensorMemoryTest, MoreThanThereIsIsAnErrorOfMemory) {
  EXPECT_THROW(at::empty({int64_t{1} << 45}, at::kFloat),
               c10::OutOfMemoryError);
}

TEST_F(TensorMemoryTest, WhatIsInUseSurvivesARelease) {
  const at::Tensor x = at::full({1000}, 3.0);
  PlaceOf(1'000'000);
  ReleaseTensorMemory();
  EXPECT_TRUE(x.equal(at::full({1000}, 3.0)));
}

}  // namespace
}  // namespace shardplane
