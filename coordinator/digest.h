// A digest of what a request asks for, to tell a repeated call from another.
#ifndef SHARDPLANE_COORDINATOR_DIGEST_H_
#define SHARDPLANE_COORDINATOR_DIGEST_H_

#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace shardplane {

// XXH3 of 128 bits over all that is added, as if it were one text. It runs over
// every inline tensor, and is as fast as memory; it tells mistakes apart, not
// attackers. One thread at a time.
class Digester {
 public:
  Digester();
  ~Digester();
  Digester(const Digester&) = delete;
  Digester& operator=(const Digester&) = delete;

  void Add(absl::string_view bytes);
  std::string Finish() const;  // 32 hex digits; of all so far

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string Digest(absl::string_view bytes);  // the same of one text

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_DIGEST_H_
