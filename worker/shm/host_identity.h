// Which processes can share memory with this one: what a rank tells the others
// of where it runs.
#ifndef SHARDPLANE_WORKER_SHM_HOST_IDENTITY_H_
#define SHARDPLANE_WORKER_SHM_HOST_IDENTITY_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace shardplane {

// What must be alike: descriptors are passed between processes of one kernel,
// by a socket whose name counts in one network namespace, to the same user.
struct HostIdentity {
  std::string kernel;   // the boot's id
  std::string network;  // the namespace's, "net:[4026531833]"
  std::string user;     // its number
  // Of what lies in the memory: programs of another version differ in it.
  std::string layout;

  friend bool operator==(const HostIdentity&, const HostIdentity&) = default;
};

// Of this process. Unavailable: the system does not tell.
absl::StatusOr<HostIdentity> ThisHost();

// "kernel=3f… network=net:[4026531833] user=1000 layout=1".
std::string ToString(const HostIdentity& identity);
// nullopt: it is not such a text.
std::optional<HostIdentity> ParseHostIdentity(absl::string_view text);

// What keeps `b` from sharing memory with `a`, as the end of a sentence: "is on
// another machine than"; "" if nothing does.
std::string HowApart(const HostIdentity& a, const HostIdentity& b);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_HOST_IDENTITY_H_
