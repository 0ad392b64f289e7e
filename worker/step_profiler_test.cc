#include "worker/step_profiler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using absl::StatusCode;
using testing::HasSubstr;

// Its trace says how many steps it saw.
class CountingProfiler : public Profiler {
 public:
  explicit CountingProfiler(absl::Status begins) : begins_(begins) {}
  absl::Status Begin() override {
    steps = 0;
    return begins_;
  }
  absl::StatusOr<std::string> End() override {
    return absl::StrCat(steps, " steps");
  }
  int steps = 0;

 private:
  const absl::Status begins_;
};

class StepProfilerTest : public testing::Test {
 protected:
  explicit StepProfilerTest(absl::Status begins = absl::OkStatus()) {
    auto counting = std::make_unique<CountingProfiler>(begins);
    counting_ = counting.get();
    profiler_ = std::make_unique<StepProfiler>(std::move(counting));
  }
  void Step() {
    const ProfiledStep profiled(profiler_.get());
    ++counting_->steps;
  }
  // What a Profile answers while steps go on.
  absl::StatusOr<std::string> ProfileMeanwhile(int steps) {
    absl::StatusOr<std::string> trace;
    std::atomic<bool> over = false;
    std::thread asks([&] {
      trace = profiler_->Profile(steps, absl::Seconds(60));
      over = true;
    });
    while (!over) Step();
    asks.join();
    return trace;
  }

  CountingProfiler* counting_ = nullptr;
  std::unique_ptr<StepProfiler> profiler_;
};

TEST_F(StepProfilerTest, RecordsSoManySteps) {
  EXPECT_THAT(ProfileMeanwhile(1), IsOkAndHolds("1 steps"));
  EXPECT_THAT(ProfileMeanwhile(3), IsOkAndHolds("3 steps"));
}

TEST_F(StepProfilerTest, NobodyAsks) {
  Step();
  const ProfiledStep none(nullptr);
  EXPECT_EQ(counting_->steps, 1);
}

TEST_F(StepProfilerTest, WaitsNoLongerThanItShall) {
  EXPECT_THAT(profiler_->Profile(2, absl::ZeroDuration()),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("got: 0")));
  counting_->steps = 7;
  Step();
  EXPECT_EQ(counting_->steps, 8) << "what nobody waits for did not begin";
  EXPECT_THAT(ProfileMeanwhile(1), IsOkAndHolds("1 steps"));
}

TEST_F(StepProfilerTest, AStepThatGoesOnIsNotWaitedFor) {
  absl::StatusOr<std::string> trace;
  std::atomic<bool> over = false;
  std::thread asks([&] {
    trace = profiler_->Profile(1, absl::Seconds(1));
    over = true;
  });
  while (!over) profiler_->StepBegins();
  asks.join();
  EXPECT_THAT(trace, StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("0")));
  EXPECT_THAT(profiler_->Profile(1, absl::Seconds(1)),
              StatusIs(StatusCode::kResourceExhausted, HasSubstr("one")));
  profiler_->StepEnds();
  EXPECT_THAT(ProfileMeanwhile(2), IsOkAndHolds("2 steps"));
}

TEST_F(StepProfilerTest, OneThatNobodyWaitsForEndsWithTheNextStep) {
  std::atomic<bool> over = false;
  std::thread asks([&] {
    EXPECT_THAT(profiler_->Profile(100, absl::Seconds(1)),
                StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("got: 0")));
    over = true;
  });
  while (!over) profiler_->StepBegins();
  asks.join();
  profiler_->StepEnds();
  EXPECT_THAT(profiler_->Profile(1, absl::ZeroDuration()),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("got: 0")))
      << "no other profile is under way";
  EXPECT_THAT(ProfileMeanwhile(2), IsOkAndHolds("2 steps"));
}

TEST_F(StepProfilerTest, NobodyWaitsForAWorkerThatEnds) {
  counting_->steps = -1;
  std::thread asks([&] {
    EXPECT_THAT(profiler_->Profile(1, absl::Seconds(60)),
                StatusIs(StatusCode::kUnavailable, HasSubstr("end")));
  });
  while (counting_->steps != 0) profiler_->StepBegins();  // until it waits
  profiler_->Close();
  asks.join();
  profiler_->StepEnds();
  EXPECT_THAT(profiler_->Profile(1, absl::Seconds(60)),
              StatusIs(StatusCode::kUnavailable, HasSubstr("end")));
}

TEST_F(StepProfilerTest, NumbersOfSteps) {
  for (const int steps : {-1, 0, StepProfiler::kMaxSteps + 1}) {
    EXPECT_THAT(profiler_->Profile(steps, absl::Seconds(60)),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("steps: ")));
  }
}

class BrokenProfilerTest : public StepProfilerTest {
 protected:
  BrokenProfilerTest() : StepProfilerTest(absl::InternalError("no CUPTI")) {}
};

TEST_F(BrokenProfilerTest, SaysSoAndStepsGoOn) {
  EXPECT_THAT(ProfileMeanwhile(2),
              StatusIs(StatusCode::kInternal, HasSubstr("no CUPTI")));
  Step();
  EXPECT_THAT(ProfileMeanwhile(1),
              StatusIs(StatusCode::kInternal, HasSubstr("no CUPTI")));
}

}  // namespace
}  // namespace shardplane
