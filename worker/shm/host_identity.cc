#include "worker/shm/host_identity.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/errors.h"

namespace shardplane {
namespace {

// Raised when ShmControl, the slots or what is sent at the rendezvous change.
constexpr int kLayout = 1;

constexpr char kKernel[] = "/proc/sys/kernel/random/boot_id";
constexpr char kNetwork[] = "/proc/self/ns/net";

struct Field {
  const char* name;
  std::string HostIdentity::*value;
  const char* apart;
};
// In the order of their weight: the first that differs is told.
constexpr Field kFields[] = {
    {"kernel", &HostIdentity::kernel, "is on another machine than"},
    {"network", &HostIdentity::network, "is in another network namespace than"},
    {"user", &HostIdentity::user, "runs as another user than"},
    {"layout", &HostIdentity::layout, "runs another version than"},
};

absl::Status CannotRead(const char* path, absl::string_view why) {
  return MakeError(
      absl::StatusCode::kUnavailable,
      absl::StrCat("shared memory: expected to read ", path, "; got: ", why),
      {.reason = "NO_HOST_IDENTITY", .metadata = {}});
}

}  // namespace

absl::StatusOr<HostIdentity> ThisHost() {
  HostIdentity identity{.kernel = "",
                        .network = "",
                        .user = absl::StrCat(geteuid()),
                        .layout = absl::StrCat(kLayout)};
  std::ifstream kernel(kKernel);
  if (!std::getline(kernel, identity.kernel) || identity.kernel.empty()) {
    return CannotRead(kKernel, "nothing");
  }
  std::error_code error;
  identity.network = std::filesystem::read_symlink(kNetwork, error).string();
  if (error) return CannotRead(kNetwork, error.message());
  return identity;
}

std::string ToString(const HostIdentity& identity) {
  std::string text;
  for (const Field& field : kFields) {
    absl::StrAppend(&text, text.empty() ? "" : " ", field.name, "=",
                    identity.*field.value);
  }
  return text;
}

std::optional<HostIdentity> ParseHostIdentity(absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ' ');
  if (parts.size() != std::size(kFields)) return std::nullopt;
  HostIdentity identity;
  for (size_t i = 0; i < parts.size(); ++i) {
    absl::string_view part = parts[i];
    if (!absl::ConsumePrefix(&part, absl::StrCat(kFields[i].name, "=")))
      return std::nullopt;
    identity.*kFields[i].value = std::string(part);
  }
  return identity;
}

std::string HowApart(const HostIdentity& a, const HostIdentity& b) {
  for (const Field& field : kFields) {
    if (a.*field.value != b.*field.value) return field.apart;
  }
  return "";
}

}  // namespace shardplane
