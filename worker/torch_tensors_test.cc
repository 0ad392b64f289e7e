// On CPUs, and in the target tagged gpu between them and a GPU.
#include "worker/torch_tensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/tensor.h"
#include "ATen/ops/zeros.h"
#include "ATen/ops/zeros_like.h"
#include "worker/device_for_test.h"

namespace shardplane {
namespace {

class CopyInChunksTest : public testing::Test {
 protected:
  const c10::Device device_ = c10::Device(DeviceForTest(0));
  const Staging staging_ =
      device_.is_cpu() ? Staging::kPlain : Staging::kPinned;
};

TEST_F(CopyInChunksTest, ThereAndBackWhateverTheChunks) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kBool}) {
    for (const int64_t rows : {0, 1, 5}) {
      const at::Tensor tensor =
          at::arange(rows * 3, at::kFloat).view({rows, 3}).to(type);
      for (const int64_t chunk : {4, 12, 1000}) {
        const at::Tensor there =
            at::zeros({rows, 3}, tensor.options().device(device_));
        CopyInChunks(tensor, there, chunk, staging_);
        const at::Tensor back = at::zeros_like(tensor);
        CopyInChunks(there, back, chunk, staging_);
        EXPECT_TRUE(back.equal(tensor)) << type << rows << " by " << chunk;
      }
    }
  }
}

TEST_F(CopyInChunksTest, OfOneElement) {
  const at::Tensor there = at::zeros({}, at::dtype(at::kLong).device(device_));
  CopyInChunks(at::tensor(7, at::kLong).view({}), there, 4, staging_);
  EXPECT_EQ(there.item<int64_t>(), 7);
}

// Contiguous, whatever strides it has where it goes no step.
TEST_F(CopyInChunksTest, OfOneElementWithStridesOfMany) {
  const at::Tensor four = at::arange(4, at::dtype(at::kFloat).device(device_));
  for (const at::Tensor& one :
       {four.view({1, 1, 4}).narrow(2, 2, 1).movedim(2, 0),
        four.narrow(0, 2, 1).as_strided({1}, {0}, 2)}) {
    const at::Tensor back = at::zeros(one.sizes(), at::kFloat);
    CopyInChunks(one, back, 4, staging_);
    EXPECT_EQ(back.item<float>(), 2);
    EXPECT_EQ(FromTorch(one).type.shape, one.sizes().vec());
  }
}

TEST_F(CopyInChunksTest, HostTensorsThereAndBack) {
  HostTensor host{{DType::kInt32, {2, 3}}, {}};
  const std::vector<int32_t> values = {1, 2, 3, 4, 5, 6};
  host.bytes.assign(reinterpret_cast<const char*>(values.data()), 24);
  EXPECT_EQ(FromTorch(ToTorch(host, device_)).bytes, host.bytes);
  // Columns 1 and 2, which do not lie in one run.
  const std::vector<Stretches> part = {{{0, 2}}, {{1, 2}}};
  const HostTensor columns = FromTorch(SliceToTorch(host, part, device_));
  EXPECT_EQ(columns.type, (TensorType{DType::kInt32, {2, 2}}));
  const std::vector<int32_t> kept = {2, 3, 5, 6};
  EXPECT_EQ(columns.bytes,
            std::string(reinterpret_cast<const char*>(kept.data()), 16));
  const at::Tensor turned = ToTorch(host, device_).t();
  EXPECT_EQ(FromTorch(turned).type.shape, (Shape{3, 2}));
}

}  // namespace
}  // namespace shardplane
