#include "client/shardctl/printing.h"

#include <ostream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "client/shardctl/yaml_json.h"

namespace shardplane {
namespace {

struct StateColor {
  const char* state;
  const char* color;
};
// Words of tables; two blanks behind keep them from being parts of others.
constexpr StateColor kStateColors[] = {
    {"READY", kGreen},
    {"SUCCEEDED", kGreen},
    {"LOST", kRed},
    {"FAILED", kRed},
    {"FENCED", kRed},
    {"ERROR", kRed},
    {"AWAITING_DATA", kYellow},
    {"MATERIALIZING", kYellow},
    {"FORMING", kYellow},
    {"DRAINING", kYellow},
    {"RUNNING", kYellow},
    {"WARNING", kYellow},
    {"CANCELLED", kYellow},
    {"RETIRED", kYellow},
};

}  // namespace

bool IsStructured(OutputFormat format) {
  return format == OutputFormat::kJson || format == OutputFormat::kYaml;
}

void Print(const Invocation& invocation,
           const google::protobuf::Message& message) {
  Print(invocation, JsonOf(message));
}

void Print(const Invocation& invocation, const nlohmann::ordered_json& json) {
  invocation.out() << (invocation.output() == OutputFormat::kYaml
                           ? YamlText(json)
                           : json.dump(2) + "\n")
                   << std::flush;
}

std::string ColoredDiff(const Invocation& invocation, const std::string& diff) {
  if (!invocation.IsColored()) return diff;
  std::vector<std::string> lines = absl::StrSplit(diff, '\n');
  for (std::string& line : lines) {
    if (!line.empty() && line[0] == '+') {
      line = invocation.Colored(line, kGreen);
    } else if (!line.empty() && line[0] == '-') {
      line = invocation.Colored(line, kRed);
    }
  }
  std::string text;
  for (size_t i = 0; i < lines.size(); ++i) {
    absl::StrAppend(&text, i == 0 ? "" : "\n", lines[i]);
  }
  return text;
}

std::string ColoredStates(const Invocation& invocation,
                          const std::string& table) {
  if (!invocation.IsColored()) return table;
  std::vector<std::pair<std::string, std::string>> words;
  for (const StateColor& row : kStateColors) {
    words.emplace_back(
        absl::StrCat(row.state, "  "),
        absl::StrCat(invocation.Colored(row.state, row.color), "  "));
  }
  return absl::StrReplaceAll(table, words);
}

}  // namespace shardplane
