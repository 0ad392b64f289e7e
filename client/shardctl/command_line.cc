#include "client/shardctl/command_line.h"

#include <algorithm>
#include <deque>
#include <map>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/shardctl/help_text.h"
#include "client/shardctl/suggest.h"

namespace shardplane {
namespace {

constexpr char kHelpHint[] = "`shardctl help` lists commands";

// Where CLI11 leaves what it finds.
struct Slot {
  const Flag* flag;
  CLI::Option* option;
};

std::string Spelling(const Flag& flag) {
  return flag.letter == 0
             ? absl::StrCat("--", flag.name)
             : absl::StrCat("-", std::string(1, flag.letter), ",--", flag.name);
}

Slot AddFlag(const Flag& flag, CLI::App* app) {
  CLI::Option* option = nullptr;
  if (flag.kind == Flag::Kind::kSwitch) {
    option = app->add_flag(Spelling(flag));
  } else {
    option = app->add_option(Spelling(flag))
                 ->expected(1)
                 ->allow_extra_args(false)
                 ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  }
  return {&flag, option};
}

// A command and its flags as CLI11 has them.
struct Added {
  const Command* command;
  CLI::App* app;
  std::deque<Slot> slots;
};

// Groups of commands by their names.
using Groups = std::map<std::string, CLI::App*>;

// A command as CLI11 sees it, below its group if it is in one.
CLI::App* AddCommand(const std::string& name, Groups* groups, CLI::App* app) {
  const std::vector<std::string> words = absl::StrSplit(name, ' ');
  CLI::App* parent = app;
  if (words.size() > 1) {
    CLI::App*& group = (*groups)[words[0]];
    if (group == nullptr) {
      group = app->add_subcommand(words[0])->fallthrough();
      group->set_help_flag();
    }
    parent = group;
  }
  CLI::App* command = parent->add_subcommand(words.back())->fallthrough();
  command->set_help_flag();
  return command;
}

std::vector<std::string> FirstWords() {
  std::vector<std::string> names;
  for (const Command& command : Commands()) {
    names.push_back(command.name.substr(0, command.name.find(' ')));
  }
  names.push_back("help");
  return names;
}

bool IsGroup(const std::string& word) {
  return std::any_of(Commands().begin(), Commands().end(),
                     [&](const Command& command) {
                       return absl::StartsWith(command.name, word + " ");
                     });
}

std::vector<std::string> FlagNames(const Command* command) {
  std::vector<std::string> names = {"--help"};
  for (const Flag& flag : GlobalFlags()) {
    names.push_back(absl::StrCat("--", flag.name));
  }
  if (command != nullptr) {
    for (const Flag& flag : command->flags) {
      names.push_back(absl::StrCat("--", flag.name));
    }
  }
  return names;
}

std::string HintFor(const Command* command) {
  return command == nullptr
             ? kHelpHint
             : absl::StrCat("`shardctl help ", command->name, "`");
}

// What CLI11 knew nothing to do with are arguments, but for flags.
absl::Status CheckFlags(const Command& command,
                        const std::vector<std::string>& words) {
  for (const std::string& word : words) {
    if (word == "--") break;
    if (word.size() > 1 && word[0] == '-') {
      return UsageError(absl::StrCat("there is no flag ", word, ".",
                                     DidYouMean(word.substr(0, word.find('=')),
                                                FlagNames(&command))),
                        HintFor(&command));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckArguments(const Command& command, size_t count) {
  if (count >= command.least && count <= command.most) {
    return absl::OkStatus();
  }
  return UsageError(absl::StrCat(command.name, ": expected ",
                                 command.arguments.empty() ? "no arguments"
                                                           : command.arguments,
                                 ", got: ", count, " arguments"),
                    HintFor(&command));
}

absl::Status CheckChoices(const Flag& flag,
                          const std::vector<std::string>& values) {
  for (const std::string& value : values) {
    if (!flag.choices.empty() &&
        std::find(flag.choices.begin(), flag.choices.end(), value) ==
            flag.choices.end()) {
      return UsageError(absl::StrCat(
          "--", flag.name, ": expected ", absl::StrJoin(flag.choices, "|"),
          ", got: ", value, ".", DidYouMean(value, flag.choices)));
    }
  }
  return absl::OkStatus();
}

// `help`, `help COMMAND`, `--help`, nothing.
absl::StatusOr<CommandLine> Help(std::vector<std::string> words) {
  std::erase_if(words, [](const std::string& word) {
    return word == "help" || absl::StartsWith(word, "-");
  });
  absl::StatusOr<std::string> text = HelpText(words);
  if (!text.ok()) return text.status();
  return CommandLine{.help = *std::move(text)};
}

bool AsksForHelp(const std::vector<std::string>& words) {
  if (words.empty() || words.front() == "help") return true;
  for (const std::string& word : words) {
    if (word == "--") return false;
    if (word == "--help" || word == "-h") return true;
  }
  return words.size() == 1 && IsGroup(words.front());
}

// CLI11 takes "-o json" and "-ojson"; "-o=json" is "-ojson" to us.
std::vector<std::string> WithoutShortEquals(std::vector<std::string> words) {
  for (std::string& word : words) {
    if (word.size() > 2 && word[0] == '-' && word[1] != '-' && word[2] == '=') {
      word.erase(2, 1);
    }
  }
  return words;
}

// All that was typed, once CLI11 has taken it apart.
absl::StatusOr<CommandLine> Take(const Command& command,
                                 const std::deque<Slot>& slots,
                                 std::vector<std::string> words) {
  if (absl::Status status = CheckFlags(command, words); !status.ok()) {
    return status;
  }
  words.erase(std::remove(words.begin(), words.end(), "--"), words.end());
  CommandLine line{.command = &command, .arguments = std::move(words)};
  for (const Slot& slot : slots) {
    if (slot.option->count() == 0) continue;
    line.flags[slot.flag->name] = slot.option->results();
    if (absl::Status status = CheckChoices(*slot.flag, slot.option->results());
        !status.ok()) {
      return status;
    }
  }
  if (absl::Status status = CheckArguments(command, line.arguments.size());
      !status.ok()) {
    return status;
  }
  return line;
}

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLine(
    const std::vector<std::string>& typed) {
  const std::vector<std::string> words = WithoutShortEquals(typed);
  if (AsksForHelp(words)) return Help(words);
  const std::vector<std::string> names = FirstWords();
  if (!absl::StartsWith(words[0], "-") &&
      std::find(names.begin(), names.end(), words[0]) == names.end()) {
    return UsageError(absl::StrCat("there is no command \"", words[0], "\".",
                                   DidYouMean(words[0], names)),
                      kHelpHint);
  }
  CLI::App app;
  app.set_help_flag();
  app.allow_extras();
  // An argument may have the name of a command.
  app.require_subcommand(0, 1);
  std::deque<Slot> global;
  for (const Flag& flag : GlobalFlags()) {
    global.push_back(AddFlag(flag, &app));
  }
  std::deque<Added> all;
  Groups groups;
  for (const Command& command : Commands()) {
    Added added{&command, AddCommand(command.name, &groups, &app), global};
    for (const Flag& flag : command.flags) {
      added.slots.push_back(AddFlag(flag, added.app));
    }
    all.push_back(std::move(added));
  }
  std::string failure;
  try {  // CLI11 says what is wrong by throwing
    app.parse(std::vector<std::string>(words.rbegin(), words.rend()));
  } catch (const CLI::ParseError& error) {
    failure = error.what();
  }
  for (const Added& added : all) {
    if (!added.app->parsed()) continue;
    if (!failure.empty()) return UsageError(failure, HintFor(added.command));
    return Take(*added.command, added.slots, app.remaining());
  }
  return UsageError(failure.empty() ? "expected a command, got: none" : failure,
                    kHelpHint);
}

}  // namespace shardplane
