#include "client/shardctl/command_line.h"

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "client/shardctl/completion.h"
#include "client/shardctl/help_text.h"
#include "client/shardctl/manual.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(CommandLineTest, CommandArgumentsAndFlags) {
  const auto line = ParseCommandLine(
      {"get", "-o", "json", "deploy", "mlp", "--address=h:1", "--watch"});
  ASSERT_THAT(line, IsOk());
  EXPECT_EQ(line->command->name, "get");
  EXPECT_THAT(line->arguments, ElementsAre("deploy", "mlp"));
  EXPECT_THAT(line->flags.at("output"), ElementsAre("json"));
  EXPECT_THAT(line->flags.at("address"), ElementsAre("h:1"));
  EXPECT_TRUE(line->flags.contains("watch"));
  EXPECT_FALSE(line->flags.contains("context"));
}

TEST(CommandLineTest, ShortFlagsInEachSpelling) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"get", "wk", "-o", "json"},
                                             {"get", "wk", "-ojson"},
                                             {"get", "wk", "-o=json"}}) {
    const auto line = ParseCommandLine(words);
    ASSERT_THAT(line, IsOk());
    EXPECT_THAT(line->flags.at("output"), ElementsAre("json"));
  }
}

TEST(CommandLineTest, ArgumentsMayHaveNamesOfCommands) {
  const auto line = ParseCommandLine({"explain", "get", "top"});
  ASSERT_THAT(line, IsOk());
  EXPECT_EQ(line->command->name, "explain");
  EXPECT_THAT(line->arguments, ElementsAre("get", "top"));
}

TEST(CommandLineTest, GroupsListsAndStdin) {
  const auto context =
      ParseCommandLine({"config", "use-context", "lab", "--config", "f"});
  ASSERT_THAT(context, IsOk());
  EXPECT_EQ(context->command->name, "config use-context");
  EXPECT_THAT(context->arguments, ElementsAre("lab"));
  const auto apply = ParseCommandLine({"apply", "-f", "a", "-f", "-"});
  ASSERT_THAT(apply, IsOk());
  EXPECT_THAT(apply->flags.at("filename"), ElementsAre("a", "-"));
  EXPECT_THAT(apply->arguments, IsEmpty());
}

struct Mistake {
  std::vector<std::string> words;
  const char* message;
};

TEST(CommandLineTest, Mistakes) {
  const std::vector<Mistake> mistakes = {
      {{"gte"}, "there is no command \"gte\". Did you mean \"get\"?"},
      {{"get", "wk", "--ouput=json"}, "Did you mean \"--output\"?"},
      {{"get", "wk", "-o", "jsno"}, "got: jsno. Did you mean \"json\"?"},
      {{"get"}, "get: expected KIND [NAME...], got: 0 arguments"},
      {{"version", "x"}, "version: expected no arguments"},
      {{"get", "wk", "--timeout"}, "--timeout"},
      {{"config", "use", "x"}, "expected a command"},
  };
  for (const Mistake& mistake : mistakes) {
    EXPECT_THAT(ParseCommandLine(mistake.words),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr(mistake.message)));
  }
}

TEST(CommandLineTest, HelpIsThereForAll) {
  EXPECT_THAT(ParseCommandLine({})->help, HasSubstr("usage: shardctl"));
  EXPECT_THAT(ParseCommandLine({"help", "get"})->help,
              HasSubstr("shardctl get workers -o wide"));
  EXPECT_THAT(ParseCommandLine({"get", "wk", "--help"})->help,
              HasSubstr("shardctl get workers -o wide"));
  EXPECT_THAT(ParseCommandLine({"config"})->help,
              HasSubstr("config use-context"));
  EXPECT_THAT(ParseCommandLine({"help", "exit-codes"})->help,
              HasSubstr("  3   no coordinator has answered"));
  EXPECT_THAT(ParseCommandLine({"help", "gte"}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("Did you mean \"get\"?")));
}

TEST(CommandTableTest, EachCommandIsDocumented) {
  std::set<std::string> names;
  for (const Command& command : Commands()) {
    EXPECT_TRUE(names.insert(command.name).second) << command.name;
    EXPECT_NE(command.summary, "") << command.name;
    EXPECT_FALSE(absl::EndsWith(command.summary, ".")) << command.name;
    EXPECT_NE(command.run, nullptr) << command.name;
    ASSERT_FALSE(command.examples.empty()) << command.name;
    for (const Flag& flag : command.flags) {
      EXPECT_NE(flag.help, "") << command.name << " " << flag.name;
      EXPECT_EQ(flag.value.empty(), flag.kind == Flag::Kind::kSwitch)
          << command.name << " " << flag.name;
    }
  }
}

// Examples are command lines; of those with a pipe the part that is ours.
TEST(CommandTableTest, ExamplesParse) {
  for (const Command& command : Commands()) {
    for (const std::string& example : command.examples) {
      const std::string own = example.substr(0, example.find_first_of("|>"));
      const std::vector<std::string> words =
          absl::StrSplit(own, ' ', absl::SkipEmpty());
      EXPECT_THAT(ParseCommandLine(words), IsOk()) << example;
    }
  }
}

TEST(CommandTableTest, ScriptsAndManualHaveAllOfThem) {
  for (const std::string& text :
       {BashCompletion(), ZshCompletion(), ManualPage()}) {
    for (const Command& command : Commands()) {
      const std::string name =
          command.name.substr(0, command.name.find_first_of(" -"));
      EXPECT_THAT(text, HasSubstr(name));
    }
  }
}

}  // namespace
}  // namespace shardplane
