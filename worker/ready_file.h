// The file by which a daemon says where it listens, once it does.
#ifndef SHARDPLANE_WORKER_READY_FILE_H_
#define SHARDPLANE_WORKER_READY_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace shardplane {

struct ReadyFile {
  std::string address;       // HOST:PORT of the gRPC services
  std::string http_address;  // of metrics and health
  int pid = 0;
};

// Writes {"address": ..., "http_address": ..., "pid": ...} so that a reader
// sees all of it or none. Internal: the file system refuses.
absl::Status WriteReadyFile(const std::string& path, const ReadyFile& ready);

// HOST of "HOST:PORT": "[::1]:80" -> "::1".
std::string HostOf(absl::string_view address);
// HOST:PORT, with brackets where the host needs them.
std::string JoinHostPort(absl::string_view host, int port);
// Whether a server bound to `host` listens everywhere: "0.0.0.0", "::".
bool IsWildcard(absl::string_view host);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_READY_FILE_H_
