#include "telemetry/log.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class LogTest : public ::testing::Test {
 protected:
  Log Make(LogFormat format, LogLevel level = LogLevel::kInfo,
           const std::string& instance = "w0") {
    return Log(
        {.component = "worker",
         .instance = instance,
         .format = format,
         .level = level,
         .clock = [] { return absl::FromUnixMillis(1'004); },
         .write = [this](const std::string& line) { lines_.push_back(line); }});
  }
  std::vector<std::string> lines_;
};

TEST_F(LogTest, TextIsForPeople) {
  Make(LogFormat::kText)
      .Info("joined a gang", {{"deployment", "deployments/d"},
                              {"request_id", ""},
                              {"reason", "two\nlines"}});
  EXPECT_THAT(lines_,
              ElementsAre("1970-01-01T00:00:01.004Z INFO worker w0: joined a "
                          "gang deployment=\"deployments/d\" "
                          "reason=\"two\\u000alines\"\n"));
}

TEST_F(LogTest, JsonIsAnObjectALine) {
  Make(LogFormat::kJson)
      .Write(LogLevel::kWarning, "a \"b\" \\", {{"step", "7"}});
  EXPECT_THAT(
      lines_,
      ElementsAre("{\"time\":\"1970-01-01T00:00:01.004Z\",\"level\":"
                  "\"WARNING\",\"component\":\"worker\",\"instance\":\"w0\","
                  "\"message\":\"a \\\"b\\\" \\\\\",\"step\":\"7\"}\n"));
}

TEST_F(LogTest, WhatHasNoInstanceSaysNone) {
  Make(LogFormat::kText, LogLevel::kInfo, "").Info("up");
  Make(LogFormat::kJson, LogLevel::kInfo, "").Info("up");
  EXPECT_THAT(lines_, ElementsAre(HasSubstr("INFO worker: up"),
                                  Not(HasSubstr("instance"))));
}

TEST_F(LogTest, LowerLevelsAreNotWritten) {
  const Log log = Make(LogFormat::kText, LogLevel::kWarning);
  log.Info("no");
  log.Write(LogLevel::kError, "yes");
  EXPECT_THAT(lines_, ElementsAre(HasSubstr("ERROR worker w0: yes")));
  EXPECT_TRUE(log.Writes(LogLevel::kWarning));
  EXPECT_FALSE(log.Writes(LogLevel::kDebug));
}

TEST(JsonStringTest, KeepsUtf8AndReplacesTheRest) {
  EXPECT_EQ(JsonString("gr\u00fc\u00df \U0001F600"),
            "\"gr\u00fc\u00df \U0001F600\"");
  EXPECT_EQ(JsonString("a\xff"
                       "b"),
            "\"a\\ufffdb\"");
  EXPECT_EQ(JsonString("\xe2\x82"), "\"\\ufffd\\ufffd\"") << "cut short";
  EXPECT_EQ(JsonString("\xc0\x80"), "\"\\ufffd\\ufffd\"") << "overlong";
  EXPECT_EQ(JsonString("\xed\xa0\x80"), "\"\\ufffd\\ufffd\\ufffd\"")
      << "a surrogate";
  EXPECT_EQ(JsonString(absl::string_view("\0\t", 2)), "\"\\u0000\\u0009\"");
}

TEST(ParseLogTest, NamesWhatThereIs) {
  EXPECT_EQ(*ParseLogLevel("warning"), LogLevel::kWarning);
  EXPECT_EQ(*ParseLogFormat("json"), LogFormat::kJson);
  EXPECT_THAT(std::string(ParseLogLevel("loud").status().message()),
              HasSubstr("expected one of debug, info, warning, error, got: "
                        "\"loud\""));
  EXPECT_FALSE(ParseLogFormat("xml").ok());
}

}  // namespace
}  // namespace shardplane
