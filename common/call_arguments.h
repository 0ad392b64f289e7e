// Reading the arguments of a call.
#ifndef SHARDPLANE_COMMON_CALL_ARGUMENTS_H_
#define SHARDPLANE_COMMON_CALL_ARGUMENTS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/op_rules.h"

namespace shardplane {

// For an argument that is given by keyword only.
inline constexpr int kKeywordOnly = 99;

// Argument `index`, or the keyword `name`; nullptr if absent or None.
const Argument* FindArgument(const OpCall& call, int index,
                             absl::string_view name);
std::optional<int64_t> IntArgument(const OpCall& call, int index,
                                   absl::string_view name);
// Also of an int.
std::optional<double> DoubleArgument(const OpCall& call, int index,
                                     absl::string_view name);
// Absent: false.
bool BoolArgument(const OpCall& call, int index, absl::string_view name);
// A list of ints, or one int; nullopt if absent or anything else.
std::optional<std::vector<int64_t>> IntsArgument(const OpCall& call, int index,
                                                 absl::string_view name);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_CALL_ARGUMENTS_H_
