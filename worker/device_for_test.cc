#include "worker/device_for_test.h"

#include <algorithm>
#include <cstdlib>

#include "ATen/detail/CUDAHooksInterface.h"
#include "absl/strings/str_cat.h"
#include "worker/nccl_environment.h"

namespace shardplane {
namespace {

// Before main, while there is one thread. Where the machine has fewer GPUs than
// a test has ranks they shall share, if NCCL can; LocalCluster says the same.
[[maybe_unused]] const bool prepared = [] {
  SetNcclEnvironment();
  setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", /*overwrite=*/0);
  setenv("NCCL_NVLS_ENABLE", "0", /*overwrite=*/0);
  setenv("NCCL_MAX_CTAS", "4", /*overwrite=*/0);
  return true;
}();

}  // namespace

std::string DeviceForTest(int rank) {
  const char* kind = std::getenv("SHARDPLANE_TEST_DEVICE");
  if (kind == nullptr || std::string(kind) == "cpu") return "cpu";
  return absl::StrCat(kind, ":", rank % std::max(CountGpus(), 1));
}

int CountGpus() { return at::detail::getCUDAHooks().deviceCount(); }

bool TooFewGpus(const absl::Status& formed, int ranks) {
  return absl::IsFailedPrecondition(formed) && CountGpus() < ranks;
}

}  // namespace shardplane
