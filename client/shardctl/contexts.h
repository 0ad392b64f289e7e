// Coordinators under names, in a file of the user's.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_CONTEXTS_H_
#define SHARDPLANE_CLIENT_SHARDCTL_CONTEXTS_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace shardplane {

struct Context {
  std::string name;
  std::string address;  // host:port
  friend bool operator==(const Context&, const Context&) = default;
};

// What the file says:
//
//   current-context: local
//   contexts:
//     - name: local
//       address: 127.0.0.1:7070
//
// A value. Names are unique.
struct Contexts {
  std::string current;  // "": none
  std::vector<Context> all;

  const Context* Find(const std::string& name) const;
  // Adds it, or gives the one of that name the address.
  void Set(const Context& context);
  // False: there is none. The current one may be deleted: then none is.
  bool Delete(const std::string& name);
  std::vector<std::string> Names() const;
  friend bool operator==(const Contexts&, const Contexts&) = default;
};

// Usage error: the text is something else.
absl::StatusOr<Contexts> ParseContexts(const std::string& yaml);
std::string ContextsText(const Contexts& contexts);

// A file that there is not has no contexts. Usage error, naming it: it cannot
// be read, or is something else.
absl::StatusOr<Contexts> ReadContexts(const std::string& path);
// Complete or not at all; makes the folder.
absl::Status WriteContexts(const std::string& path, const Contexts& contexts);

using Getenv = std::function<std::string(const char*)>;  // "": not set

// `flag`, else SHARDPLANE_CONFIG, else shardplane/config.yaml in
// XDG_CONFIG_HOME or ~/.config.
std::string ContextsPath(const std::string& flag, const Getenv& getenv);

// Where the coordinator is: `address`, else that of the context `context`, else
// SHARDPLANE_ADDRESS, else that of the current context. Usage error: none of
// them says, or there is no such context.
absl::StatusOr<std::string> AddressOf(const std::string& address,
                                      const std::string& context,
                                      const Contexts& contexts,
                                      const Getenv& getenv);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_CONTEXTS_H_
