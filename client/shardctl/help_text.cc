#include "client/shardctl/help_text.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/shardctl/suggest.h"

namespace shardplane {
namespace {

constexpr char kAbout[] =
    "shardctl plans, runs and watches sharded models: the client of a "
    "Shardplane coordinator.\n";

std::string Rows(const std::vector<Table::Row>& rows) {
  Table table({{""}, {""}});
  for (const Table::Row& row : rows) {
    table.Add({absl::StrCat("  ", row[0]), row[1]});
  }
  return table.Text({.headers = false});
}

std::string FlagRows(const std::vector<Flag>& flags) {
  std::vector<Table::Row> rows;
  for (const Flag& flag : flags) {
    rows.push_back({FlagText(flag), flag.help});
  }
  return Rows(rows);
}

std::string CommandRows(const std::string& prefix) {
  std::vector<Table::Row> rows;
  for (const Command& command : Commands()) {
    if (absl::StartsWith(command.name, prefix)) {
      rows.push_back({command.name, command.summary});
    }
  }
  return Rows(rows);
}

std::string Overview() {
  return absl::StrCat(
      kAbout, "\nusage: shardctl COMMAND [ARGUMENTS] [FLAGS]\n\n",
      CommandRows(""), "  ",
      "help [COMMAND]: more about one; `help exit-codes`\n\nflags of all "
      "commands:\n",
      FlagRows(GlobalFlags()));
}

std::string ExitCodesHelp() {
  std::vector<Table::Row> rows;
  for (const ExitCodeText& row : ExitCodeTexts()) {
    rows.push_back({absl::StrCat(static_cast<int>(row.code)), row.meaning});
  }
  return absl::StrCat("exit codes:\n", Rows(rows));
}

std::string CommandHelp(const Command& command) {
  std::string text = absl::StrCat(
      command.summary, ".\n\nusage: shardctl ", command.name,
      command.arguments.empty() ? "" : " ", command.arguments, " [FLAGS]\n");
  if (!command.description.empty()) {
    absl::StrAppend(&text, "\n", command.description, "\n");
  }
  if (!command.examples.empty()) {
    absl::StrAppend(&text, "\nexamples:\n");
    for (const std::string& example : command.examples) {
      absl::StrAppend(&text, "  shardctl ", example, "\n");
    }
  }
  if (!command.flags.empty()) {
    absl::StrAppend(&text, "\nflags:\n", FlagRows(command.flags));
  }
  return absl::StrCat(text, "\nflags of all commands:\n",
                      FlagRows(GlobalFlags()));
}

std::vector<std::string> Topics() {
  std::vector<std::string> names = {"exit-codes"};
  for (const Command& command : Commands()) {
    names.push_back(command.name);
  }
  return names;
}

}  // namespace

std::string FlagText(const Flag& flag) {
  return absl::StrCat(
      flag.letter == 0 ? ""
                       : absl::StrCat("-", std::string(1, flag.letter), ", "),
      "--", flag.name, flag.value.empty() ? "" : "=", flag.value);
}

absl::StatusOr<std::string> HelpText(const std::vector<std::string>& words) {
  if (words.empty()) return Overview();
  if (words[0] == "exit-codes") return ExitCodesHelp();
  // The longest name that the words begin with: arguments may follow it.
  for (size_t count = words.size(); count > 0; --count) {
    const std::string name =
        absl::StrJoin(words.begin(), words.begin() + count, " ");
    for (const Command& command : Commands()) {
      if (command.name == name) return CommandHelp(command);
    }
  }
  if (const std::string group = CommandRows(words[0] + " "); !group.empty()) {
    return absl::StrCat("usage: shardctl ", words[0], " COMMAND\n\n", group);
  }
  return UsageError(absl::StrCat("there is no command \"", words[0], "\".",
                                 DidYouMean(words[0], Topics())),
                    "`shardctl help` lists commands");
}

}  // namespace shardplane
