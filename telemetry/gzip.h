// The gzip form of bodies that go out over HTTP.
#ifndef SHARDPLANE_TELEMETRY_GZIP_H_
#define SHARDPLANE_TELEMETRY_GZIP_H_

#include <string>

#include "absl/strings/string_view.h"

namespace shardplane {

// `level` from 1, fast, to 9, small. What zlib cannot compress for want of
// memory is "", which no compressed text is.
std::string Gzip(absl::string_view text, int level);

// Whether a request with this Accept-Encoding may be answered with gzip.
// "br, gzip;q=0.5" -> true; "gzip;q=0" and "identity" -> false.
bool AcceptsGzip(absl::string_view accept_encoding);

}  // namespace shardplane

#endif  // SHARDPLANE_TELEMETRY_GZIP_H_
