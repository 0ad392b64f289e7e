#include "client/shardctl/contexts.h"

#include <filesystem>
#include <fstream>
#include <map>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::HasSubstr;

Contexts Two() {
  return {.current = "lab", .all = {{"lab", "10.0.0.7:1"}, {"home", "h:2"}}};
}

Getenv From(std::map<std::string, std::string> variables) {
  return [variables](const char* name) {
    const auto it = variables.find(name);
    return it == variables.end() ? std::string() : it->second;
  };
}

TEST(ContextsTest, TextAndBack) {
  const std::string text = ContextsText(Two());
  EXPECT_EQ(text,
            "current-context: lab\n"
            "contexts:\n"
            "  - name: lab\n    address: 10.0.0.7:1\n"
            "  - name: home\n    address: h:2\n");
  EXPECT_THAT(ParseContexts(text), IsOkAndHolds(Two()));
  EXPECT_THAT(ParseContexts(""), IsOkAndHolds(Contexts()));
}

TEST(ContextsTest, SomethingElseIsRefused) {
  for (const char* text : {"- a", "contexts: [{name: x}]", "contexts: [1]",
                           "current-context: [x]"}) {
    EXPECT_THAT(ParseContexts(text),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("got")))
        << text;
  }
}

TEST(ContextsTest, FilesAreWrittenWithTheirFolder) {
  const std::string folder = absl::StrCat(::testing::TempDir(), "/new/folder");
  std::filesystem::remove_all(folder);
  const std::string path = absl::StrCat(folder, "/config.yaml");
  EXPECT_THAT(ReadContexts(path), IsOkAndHolds(Contexts()));
  EXPECT_THAT(WriteContexts(path, Two()), IsOk());
  EXPECT_THAT(ReadContexts(path), IsOkAndHolds(Two()));
  std::ofstream(path) << "- no\n";
  EXPECT_THAT(ReadContexts(path),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(path)));
}

TEST(ContextsTest, ThePathIsWhereItIsSaid) {
  EXPECT_EQ(ContextsPath("f", From({{"SHARDPLANE_CONFIG", "e"}})), "f");
  EXPECT_EQ(ContextsPath("", From({{"SHARDPLANE_CONFIG", "e"}})), "e");
  EXPECT_EQ(ContextsPath("", From({{"XDG_CONFIG_HOME", "x"}, {"HOME", "h"}})),
            "x/shardplane/config.yaml");
  EXPECT_EQ(ContextsPath("", From({{"HOME", "h"}})),
            "h/.config/shardplane/config.yaml");
}

TEST(ContextsTest, TheAddressIsThatOfTheNearest) {
  const Getenv set = From({{"SHARDPLANE_ADDRESS", "env:3"}});
  const Getenv unset = From({});
  EXPECT_THAT(AddressOf("flag:1", "home", Two(), set), IsOkAndHolds("flag:1"));
  EXPECT_THAT(AddressOf("", "home", Two(), set), IsOkAndHolds("h:2"));
  EXPECT_THAT(AddressOf("", "", Two(), set), IsOkAndHolds("env:3"));
  EXPECT_THAT(AddressOf("", "", Two(), unset), IsOkAndHolds("10.0.0.7:1"));
  EXPECT_THAT(AddressOf("", "hoem", Two(), unset),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "no context \"hoem\". Did you mean \"home\"?"));
  EXPECT_THAT(AddressOf("", "", {}, unset),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("expected the address")));
}

TEST(ContextsTest, SettingAndDeleting) {
  Contexts contexts = Two();
  contexts.Set({"home", "h:9"});
  EXPECT_EQ(contexts.Find("home")->address, "h:9");
  EXPECT_TRUE(contexts.Delete("lab"));
  EXPECT_EQ(contexts.current, "");
  EXPECT_FALSE(contexts.Delete("lab"));
}

}  // namespace
}  // namespace shardplane
