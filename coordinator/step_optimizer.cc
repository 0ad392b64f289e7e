#include "coordinator/step_optimizer.h"

#include <string>
#include <vector>

#include "common/errors.h"
#include "proto/convert/field_path.h"
#include "proto/convert/optimizer.h"

namespace shardplane {

absl::Status CheckOptimizer(const OptimizerOptions& optimizer,
                            const GraphModule& module, absl::string_view kind,
                            absl::string_view field) {
  SP_RETURN_IF_ERROR(InField(CheckKind(optimizer, kind), field));
  if (optimizer.groups.empty()) return absl::OkStatus();
  std::vector<std::string> fqns;
  for (const Parameter& parameter : module.parameters()) {
    if (parameter.buffer || !parameter.alias_of.empty()) continue;
    fqns.push_back(parameter.fqn);
  }
  return InOptimizer(AssignGroups(optimizer, fqns).status(), field);
}

}  // namespace shardplane
