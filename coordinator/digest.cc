#include "coordinator/digest.h"

// Header only: its functions become part of this file.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_format.h"

namespace shardplane {
namespace {

std::string Text(const XXH128_hash_t& hash) {
  return absl::StrFormat("%016x%016x", hash.high64, hash.low64);
}

}  // namespace

struct Digester::State {
  XXH3_state_t xxh3;
};

Digester::Digester() : state_(std::make_unique<State>()) {
  XXH3_128bits_reset(&state_->xxh3);
}

Digester::~Digester() = default;

void Digester::Add(absl::string_view bytes) {
  XXH3_128bits_update(&state_->xxh3, bytes.data(), bytes.size());
}

std::string Digester::Finish() const {
  return Text(XXH3_128bits_digest(&state_->xxh3));
}

std::string Digest(absl::string_view bytes) {
  return Text(XXH3_128bits(bytes.data(), bytes.size()));
}

}  // namespace shardplane
