#include "worker/torch_status.h"

#include <exception>
#include <new>
#include <optional>
#include <string>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "c10/util/Exception.h"
#include "common/errors.h"

namespace shardplane {
namespace {

// Gloo's exceptions are plain std::exceptions to us: its headers are another
// version than the wheel's code, so that types do not match. These words are
// in what it says when a peer is gone.
constexpr absl::string_view kPeerGone[] = {
    "Connection closed by peer",
    "Connection reset by peer",
    "Connection refused",
    "Broken pipe",
    "Socket closed",
    "Aborted",
    "Timed out waiting",
    "[gloo/transport",
};

absl::Status Make(absl::StatusCode code, absl::string_view reason,
                  absl::string_view doing, absl::string_view what) {
  return MakeError(code, absl::StrCat(doing, ": ", what),
                   {.reason = std::string(reason), .metadata = {}});
}

// CUDA's errors (cudaError) after which a process can use its GPU no more; all
// others are of the call alone.
constexpr int kLosesDevice[] = {
    46,                                 // devices unavailable
    214, 220,                           // ECC, NVLink: uncorrectable
    700, 702, 709, 710,                 // address, timeout, context, assert
    714, 715, 716, 717, 718, 719, 999,  // of a kernel that ran; unknown
};
constexpr int kNoMemory = 2;
constexpr char kDeviceFailed[] = "DEVICE_FAILED";

absl::Status FromDevice(const c10::AcceleratorError& error,
                        absl::string_view doing, absl::string_view what) {
  const int code = error.get_error_code();
  if (code == kNoMemory) {
    return Make(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY", doing,
                what);
  }
  const bool lost = absl::c_linear_search(kLosesDevice, code);
  return Make(absl::StatusCode::kInternal,
              lost ? kDeviceFailed : "DEVICE_REFUSED", doing, what);
}

absl::Status FromError(const c10::Error& error, absl::string_view doing) {
  const std::string what = error.what_without_backtrace();
  if (dynamic_cast<const c10::DistError*>(&error) != nullptr) {
    return Make(absl::StatusCode::kUnavailable, "PEER_UNREACHABLE", doing,
                what);
  }
  if (dynamic_cast<const c10::NotImplementedError*>(&error) != nullptr) {
    return Make(absl::StatusCode::kUnimplemented, "TORCH_NOT_IMPLEMENTED",
                doing, what);
  }
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr) {
    return Make(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY", doing,
                what);
  }
  // A GPU, in this call or one before it.
  if (const auto* of_device =
          dynamic_cast<const c10::AcceleratorError*>(&error)) {
    return FromDevice(*of_device, doing, what);
  }
  if (dynamic_cast<const c10::IndexError*>(&error) != nullptr) {
    return Make(absl::StatusCode::kInvalidArgument, "INDEX_OUT_OF_RANGE", doing,
                what);
  }
  if (absl::StrContains(what, "INTERNAL ASSERT FAILED")) {
    return Make(absl::StatusCode::kInternal, "TORCH_INTERNAL", doing, what);
  }
  return Make(absl::StatusCode::kInvalidArgument, "TORCH_REFUSED", doing, what);
}

}  // namespace

bool IsDeviceFailure(const absl::Status& status) {
  const std::optional<ErrorInfo> info = GetErrorInfo(status);
  return info.has_value() && info->reason == kDeviceFailed;
}

absl::Status CurrentExceptionToStatus(absl::string_view doing) {
  try {
    throw;
  } catch (const c10::Error& error) {
    return FromError(error, doing);
  } catch (const std::bad_alloc&) {
    return Make(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY", doing,
                "out of memory");
  } catch (const std::exception& error) {
    for (const absl::string_view words : kPeerGone) {
      if (absl::StrContains(error.what(), words)) {
        return Make(absl::StatusCode::kUnavailable, "PEER_UNREACHABLE", doing,
                    error.what());
      }
    }
    return Make(absl::StatusCode::kInternal, "TORCH_INTERNAL", doing,
                error.what());
  } catch (...) {
    return Make(absl::StatusCode::kInternal, "TORCH_INTERNAL", doing,
                "an exception of an unknown type");
  }
}

}  // namespace shardplane
