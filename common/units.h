// The parts of a module whose parameters travel together where a mesh dim is
// data parallel. Used by compile.cc.
#ifndef SHARDPLANE_COMMON_UNITS_H_
#define SHARDPLANE_COMMON_UNITS_H_

#include <cstdint>
#include <vector>

#include "common/graph_module.h"

namespace shardplane {

// A collective of less would take as long.
inline constexpr int64_t kDefaultUnitBytes = int64_t{1} << 16;

// By index of the module: which unit it is in, counted in order of
// registration; -1: neither it nor a module below it has parameters.
//   in a ModuleList or ModuleDict   each child, of the outermost: a layer
//   else in a Sequential            each child, of the innermost that holds
//                                   modules which have children
//   else                            each child of the root; the root itself
// Neighbours are one unit unless both have `unit_bytes` of parameters.
std::vector<int> UnitsOf(const GraphModule& module,
                         int64_t unit_bytes = kDefaultUnitBytes);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_UNITS_H_
