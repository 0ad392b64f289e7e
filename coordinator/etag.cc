#include "coordinator/etag.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {

absl::Status CheckEtag(absl::string_view given, absl::string_view present,
                       absl::string_view resource) {
  if (given.empty() || given == present) {
    return absl::OkStatus();
  }
  return MakeError(absl::StatusCode::kAborted,
                   absl::StrCat("etag: ", resource, " has changed; expected: ",
                                present, ", got: ", given),
                   {.reason = "ETAG_MISMATCH",
                    .metadata = {{"field", "etag"},
                                 {"resource", std::string(resource)},
                                 {"expected", std::string(present)}}});
}

}  // namespace shardplane
