#include "worker/shm/host_identity.h"

#include <unistd.h>

#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::Field;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Optional;
using ::testing::StartsWith;

const HostIdentity kHere{
    .kernel = "3f-a1", .network = "net:[40]", .user = "1000", .layout = "1"};

TEST(HostIdentityTest, ThisProcessKnowsItsOwn) {
  EXPECT_THAT(ThisHost(),
              IsOkAndHolds(AllOf(
                  Field("kernel", &HostIdentity::kernel, Not(IsEmpty())),
                  Field("network", &HostIdentity::network, StartsWith("net:[")),
                  Field("user", &HostIdentity::user, absl::StrCat(geteuid())),
                  Field("layout", &HostIdentity::layout, Not(IsEmpty())))));
  EXPECT_EQ(ThisHost().value(), ThisHost().value());
}

TEST(HostIdentityTest, TextAndBack) {
  EXPECT_EQ(ToString(kHere),
            "kernel=3f-a1 network=net:[40] user=1000 layout=1");
  EXPECT_THAT(ParseHostIdentity(ToString(kHere)), Optional(kHere));
  EXPECT_THAT(ParseHostIdentity(ToString(ThisHost().value())),
              Optional(ThisHost().value()));
}

TEST(HostIdentityTest, OtherTextIsNone) {
  for (const char* text : {"", "kernel=1", "kernel=1 network=2 user=3",
                           "kernel=1 network=2 user=3 layout=4 more=5",
                           "network=2 kernel=1 user=3 layout=4", "a b c d"}) {
    EXPECT_EQ(ParseHostIdentity(text), std::nullopt) << text;
  }
}

TEST(HostIdentityTest, TellsWhatKeepsApart) {
  EXPECT_EQ(HowApart(kHere, kHere), "");
  HostIdentity there = kHere;
  there.layout = "2";
  EXPECT_EQ(HowApart(kHere, there), "runs another version than");
  there.user = "0";
  EXPECT_EQ(HowApart(kHere, there), "runs as another user than");
  there.network = "net:[41]";
  EXPECT_EQ(HowApart(kHere, there), "is in another network namespace than");
  there.kernel = "40-00";
  EXPECT_EQ(HowApart(kHere, there), "is on another machine than");
}

}  // namespace
}  // namespace shardplane
