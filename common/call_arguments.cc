#include "common/call_arguments.h"

#include <string>
#include <variant>

namespace shardplane {

const Argument* FindArgument(const OpCall& call, int index,
                             absl::string_view name) {
  const Argument* found = nullptr;
  if (index < static_cast<int>(call.args.size())) {
    found = &call.args[index];
  } else if (const auto it = call.kwargs.find(std::string(name));
             it != call.kwargs.end()) {
    found = &it->second;
  }
  if (found != nullptr &&
      std::holds_alternative<std::monostate>(found->value)) {
    return nullptr;
  }
  return found;
}

std::optional<int64_t> IntArgument(const OpCall& call, int index,
                                   absl::string_view name) {
  const Argument* argument = FindArgument(call, index, name);
  if (argument == nullptr) return std::nullopt;
  const auto* value = std::get_if<int64_t>(&argument->value);
  return value == nullptr ? std::nullopt : std::optional(*value);
}

std::optional<std::vector<int64_t>> IntsArgument(const OpCall& call, int index,
                                                 absl::string_view name) {
  const Argument* argument = FindArgument(call, index, name);
  if (argument == nullptr) return std::nullopt;
  if (const auto* one = std::get_if<int64_t>(&argument->value)) {
    return std::vector<int64_t>{*one};
  }
  const auto* list = std::get_if<ArgumentList>(&argument->value);
  if (list == nullptr) return std::nullopt;
  std::vector<int64_t> values;
  for (const Argument& item : *list) {
    const auto* value = std::get_if<int64_t>(&item.value);
    if (value == nullptr) return std::nullopt;
    values.push_back(*value);
  }
  return values;
}

std::optional<double> DoubleArgument(const OpCall& call, int index,
                                     absl::string_view name) {
  const Argument* argument = FindArgument(call, index, name);
  if (argument == nullptr) return std::nullopt;
  if (const auto* value = std::get_if<double>(&argument->value)) return *value;
  const auto* value = std::get_if<int64_t>(&argument->value);
  return value == nullptr ? std::nullopt
                          : std::optional(static_cast<double>(*value));
}

bool BoolArgument(const OpCall& call, int index, absl::string_view name) {
  const Argument* argument = FindArgument(call, index, name);
  const bool* value =
      argument == nullptr ? nullptr : std::get_if<bool>(&argument->value);
  return value != nullptr && *value;
}

}  // namespace shardplane
