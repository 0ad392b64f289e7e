// YAML and JSON: one value in two forms.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_YAML_JSON_H_
#define SHARDPLANE_CLIENT_SHARDCTL_YAML_JSON_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "google/protobuf/message.h"
#include "nlohmann/json.hpp"

namespace shardplane {

// A document of a file. Every scalar but null is a string, as it is written:
// protobuf's JSON takes strings for numbers, enums and truth values, too, and a
// name that looks like a number (`fqn: 0`) stays a name.
using Document = nlohmann::ordered_json;

// The documents of a YAML file, which "---" parts; JSON is YAML. Those without
// content are left out. Usage error, with the line: it is neither.
absl::StatusOr<std::vector<Document>> ParseDocuments(const std::string& text);

// Usage error: a field that there is not, or a value that does not fit.
absl::Status ParseMessage(const Document& document,
                          google::protobuf::Message* message);

// Fields by the names of JSON ("srcDataRank"), what has its default left out.
std::string JsonText(const google::protobuf::Message& message);
std::string YamlText(const google::protobuf::Message& message);
// Of JSON as JsonText writes it.
std::string YamlText(const nlohmann::ordered_json& json);
nlohmann::ordered_json JsonOf(const google::protobuf::Message& message);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_YAML_JSON_H_
