#include "coordinator/digest.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "absl/numeric/int128.h"
#include "absl/strings/str_format.h"

namespace shardplane {

std::string Digest(absl::string_view bytes) {
  const absl::uint128 prime = absl::MakeUint128(0x1000000, 0x13b);
  absl::uint128 hash =
      absl::MakeUint128(0x6c62272e07bb0142, 0x62b821756295c58d);
  for (size_t i = 0; i < bytes.size(); i += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i,
                std::min(sizeof(word), bytes.size() - i));
    hash = (hash ^ word) * prime;
  }
  hash = (hash ^ bytes.size()) * prime;
  return absl::StrFormat("%016x%016x", absl::Uint128High64(hash),
                         absl::Uint128Low64(hash));
}

}  // namespace shardplane
