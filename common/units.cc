#include "common/units.h"

#include <algorithm>
#include <string>

namespace shardplane {
namespace {

// Parents of modules, by index; -1 of the root.
std::vector<int> ParentsOf(const GraphModule& module) {
  std::vector<int> parents(module.modules().size(), -1);
  for (size_t i = 0; i < parents.size(); ++i) {
    for (const auto& [name, child] : module.Children(static_cast<int>(i))) {
      parents[child] = static_cast<int>(i);
    }
  }
  return parents;
}

bool IsList(const ModuleNode& module) {
  return IsA(module, "ModuleList") || IsA(module, "ModuleDict");
}

class Finder {
 public:
  explicit Finder(const GraphModule& module)
      : module_(module), parents_(ParentsOf(module)) {}

  // The module whose unit module `index` is in.
  int HeadOf(int index) const {
    int head = index;
    int in_list = -1;
    int in_sequential = -1;
    for (int at = index; parents_[at] >= 0; at = parents_[at]) {
      const ModuleNode& parent = module_.modules()[parents_[at]];
      if (IsList(parent)) in_list = at;
      if (in_sequential < 0 && IsA(parent, "Sequential") &&
          HoldsParents(parents_[at])) {
        in_sequential = at;
      }
      head = at;
    }
    return in_list >= 0 ? in_list : in_sequential >= 0 ? in_sequential : head;
  }

  int64_t BytesOf(int index) const {
    int64_t bytes = 0;
    for (const int p : module_.ParametersOf(index)) {
      bytes += ByteSize(module_.parameters()[p].type);
    }
    return bytes;
  }

 private:
  // Whether a child has children of its own.
  bool HoldsParents(int index) const {
    const auto& children = module_.Children(index);
    return std::any_of(children.begin(), children.end(), [&](const auto& c) {
      return !module_.Children(c.second).empty();
    });
  }

  const GraphModule& module_;
  const std::vector<int> parents_;
};

}  // namespace

std::vector<int> UnitsOf(const GraphModule& module, int64_t unit_bytes) {
  const Finder finder(module);
  const int count = static_cast<int>(module.modules().size());
  std::vector<int> heads(count);
  std::vector<int64_t> bytes(count, 0);  // by head
  for (int i = 0; i < count; ++i) {
    heads[i] = finder.HeadOf(i);
    bytes[heads[i]] += finder.BytesOf(i);
  }
  std::vector<int> unit_of_head(count, -1);
  int unit = 0;
  int64_t in_unit = 0;
  for (int head = 0; head < count; ++head) {
    if (heads[head] != head || bytes[head] == 0) continue;
    if (in_unit > 0 && std::min(in_unit, bytes[head]) >= unit_bytes) {
      ++unit;
      in_unit = 0;
    }
    unit_of_head[head] = unit;
    in_unit += bytes[head];
  }
  std::vector<int> units(count);
  for (int i = 0; i < count; ++i) units[i] = unit_of_head[heads[i]];
  return units;
}

}  // namespace shardplane
