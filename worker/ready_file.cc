#include "worker/ready_file.h"

#include <cstdio>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace shardplane {

absl::Status WriteReadyFile(const std::string& path, const ReadyFile& ready) {
  const std::string temporary = absl::StrCat(path, ".tmp", ready.pid);
  {
    std::ofstream out(temporary, std::ios::trunc);
    // Addresses hold nothing that JSON would have to escape.
    out << absl::StrFormat(
        "{\"address\": \"%s\", \"http_address\": \"%s\", \"pid\": %d}\n",
        ready.address, ready.http_address, ready.pid);
    if (!out.flush()) {
      return absl::InternalError(absl::StrCat("cannot write ", temporary));
    }
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    return absl::InternalError(
        absl::StrCat("cannot rename ", temporary, " to ", path));
  }
  return absl::OkStatus();
}

std::string HostOf(absl::string_view address) {
  const size_t colon = address.rfind(':');
  absl::string_view host = address.substr(0, colon);
  if (absl::StartsWith(host, "[") && absl::EndsWith(host, "]")) {
    host = host.substr(1, host.size() - 2);
  }
  return std::string(host);
}

std::string JoinHostPort(absl::string_view host, int port) {
  return absl::StrContains(host, ':') ? absl::StrCat("[", host, "]:", port)
                                      : absl::StrCat(host, ":", port);
}

bool IsWildcard(absl::string_view host) {
  return host == "0.0.0.0" || host == "::" || host.empty();
}

}  // namespace shardplane
