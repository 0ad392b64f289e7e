// On a CPU, and in the target tagged gpu to a GPU.
#include "worker/stored_tensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "ATen/Context.h"
#include "ATen/core/Tensor.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/randn.h"
#include "common/host_tensor.h"
#include "common/spec_enumeration.h"
#include "tests/matchers.h"
#include "worker/device_for_test.h"
#include "worker/weights/safetensors_for_test.h"

namespace shardplane {
namespace {

using testing::HasSubstr;

class LoadPartTest : public testing::Test {
 protected:
  // A tensor behind another one, in a file of its own.
  WeightFiles::Found Store(const HostTensor& tensor) {
    folder_.Write(
        "f", SafetensorsOf(
                 {{"before", Counting({DType::kInt64, {3}})}, {"w", tensor}}));
    WeightFiles files(folder_ / "");
    return *files.Find("f", {{"w"}});
  }

  const TestFolder folder_;
  const c10::Device device_ = c10::Device(DeviceForTest(0));
};

TEST_F(LoadPartTest, EveryPartOfEveryMesh) {
  const HostTensor whole = Counting({DType::kInt64, {5, 3, 4}});
  const WeightFiles::Found found = Store(whole);
  int parts = 0;
  for (const DeviceMesh& mesh : SmallMeshes()) {
    if (mesh.ndim() > 2) continue;
    for (const DTensorSpec& spec : AllSpecs(mesh, 3)) {
      if (HasPartial(spec)) continue;
      for (int rank = 0; rank < mesh.size(); ++rank) {
        const std::vector<Stretches> part =
            LocalStretches(whole.type.shape, spec, mesh, mesh.Coordinate(rank));
        const auto local = LoadPart(
            found, part,
            {.dtype = DType::kInt64, .device = device_, .chunk_bytes = 56});
        ASSERT_THAT(local, IsOk());
        ASSERT_EQ(FromTorch(*local), SliceHost(whole, part))
            << ToString(spec) << " rank " << rank;
        ++parts;
      }
    }
  }
  EXPECT_GT(parts, 100);
}

// Chunks of whatever size, with elements of other sizes on either side.
TEST_F(LoadPartTest, ConvertsFloatsAsACopyDoes) {
  at::manual_seed(3);
  const at::Tensor whole = at::randn({7, 5});
  const WeightFiles::Found found = Store(FromTorch(whole));
  const std::vector<Stretches> part = {{{1, 2}, {4, 2}}, {{1, 3}}};
  const at::Tensor wanted =
      at::cat({whole.narrow(0, 1, 2), whole.narrow(0, 4, 2)}).narrow(1, 1, 3);
  for (const auto& [dtype, type] :
       {std::pair{DType::kFloat32, at::kFloat},
        std::pair{DType::kFloat64, at::kDouble},
        std::pair{DType::kFloat16, at::kHalf},
        std::pair{DType::kBFloat16, at::kBFloat16}}) {
    for (const int64_t chunk : {1, 8, 20, 1 << 20}) {
      const auto local =
          LoadPart(found, part,
                   {.dtype = dtype, .device = device_, .chunk_bytes = chunk});
      ASSERT_THAT(local, IsOk());
      EXPECT_TRUE(local->is_contiguous());
      EXPECT_EQ(local->scalar_type(), type);
      EXPECT_TRUE(local->cpu().equal(wanted.to(type))) << type << " " << chunk;
    }
  }
}

TEST_F(LoadPartTest, ScalarsAndNothing) {
  const HostTensor scalar = Counting({DType::kFloat32, {}});
  auto local = LoadPart(Store(scalar), {}, {.device = device_});
  ASSERT_THAT(local, IsOk());
  EXPECT_EQ(FromTorch(*local), scalar);
  const HostTensor none = Counting({DType::kFloat32, {2, 0}});
  const std::vector<Stretches> empty = {Stretches{{0, 1}}, Stretches{{0, 0}}};
  local = LoadPart(Store(none), empty, {.device = device_});
  ASSERT_THAT(local, IsOk());
  EXPECT_EQ(local->sizes(), (std::vector<int64_t>{1, 0}));
}

TEST_F(LoadPartTest, FileThatHasBecomeShorter) {
  const WeightFiles::Found found = Store(Counting({DType::kFloat32, {9}}));
  ASSERT_EQ(truncate(found.file->path().c_str(), found.tensor.offset + 35), 0);
  const std::vector<Stretches> last = {Stretches{{8, 1}}};
  EXPECT_THAT(LoadPart(found, last, {.device = device_}),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("no more")));
}

TEST(CanBecomeTest, ShapesAndFloats) {
  const TensorType f32{DType::kFloat32, {2}};
  EXPECT_TRUE(CanBecome(f32, f32));
  EXPECT_TRUE(CanBecome(f32, {DType::kBFloat16, {2}}));
  EXPECT_FALSE(CanBecome(f32, {DType::kFloat32, {2, 1}}));
  EXPECT_FALSE(CanBecome(f32, {DType::kInt32, {2}}));
  EXPECT_FALSE(CanBecome({DType::kInt32, {2}}, {DType::kInt64, {2}}));
  EXPECT_FALSE(CanBecome(f32, {DType::kComplex64, {2}}));
}

}  // namespace
}  // namespace shardplane
