// As libcuda.so.1: a driver that notes what it is asked to start. A function is
// its name; what is started is added to a file named by FAKE_CUDA_LOG, a line
// each: name, blocks, threads, stream, and the argument's first 8 bytes. The
// thread that loads the library has a context, and others have none.
// FAKE_CUDA_LACKS is the name of a function that the image lacks, and
// FAKE_CUDA_FAILS that of a call that fails.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>

namespace {

constexpr int kNoContext = 201;
constexpr int kNotFound = 500;
constexpr int kLaunchFailed = 719;

thread_local void* context = nullptr;
[[maybe_unused]] const bool loaded = [] {
  context = &context;
  return true;
}();

bool Is(const char* variable, const std::string& value) {
  const char* const set = std::getenv(variable);
  return set != nullptr && set == value;
}

}  // namespace

extern "C" {

int cuCtxGetCurrent(void** current) {
  *current = context;
  return 0;
}

int cuCtxSetCurrent(void* wanted) {
  context = wanted;
  return 0;
}

int cuModuleLoadData(void** module, const void* image) {
  *module = const_cast<void*>(image);
  return Is("FAKE_CUDA_FAILS", "cuModuleLoadData") ? kLaunchFailed : 0;
}

int cuModuleGetFunction(void** function, void*, const char* name) {
  static auto* const names = new std::set<std::string>();
  *function = const_cast<char*>(names->insert(name).first->c_str());
  return Is("FAKE_CUDA_LACKS", name) ? kNotFound : 0;
}

int cuLaunchKernel(void* function, unsigned blocks, unsigned blocks_y,
                   unsigned blocks_z, unsigned threads, unsigned threads_y,
                   unsigned threads_z, unsigned shared, void* stream,
                   void** arguments, void** extra) {
  if (context == nullptr) return kNoContext;
  if (Is("FAKE_CUDA_FAILS", "cuLaunchKernel")) return kLaunchFailed;
  uint64_t first = 0;
  std::memcpy(&first, arguments[0], sizeof(first));
  FILE* const log = std::fopen(std::getenv("FAKE_CUDA_LOG"), "a");
  std::fprintf(log, "%s %u,%u,%u %u,%u,%u %u %p %lx %s\n",
               static_cast<const char*>(function), blocks, blocks_y, blocks_z,
               threads, threads_y, threads_z, shared, stream,
               static_cast<unsigned long>(first),
               extra == nullptr ? "-" : "extra");
  std::fclose(log);
  return 0;
}

int cuGetErrorString(int error, const char** text) {
  *text = error == kNotFound ? "named symbol not found"
                             : "unspecified launch failure";
  return 0;
}

}  // extern "C"
