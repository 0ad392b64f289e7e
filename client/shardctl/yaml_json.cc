#include "client/shardctl/yaml_json.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/shardctl/failure.h"
#include "google/protobuf/util/json_util.h"
#include "yaml-cpp/yaml.h"

namespace shardplane {
namespace {

using Json = nlohmann::ordered_json;

Json ToJson(const YAML::Node& node) {
  switch (node.Type()) {
    case YAML::NodeType::Map: {
      Json object = Json::object();
      for (const auto& entry : node) {
        object[entry.first.as<std::string>()] = ToJson(entry.second);
      }
      return object;
    }
    case YAML::NodeType::Sequence: {
      Json list = Json::array();
      for (const YAML::Node& item : node) {
        list.push_back(ToJson(item));
      }
      return list;
    }
    case YAML::NodeType::Scalar:
      return node.Scalar();
    case YAML::NodeType::Null:
    case YAML::NodeType::Undefined:
      break;
  }
  return nullptr;
}

// Whether a plain scalar of this text would be read as another type.
bool NeedsQuotes(const std::string& text) {
  if (text.empty()) {
    return true;
  }
  bool truth;
  double number;
  const YAML::Node scalar(text);
  return text == "null" || text == "~" || text == "Null" || text == "NULL" ||
         YAML::convert<bool>::decode(scalar, truth) ||
         YAML::convert<double>::decode(scalar, number);
}

void Emit(const Json& json, YAML::Emitter* out) {
  if (json.is_structured() && json.empty()) {
    *out << YAML::Flow;
  }
  if (json.is_object()) {
    *out << YAML::BeginMap;
    for (const auto& [key, value] : json.items()) {
      *out << YAML::Key << key << YAML::Value;
      Emit(value, out);
    }
    *out << YAML::EndMap;
  } else if (json.is_array()) {
    *out << YAML::BeginSeq;
    for (const Json& item : json) {
      Emit(item, out);
    }
    *out << YAML::EndSeq;
  } else if (json.is_string()) {
    const std::string& text = json.get_ref<const std::string&>();
    if (NeedsQuotes(text)) {
      *out << YAML::DoubleQuoted;
    } else if (text.find('\n') != std::string::npos) {
      *out << YAML::Literal;
    }
    *out << text;
  } else {
    *out << json.dump();
  }
}

// Maps have no order of their own in protobuf: by their keys.
void SortMaps(const google::protobuf::Descriptor& type, Json* json) {
  if (!json->is_object()) return;  // a time, which is a string
  for (int i = 0; i < type.field_count(); ++i) {
    const google::protobuf::FieldDescriptor& field = *type.field(i);
    const auto value = json->find(field.json_name());
    if (value == json->end() ||
        field.cpp_type() !=
            google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) {
      continue;
    }
    if (field.is_map()) {
      const auto* values = field.message_type()->map_value();
      std::map<std::string, Json> sorted;
      for (auto& [key, item] : value->items()) {
        if (values->message_type() != nullptr) {
          SortMaps(*values->message_type(), &item);
        }
        sorted[key] = std::move(item);
      }
      *value = Json::object();
      for (auto& [key, item] : sorted) (*value)[key] = std::move(item);
    } else if (value->is_array()) {
      for (Json& item : *value) SortMaps(*field.message_type(), &item);
    } else {
      SortMaps(*field.message_type(), &*value);
    }
  }
}

}  // namespace

absl::StatusOr<std::vector<Document>> ParseDocuments(const std::string& text) {
  try {  // yaml-cpp says what is wrong by throwing
    std::vector<Document> documents;
    for (const YAML::Node& node : YAML::LoadAll(text)) {
      if (!node.IsNull()) {
        documents.push_back(ToJson(node));
      }
    }
    return documents;
  } catch (const YAML::Exception& error) {
    return UsageError(absl::StrCat("expected YAML or JSON, got: ", error.msg,
                                   " at line ", error.mark.line + 1,
                                   ", column ", error.mark.column + 1));
  }
}

absl::Status ParseMessage(const Document& document,
                          google::protobuf::Message* message) {
  const auto status =
      google::protobuf::util::JsonStringToMessage(document.dump(), message);
  if (status.ok()) {
    return absl::OkStatus();
  }
  return UsageError(
      absl::StrCat("expected a ", message->GetDescriptor()->name(),
                   ", got: ", std::string(status.message())),
      "docs/shardctl.md shows a file; fields are those of coordinator.proto");
}

std::string JsonText(const google::protobuf::Message& message) {
  return JsonOf(message).dump(2) + "\n";
}

Json JsonOf(const google::protobuf::Message& message) {
  std::string text;
  const auto status =
      google::protobuf::util::MessageToJsonString(message, &text);
  // It fails for an Any whose type this release does not know.
  if (!status.ok()) return Json{{"unprintable", status.ToString()}};
  Json json = Json::parse(text);
  SortMaps(*message.GetDescriptor(), &json);
  return json;
}

std::string YamlText(const google::protobuf::Message& message) {
  return YamlText(JsonOf(message));
}

std::string YamlText(const Json& json) {
  YAML::Emitter out;
  out.SetIndent(2);
  Emit(json, &out);
  return absl::StrCat(out.c_str(), "\n");
}

}  // namespace shardplane
