// A library as NVIDIA's driver has it, for machines without one. It knows one
// GPU, and its figures never change. $FAKE_NVML_FAILS, as
// "nvmlDeviceGetMemoryInfo=15", names a function that answers with that code.
#include <cstdlib>
#include <cstring>

namespace {

int initialized = 0;
int device;  // its address is the handle

int CodeOf(const char* function) {
  const char* fails = std::getenv("FAKE_NVML_FAILS");
  const size_t length = std::strlen(function);
  if (fails != nullptr && std::strncmp(fails, function, length) == 0 &&
      fails[length] == '=') {
    return std::atoi(fails + length + 1);
  }
  return initialized > 0 ? 0 : 1;  // NVML_ERROR_UNINITIALIZED
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int nvmlInit_v2() {
  ++initialized;
  const int code = CodeOf("nvmlInit_v2");
  if (code != 0) --initialized;
  return code;
}

EXPORT int nvmlShutdown() {
  --initialized;
  return 0;
}

// For tests: how many have begun and not ended.
EXPORT int fakeNvmlInitialized() { return initialized; }

EXPORT const char* nvmlErrorString(int code) {
  switch (code) {
    case 3:
      return "Not Supported";
    case 4:
      return "Insufficient Permissions";
    case 6:
      return "Not Found";
    case 9:
      return "Driver Not Loaded";
    case 15:
      return "GPU is lost";
    default:
      return "Unknown Error";
  }
}

EXPORT int nvmlDeviceGetHandleByUUID(const char* uuid, void** handle) {
  const int code = CodeOf("nvmlDeviceGetHandleByUUID");
  if (code != 0) return code;
  if (std::strcmp(uuid, "GPU-00010203-0405-0607-0809-0a0b0c0d0eff") != 0) {
    return 6;
  }
  *handle = &device;
  return 0;
}

#ifndef FAKE_NVML_IS_OLD
EXPORT int nvmlDeviceGetUtilizationRates(void* handle, unsigned int* rates) {
  const int code = CodeOf("nvmlDeviceGetUtilizationRates");
  if (code != 0 || handle != &device) return code != 0 ? code : 2;
  rates[0] = 75;
  rates[1] = 20;
  return 0;
}
#endif

EXPORT int nvmlDeviceGetMemoryInfo(void* handle, unsigned long long* memory) {
  const int code = CodeOf("nvmlDeviceGetMemoryInfo");
  if (code != 0 || handle != &device) return code != 0 ? code : 2;
  memory[0] = 150'000'000'000;  // in all
  memory[1] = 100'000'000'000;  // free
  memory[2] = 50'000'000'000;   // used
  return 0;
}
