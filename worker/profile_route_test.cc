#include "worker/profile_route.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>

namespace shardplane {
namespace {

using testing::HasSubstr;

class FakeProfiler : public Profiler {
 public:
  absl::Status Begin() override { return begins; }
  absl::StatusOr<std::string> End() override { return "{}"; }
  absl::Status begins;
};

class ProfileRouteTest : public testing::Test {
 protected:
  // Steps go on meanwhile.
  HttpResponse Get(const std::string& query) {
    HttpResponse response;
    std::atomic<bool> over = false;
    std::thread asks([&] {
      response = Ask(query);
      over = true;
    });
    while (!over) {
      const ProfiledStep step(&profiler_);
    }
    asks.join();
    return response;
  }
  HttpResponse Ask(const std::string& query) {
    return route_.handle(
        {.path = "/profile", .query = query, .if_none_match = ""});
  }

  FakeProfiler* const fake_ = new FakeProfiler;
  StepProfiler profiler_{std::unique_ptr<Profiler>(fake_)};
  HttpRoute route_ = ProfileRoute(&profiler_);
};

TEST_F(ProfileRouteTest, AnswersWithTheTrace) {
  for (const char* query :
       {"", "steps=2", "seconds=30&steps=1", "steps=100&"}) {
    const HttpResponse response = Get(query);
    EXPECT_EQ(response.code, 200) << query;
    EXPECT_EQ(response.body, "{}") << query;
    EXPECT_EQ(response.content_type, "application/json") << query;
  }
}

TEST_F(ProfileRouteTest, OtherParameters) {
  for (const char* query : {"steps=0", "steps=101", "steps=x", "steps", "x=1",
                            "seconds=-1", "steps=1&&seconds=1s"}) {
    const HttpResponse response = Ask(query);
    EXPECT_EQ(response.code, 400) << query;
    EXPECT_THAT(response.body, HasSubstr("expected")) << query;
  }
}

TEST_F(ProfileRouteTest, NoSteps) {
  const HttpResponse response = Ask("seconds=1");
  EXPECT_EQ(response.code, 504);
  EXPECT_EQ(response.body, "expected 3 training steps within 1s, got: 0\n");
}

TEST_F(ProfileRouteTest, WhatTheProfilerSays) {
  fake_->begins = absl::InternalError("no CUPTI");
  const HttpResponse response = Get("steps=1");
  EXPECT_EQ(response.code, 500);
  EXPECT_EQ(response.body, "no CUPTI\n");
}

}  // namespace
}  // namespace shardplane
