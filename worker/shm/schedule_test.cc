#include "worker/shm/schedule.h"

#include <map>
#include <string>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

using Reduce = ShmSchedule::Reduce;
using ::testing::Eq;

// "w0 w1 m0 ...": the steps in their order.
std::string Text(ShmSchedule schedule) {
  std::string text;
  for (; !schedule.done(); schedule.Advance()) {
    static constexpr const char* kLetters[] = {"w", "m", "r"};
    absl::StrAppend(&text, text.empty() ? "" : " ",
                    kLetters[static_cast<int>(schedule.step())],
                    schedule.chunk());
  }
  return text;
}

TEST(ShmSchedule, ReadsAChunkOneRoundAfterItsWriting) {
  EXPECT_THAT(Text(ShmSchedule(1, Reduce::kNo)), Eq("w0 r0"));
  EXPECT_THAT(Text(ShmSchedule(3, Reduce::kNo)), Eq("w0 w1 r0 w2 r1 r2"));
}

TEST(ShmSchedule, ReducesBetween) {
  EXPECT_THAT(Text(ShmSchedule(1, Reduce::kYes)), Eq("w0 m0 r0"));
  EXPECT_THAT(Text(ShmSchedule(2, Reduce::kYes)), Eq("w0 w1 m0 m1 r0 r1"));
  EXPECT_THAT(Text(ShmSchedule(4, Reduce::kYes)),
              Eq("w0 w1 m0 w2 m1 r0 w3 m2 r1 m3 r2 r3"));
}

class Numbers : public ::testing::TestWithParam<std::tuple<int, Reduce>> {};

TEST_P(Numbers, ArePlacesInTheOrderOfPublications) {
  const auto [chunks, reduce] = GetParam();
  ShmSchedule schedule(chunks, reduce);
  std::map<int64_t, int64_t> written;
  std::map<int64_t, int64_t> last;
  int64_t published = 0;
  for (; !schedule.done(); schedule.Advance()) {
    if (schedule.step() == ShmStep::kRead) {
      EXPECT_LT(last.at(schedule.chunk()), published);
      continue;
    }
    EXPECT_FALSE(schedule.all_published());
    if (schedule.step() == ShmStep::kWrite) {
      written[schedule.chunk()] = published;
    }
    last[schedule.chunk()] = published++;
  }
  EXPECT_TRUE(schedule.all_published());
  EXPECT_EQ(published, schedule.publications());
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    EXPECT_EQ(schedule.WritePublication(chunk), written[chunk]) << chunk;
    EXPECT_EQ(schedule.LastPublication(chunk), last[chunk]) << chunk;
  }
}

INSTANTIATE_TEST_SUITE_P(All, Numbers,
                         ::testing::Combine(::testing::Values(1, 2, 3, 4, 9),
                                            ::testing::Values(Reduce::kNo,
                                                              Reduce::kYes)));

}  // namespace
}  // namespace shardplane
