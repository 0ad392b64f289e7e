// What commands print.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_PRINTING_H_
#define SHARDPLANE_CLIENT_SHARDCTL_PRINTING_H_

#include <string>

#include "absl/status/status.h"
#include "client/shardctl/command.h"
#include "google/protobuf/message.h"
#include "nlohmann/json.hpp"

namespace shardplane {

// Whether -o asks for a form that programs read.
bool IsStructured(OutputFormat format);
// As JSON or YAML, whichever -o asks for.
void Print(const Invocation& invocation,
           const google::protobuf::Message& message);
void Print(const Invocation& invocation, const nlohmann::ordered_json& json);

// Lines that begin with + green, with - red.
std::string ColoredDiff(const Invocation& invocation, const std::string& diff);
// A table whose states stand out.
std::string ColoredStates(const Invocation& invocation,
                          const std::string& table);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_PRINTING_H_
