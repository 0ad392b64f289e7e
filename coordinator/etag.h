// Etags, as AIP-154 has them: a call that names one is refused if the resource
// has changed since.
#ifndef SHARDPLANE_COORDINATOR_ETAG_H_
#define SHARDPLANE_COORDINATOR_ETAG_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace shardplane {

// OK if the caller gave none. Aborted: `given` is not the `present` one of the
// resource of that name.
absl::Status CheckEtag(absl::string_view given, absl::string_view present,
                       absl::string_view resource);

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_ETAG_H_
