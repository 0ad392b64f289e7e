#include "worker/nccl_environment.h"

#include <cstdlib>

namespace shardplane {
namespace {

struct Variable {
  const char* name;
  const char* value;
};

constexpr Variable kVariables[] = {
    // No watchdog at all. Its other effect, that wait() blocks, is none here:
    // a group waits in Finish alone.
    {"TORCH_NCCL_BLOCKING_WAIT", "1"},
    // Should there be one after all, it and its monitor end nothing, and do
    // not sleep a minute beside a failed collective.
    {"TORCH_NCCL_ENABLE_MONITORING", "0"},
    {"TORCH_NCCL_ASYNC_ERROR_HANDLING", "0"},
    {"TORCH_NCCL_RETHROW_CUDA_ERRORS", "0"},
    {"TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC", "0"},
    {"TORCH_NCCL_DUMP_ON_TIMEOUT", "0"},
    // No record of past calls either: it keeps pointers that a watchdog clears.
    {"TORCH_NCCL_TRACE_BUFFER_SIZE", "0"},
    {"TORCH_FR_BUFFER_SIZE", "0"},
};

}  // namespace

void SetNcclEnvironment() {
  for (const Variable& variable : kVariables) {
    setenv(variable.name, variable.value, /*overwrite=*/1);
  }
}

}  // namespace shardplane
