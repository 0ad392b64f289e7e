// A profiler that writes down the ranges of a process, for tests: NVTX loads it
// where $NVTX_INJECTION64_PATH names it. With $NVTX_RECORDER_FILE it appends
// its lines to that file, which gets the number of the process behind its name:
//   shardplane{net1
//   shardplane}
// The domain stands before each; what is pushed without one is "default".
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <string>

#include "nvtx3/nvToolsExt.h"

namespace {

std::mutex& Lock() {
  static auto* mutex = new std::mutex;
  return *mutex;
}

std::string& Lines() {
  static auto* lines = new std::string;
  return *lines;
}

std::string NameOf(nvtxDomainHandle_t domain) {
  return domain == nullptr ? "default"
                           : *reinterpret_cast<std::string*>(domain);
}

void Write(const std::string& line) {
  const std::lock_guard<std::mutex> lock(Lock());
  Lines() += line + "\n";
  const char* file = std::getenv("NVTX_RECORDER_FILE");
  if (file == nullptr) return;
  const std::string path = std::string(file) + "." + std::to_string(getpid());
  if (std::FILE* out = std::fopen(path.c_str(), "a")) {
    std::fprintf(out, "%s\n", line.c_str());
    std::fclose(out);
  }
}

nvtxDomainHandle_t NVTX_API CreateDomain(const char* name) {
  return reinterpret_cast<nvtxDomainHandle_t>(new std::string(name));
}

void NVTX_API DestroyDomain(nvtxDomainHandle_t domain) {
  delete reinterpret_cast<std::string*>(domain);
}

// Kept for good, as by a profiler that reads them at its end.
nvtxStringHandle_t NVTX_API RegisterString(nvtxDomainHandle_t domain,
                                           const char* string) {
  static auto* strings = new std::deque<std::string>;
  const std::lock_guard<std::mutex> lock(Lock());
  Lines() += NameOf(domain) + " knows " + string + "\n";
  return reinterpret_cast<nvtxStringHandle_t>(&strings->emplace_back(string));
}

int NVTX_API PushRange(nvtxDomainHandle_t domain,
                       const nvtxEventAttributes_t* attributes) {
  const bool registered =
      attributes->messageType == NVTX_MESSAGE_TYPE_REGISTERED;
  Write(NameOf(domain) + "{" +
        (registered ? *reinterpret_cast<const std::string*>(
                          attributes->message.registered)
                    : attributes->message.ascii));
  return 0;
}

int NVTX_API PopRange(nvtxDomainHandle_t domain) {
  Write(NameOf(domain) + "}");
  return 0;
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// All since the last call, valid until the next one.
EXPORT const char* TakeNvtxLines() {
  static auto* taken = new std::string;
  const std::lock_guard<std::mutex> lock(Lock());
  taken->clear();
  taken->swap(Lines());
  return taken->c_str();
}

EXPORT int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get_table) {
  const auto* callbacks = static_cast<const NvtxExportTableCallbacks*>(
      get_table(NVTX_ETID_CALLBACKS));
  NvtxFunctionTable table = nullptr;
  unsigned int size = 0;
  if (callbacks == nullptr ||
      callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size) ==
          0 ||
      size <= NVTX_CBID_CORE2_DomainDestroy) {
    return 0;
  }
  const auto set = [table](int id, auto* function) {
    *table[id] = reinterpret_cast<NvtxFunctionPointer>(function);
  };
  set(NVTX_CBID_CORE2_DomainCreateA, CreateDomain);
  set(NVTX_CBID_CORE2_DomainDestroy, DestroyDomain);
  set(NVTX_CBID_CORE2_DomainRegisterStringA, RegisterString);
  set(NVTX_CBID_CORE2_DomainRangePushEx, PushRange);
  set(NVTX_CBID_CORE2_DomainRangePop, PopRange);
  return 1;
}
