// How tests use worker/fake_nvml.
#ifndef SHARDPLANE_WORKER_FAKE_NVML_FOR_TEST_H_
#define SHARDPLANE_WORKER_FAKE_NVML_FOR_TEST_H_

#include <dlfcn.h>

#include <cstdlib>

namespace shardplane {

// From a test's runfiles, in which it starts. The old one lacks a function.
inline constexpr char kFakeNvml[] = "worker/libfake_nvml.so";
inline constexpr char kOldFakeNvml[] = "worker/libold_fake_nvml.so";
inline constexpr char kFakeGpu[] = "GPU-00010203-0405-0607-0809-0a0b0c0d0eff";

// Keeps the library loaded, and while it lives a function of it fails:
//   const FakeNvml fake("nvmlDeviceGetMemoryInfo=15");
class FakeNvml {
 public:
  explicit FakeNvml(const char* fails = "") : library_(Open()) {
    setenv("FAKE_NVML_FAILS", fails, /*replace=*/1);
  }
  ~FakeNvml() {
    unsetenv("FAKE_NVML_FAILS");
    if (library_ != nullptr) dlclose(library_);
  }
  FakeNvml(const FakeNvml&) = delete;
  FakeNvml& operator=(const FakeNvml&) = delete;

  // How many users have begun and not ended; -1: there is no library.
  int initialized() const {
    if (library_ == nullptr) return -1;
    return reinterpret_cast<int (*)()>(
        dlsym(library_, "fakeNvmlInitialized"))();
  }

 private:
  static void* Open() { return dlopen(kFakeNvml, RTLD_NOW | RTLD_LOCAL); }

  void* const library_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_FAKE_NVML_FOR_TEST_H_
