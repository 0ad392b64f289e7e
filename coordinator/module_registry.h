// The modules that have a name, as pure state: a request and a time go in, a
// record comes out.
#ifndef SHARDPLANE_COORDINATOR_MODULE_REGISTRY_H_
#define SHARDPLANE_COORDINATOR_MODULE_REGISTRY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/graph_module.h"
#include "coordinator/ids.h"

namespace shardplane {

// What a client wants kept.
struct ModuleSpec {
  // Shared with the records made of it; immutable, not nullptr.
  std::shared_ptr<const GraphModule> module;
  absl::btree_map<std::string, std::string> labels;
};

struct ModuleRecord {
  ModuleId id;
  std::string uid;  // "": a dry run
  absl::Time create_time;
  ModuleSpec spec;
  int64_t parameter_count = 0;  // elements; a tied weight once, no buffers
  int64_t parameter_bytes = 0;  // theirs; both end at 2^63 - 1

  // A module never changes: that of another one of the same name differs.
  std::string etag() const;
};

// With everything but a uid and a time.
ModuleRecord DescribeModule(ModuleId id, ModuleSpec spec);

// Owned and guarded by the coordinator.
//
//   Create("mlp", …)      modules/mlp
//   Create("mlp", …)      ALREADY_EXISTS, until Delete("mlp")
class ModuleRegistry {
 public:
  // The modules of a registry take memory of the coordinator.
  static constexpr size_t kDefaultMaxModules = 1000;

  explicit ModuleRegistry(size_t max_modules = kDefaultMaxModules)
      : max_modules_(max_modules) {}

  // AlreadyExists (field module_id), ResourceExhausted: Create would be
  // refused.
  absl::Status CheckRoomFor(const ModuleId& id) const;
  // Errors of CheckRoomFor; then nothing has changed.
  absl::StatusOr<ModuleRecord> Create(ModuleId id, ModuleSpec spec,
                                      std::string uid, absl::Time now);
  // NotFound.
  absl::StatusOr<ModuleRecord> Find(const ModuleId& id) const;
  std::vector<ModuleRecord> List() const;  // in the order of ids
  // `etag`: "", or Aborted unless it is the module's. NotFound unless
  // `allow_missing`.
  absl::Status Delete(const ModuleId& id, absl::string_view etag,
                      bool allow_missing);

 private:
  size_t max_modules_;
  absl::btree_map<ModuleId, ModuleRecord> modules_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_MODULE_REGISTRY_H_
