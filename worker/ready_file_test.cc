#include "worker/ready_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

TEST(ReadyFileTest, HoldsAddressesAndPid) {
  const std::string path = absl::StrCat(testing::TempDir(), "/ready.json");
  ASSERT_THAT(WriteReadyFile(path, {"127.0.0.1:1", "127.0.0.1:2", 3}), IsOk());
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  EXPECT_EQ(text.str(),
            "{\"address\": \"127.0.0.1:1\", \"http_address\": "
            "\"127.0.0.1:2\", \"pid\": 3}\n");
}

TEST(ReadyFileTest, FolderThatIsNotThere) {
  EXPECT_THAT(WriteReadyFile("/nowhere/ready.json", {}),
              StatusIs(absl::StatusCode::kInternal,
                       testing::HasSubstr("/nowhere/ready.json")));
}

TEST(HostPortTest, SplitsAndJoins) {
  EXPECT_EQ(HostOf("127.0.0.1:80"), "127.0.0.1");
  EXPECT_EQ(HostOf("[::1]:80"), "::1");
  EXPECT_EQ(HostOf("worker-0.workers:80"), "worker-0.workers");
  EXPECT_EQ(JoinHostPort("127.0.0.1", 80), "127.0.0.1:80");
  EXPECT_EQ(JoinHostPort("::1", 80), "[::1]:80");
  EXPECT_TRUE(IsWildcard(HostOf("0.0.0.0:80")));
  EXPECT_TRUE(IsWildcard(HostOf("[::]:80")));
  EXPECT_FALSE(IsWildcard("127.0.0.1"));
}

}  // namespace
}  // namespace shardplane
