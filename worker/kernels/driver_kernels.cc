#include "worker/kernels/driver_kernels.h"

#include <dlfcn.h>

#include <array>
#include <iterator>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"

namespace shardplane {
namespace {

// Of the CUDA driver API's reference: types that its functions take.
using CUresult = int;
using CUcontext = void*;
using CUmodule = void*;
using CUfunction = void*;
using CUstream = void*;

struct Driver {
  CUresult (*cuCtxGetCurrent)(CUcontext*) = nullptr;
  CUresult (*cuCtxSetCurrent)(CUcontext) = nullptr;
  CUresult (*cuModuleLoadData)(CUmodule*, const void*) = nullptr;
  CUresult (*cuModuleGetFunction)(CUfunction*, CUmodule, const char*) = nullptr;
  CUresult (*cuLaunchKernel)(CUfunction, unsigned, unsigned, unsigned, unsigned,
                             unsigned, unsigned, unsigned, CUstream, void**,
                             void**) = nullptr;
  CUresult (*cuGetErrorString)(CUresult, const char**) = nullptr;

  absl::Status Check(CUresult result, absl::string_view doing) const {
    if (result == 0) return absl::OkStatus();
    const char* what = nullptr;
    cuGetErrorString(result, &what);
    return absl::InternalError(
        absl::StrCat(doing, ": CUDA error ", result, ": ",
                     what == nullptr ? "of no name" : what));
  }
};

template <typename Function>
absl::Status Find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  return *function != nullptr
             ? absl::OkStatus()
             : absl::NotFoundError(absl::StrCat("CUDA's driver: no ", name));
}

// The library stays loaded: torch uses it, too.
absl::StatusOr<Driver> LoadDriver(const std::string& path) {
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return absl::NotFoundError(dlerror());
  Driver driver;
  absl::Status status;
  status.Update(Find(library, "cuModuleLoadData", &driver.cuModuleLoadData));
  status.Update(Find(library, "cuCtxGetCurrent", &driver.cuCtxGetCurrent));
  status.Update(Find(library, "cuCtxSetCurrent", &driver.cuCtxSetCurrent));
  status.Update(
      Find(library, "cuModuleGetFunction", &driver.cuModuleGetFunction));
  status.Update(Find(library, "cuLaunchKernel", &driver.cuLaunchKernel));
  status.Update(Find(library, "cuGetErrorString", &driver.cuGetErrorString));
  if (!status.ok()) return status;
  return driver;
}

// Those of one body, by element and, of a row kernel, by packs.
constexpr size_t kSizes = std::size(kPackCounts);
using Functions = std::array<std::array<CUfunction, kSizes>, 2>;

class Launcher : public KernelLauncher {
 public:
  Launcher(const Driver& driver, std::function<void*()> stream)
      : driver_(driver), stream_(std::move(stream)) {}

  absl::Status Load(absl::Span<const uint8_t> image);

#define SHARDPLANE_RUN(name, Args, Body)                                      \
  absl::Status Launch(Element element, int64_t blocks, const Args& args)      \
      override {                                                              \
    return Start(#name, name##_[static_cast<int>(element)][0], blocks, args); \
  }
  SHARDPLANE_KERNELS(SHARDPLANE_RUN)
#undef SHARDPLANE_RUN

#define SHARDPLANE_RUN(name, Args, Body)                                 \
  absl::Status Launch(Element element, int64_t blocks, const Args& args) \
      override {                                                         \
    const int packs = PacksOf(args.columns, args.packed, element);       \
    for (size_t i = 0; i < kSizes; ++i) {                                \
      if (kPackCounts[i] != packs) continue;                             \
      return Start(#name, name##_[static_cast<int>(element)][i], blocks, \
                   args);                                                \
    }                                                                    \
    return absl::InternalError("a kernel's row: too long");              \
  }
  SHARDPLANE_ROW_KERNELS(SHARDPLANE_RUN)
#undef SHARDPLANE_RUN

 private:
  template <typename Args>
  absl::Status Start(const char* name, CUfunction function, int64_t blocks,
                     const Args& args) {
    // CUDA's runtime gives a thread the GPU's context at its first call, which
    // a thread of autograd may not have made.
    CUcontext context = nullptr;
    driver_.cuCtxGetCurrent(&context);
    if (context != context_) driver_.cuCtxSetCurrent(context_);
    void* arguments[] = {const_cast<Args*>(&args)};
    return driver_.Check(
        driver_.cuLaunchKernel(function, static_cast<unsigned>(blocks), 1, 1,
                               kLanes, 1, 1, 0, stream_(), arguments, nullptr),
        absl::StrCat("starting ", name));
  }

  absl::Status Get(const std::string& name, CUfunction* function) {
    return driver_.Check(
        driver_.cuModuleGetFunction(function, module_, name.c_str()),
        absl::StrCat("looking up ", name));
  }

  const Driver driver_;
  const std::function<void*()> stream_;
  CUcontext context_ = nullptr;
  CUmodule module_ = nullptr;
#define SHARDPLANE_FUNCTIONS(name, Args, Body) Functions name##_ = {};
  SHARDPLANE_KERNELS(SHARDPLANE_FUNCTIONS)
  SHARDPLANE_ROW_KERNELS(SHARDPLANE_FUNCTIONS)
#undef SHARDPLANE_FUNCTIONS
};

absl::Status Launcher::Load(absl::Span<const uint8_t> image) {
  absl::Status status = driver_.Check(driver_.cuCtxGetCurrent(&context_),
                                      "asking for the GPU's context");
  if (!status.ok()) return status;
  status = driver_.Check(driver_.cuModuleLoadData(&module_, image.data()),
                         "loading the fused operators' kernels");
  if (!status.ok()) return status;
  for (int element = 0; element < 2; ++element) {
    const std::string type = element == 0 ? "_f32" : "_bf16";
#define SHARDPLANE_GET(name, Args, Body) \
  status.Update(Get(#name + type, &name##_[element][0]));
    SHARDPLANE_KERNELS(SHARDPLANE_GET)
#undef SHARDPLANE_GET
    for (size_t i = 0; i < kSizes; ++i) {
      const std::string packs = absl::StrCat("_", kPackCounts[i]);
#define SHARDPLANE_GET(name, Args, Body) \
  status.Update(Get(#name + type + packs, &name##_[element][i]));
      SHARDPLANE_ROW_KERNELS(SHARDPLANE_GET)
#undef SHARDPLANE_GET
    }
  }
  return status;
}

}  // namespace

absl::StatusOr<std::unique_ptr<KernelLauncher>> LoadDriverKernels(
    DriverKernelsOptions options) {
  if (options.image.empty()) {
    return absl::UnimplementedError(
        "the fused operators' kernels: this worker was built without nvcc");
  }
  absl::StatusOr<Driver> driver = LoadDriver(options.library);
  if (!driver.ok()) return driver.status();
  auto launcher =
      std::make_unique<Launcher>(*driver, std::move(options.stream));
  const absl::Status status = launcher->Load(options.image);
  if (!status.ok()) return status;
  return launcher;
}

}  // namespace shardplane
