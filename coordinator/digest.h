// A digest of what a request asks for, to tell a repeated call from another.
#ifndef SHARDPLANE_COORDINATOR_DIGEST_H_
#define SHARDPLANE_COORDINATOR_DIGEST_H_

#include <string>

#include "absl/strings/string_view.h"

namespace shardplane {

// 32 hex digits: FNV-1a of 128 bits over 64-bit words (the last one padded
// with zeros), then the length; by words, since it runs over every inline
// tensor. Tells mistakes apart, not attackers.
std::string Digest(absl::string_view bytes);

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_DIGEST_H_
