// What torch and c10d throw, as a Status. Free of torch.
#ifndef SHARDPLANE_WORKER_TORCH_STATUS_H_
#define SHARDPLANE_WORKER_TORCH_STATUS_H_

#include <type_traits>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace shardplane {

// Call in a catch block: the current exception as a Status that begins with
// `doing` ("running program p"). Unavailable: a peer or the store is gone.
// InvalidArgument: shapes, types and ids that do not fit. Unimplemented, as
// named. ResourceExhausted: out of memory. Internal: anything else.
absl::Status CurrentExceptionToStatus(absl::string_view doing);

// Whether it is the device that failed, as a GPU does: from then on the process
// can use it no more.
bool IsDeviceFailure(const absl::Status& status);

// Runs `function`, which returns a Status or a StatusOr, and catches.
template <typename Function>
std::invoke_result_t<Function> CatchTorch(absl::string_view doing,
                                          Function&& function) {
  try {
    return function();
  } catch (...) {
    return CurrentExceptionToStatus(doing);
  }
}

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_TORCH_STATUS_H_
