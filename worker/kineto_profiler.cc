#include "worker/kineto_profiler.h"

#include <unistd.h>

#include <fstream>
#include <iterator>
#include <set>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "c10/core/Device.h"
#include "c10/core/impl/VirtualGuardImpl.h"
#include "torch/csrc/autograd/profiler_kineto.h"
#include "worker/torch_status.h"

namespace shardplane {
namespace {

using torch::profiler::impl::ActivityType;
using torch::profiler::impl::ProfilerConfig;
using torch::profiler::impl::ProfilerState;

// Kineto writes files only, and a pod's other folders may be read-only.
absl::StatusOr<std::string> TextOf(
    torch::autograd::profiler::ProfilerResult& result) {
  const std::string path =
      absl::StrCat("/dev/shm/shardplane-profile-", getpid(), ".json");
  const absl::Cleanup removed = [&path] { unlink(path.c_str()); };
  result.save(path);
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (text.empty()) {
    return absl::InternalError(
        absl::StrCat("expected a profile in ", path, ", got: none"));
  }
  return text;
}

class KinetoProfiler : public Profiler {
 public:
  explicit KinetoProfiler(const std::string& device) : device_(device) {}

  absl::Status Begin() override {
    return CatchTorch("beginning a profile", [&] {
      const ProfilerConfig config(ProfilerState::KINETO);
      std::set<ActivityType> activities = {ActivityType::CPU};
      if (device_.is_cuda()) activities.insert(ActivityType::CUDA);
      torch::autograd::profiler::prepareProfiler(config, activities);
      torch::autograd::profiler::enableProfiler(config, activities);
      return absl::OkStatus();
    });
  }

  absl::StatusOr<std::string> End() override {
    return CatchTorch("ending a profile", [&]() -> absl::StatusOr<std::string> {
      if (device_.is_cuda()) {  // what the steps have begun
        c10::impl::VirtualGuardImpl(device_.type())
            .synchronizeDevice(device_.index());
      }
      const auto result = torch::autograd::profiler::disableProfiler();
      return TextOf(*result);
    });
  }

 private:
  const c10::Device device_;
};

}  // namespace

std::unique_ptr<Profiler> MakeKinetoProfiler(const std::string& device) {
  return std::make_unique<KinetoProfiler>(device);
}

}  // namespace shardplane
