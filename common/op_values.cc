#include "common/op_values.h"

#include <variant>
#include <vector>

namespace shardplane {
namespace {

void Collect(const ProgramArgument& argument, std::vector<ValueId>* out) {
  if (const auto* ref = std::get_if<ValueRef>(&argument.value)) {
    out->push_back(ref->id);
  } else if (const auto* list =
                 std::get_if<ProgramArgumentList>(&argument.value)) {
    for (const ProgramArgument& item : *list) Collect(item, out);
  }
}

}  // namespace

std::vector<ValueId> ValuesReadBy(const Op& op) {
  std::vector<ValueId> ids;
  for (const ProgramArgument& arg : op.args) Collect(arg, &ids);
  for (const auto& [name, arg] : op.kwargs) Collect(arg, &ids);
  return ids;
}

}  // namespace shardplane
