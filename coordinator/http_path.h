// Paths and queries of the HTTP API, as google.api.http has them.
#ifndef SHARDPLANE_COORDINATOR_HTTP_PATH_H_
#define SHARDPLANE_COORDINATOR_HTTP_PATH_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace shardplane {

// Name and value, in the order in which they came.
using HttpParameters = std::vector<std::pair<std::string, std::string>>;

// What a path says by a pattern: none, or the one field that it names. `*` is
// one segment, not empty.
//   "/v1/{name=workers/*}"  "/v1/workers/w0"    -> {{"name", "workers/w0"}}
//   "/v1/workers"           "/v1/workers"       -> {}
//   "/v1/{name=workers/*}"  "/v1/workers/a/b"   -> nullopt
std::optional<HttpParameters> MatchPath(absl::string_view pattern,
                                        absl::string_view path);

// "a=1&b=x%20y+z" -> {{"a", "1"}, {"b", "x y z"}}. InvalidArgument: a percent
// sign without two hexadecimal digits behind it.
absl::StatusOr<HttpParameters> ParseQuery(absl::string_view query);

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_HTTP_PATH_H_
