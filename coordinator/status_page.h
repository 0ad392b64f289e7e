// The status page: one file, coordinator/status_page/, built into the binary.
#ifndef SHARDPLANE_COORDINATOR_STATUS_PAGE_H_
#define SHARDPLANE_COORDINATOR_STATUS_PAGE_H_

#include "telemetry/http_server.h"

namespace shardplane {

// Serves it at "/", with a policy by which it can load nothing but itself and
// ask nobody but its own origin. 304 for who has it; other paths are 404.
HttpRoute StatusPageRoute();

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_STATUS_PAGE_H_
