#include "client/shardctl/manual.h"

#include <fstream>
#include <sstream>

#include "gtest/gtest.h"

namespace shardplane {
namespace {

// `shardctl man > client/shardctl/shardctl.1` writes it.
TEST(ManualTest, ThePageThatIsKeptIsTheTables) {
  std::ifstream file("client/shardctl/shardctl.1");
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_EQ(text.str(), ManualPage());
}

}  // namespace
}  // namespace shardplane
