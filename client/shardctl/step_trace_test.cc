#include "client/shardctl/step_trace.h"

#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

// Times in microseconds: the step came at 1000, its only rank got it at 1030
// and began at 1040.
constexpr char kTimeline[] = R"(
  name: "deployments/d/steps/3/timeline"
  traceparent: "00-abc-def-01"
  received_unix_nanos: 1000000
  queue_nanos: 10000
  dispatch_nanos: 5000
  total_nanos: 200000
  ranks {
    worker: "workers/w-0"
    rank: 0
    received_unix_nanos: 1030000
    run {
      begin_unix_nanos: 1040000
      spans { instruction: 0 kind: KIND_COMPUTE name: "segment 0" module: "up"
              begin_nanos: 0 duration_nanos: 40000 }
      spans { instruction: 1 kind: KIND_START name: "all_reduce[tp]"
              begin_nanos: 40000 duration_nanos: 1000 bytes: 640 }
      spans { instruction: 2 kind: KIND_LOCAL name: "slice"
              begin_nanos: 41000 duration_nanos: 9000 }
      spans { instruction: 3 kind: KIND_WAIT name: "wait" started: 1
              begin_nanos: 50000 duration_nanos: 20000 wait_nanos: 15000 }
    }
    run_nanos: 80000
    agree_nanos: 7000
    update_nanos: 3000
  })";

pb::StepTimeline Example() {
  pb::StepTimeline timeline;
  EXPECT_TRUE(
      google::protobuf::TextFormat::ParseFromString(kTimeline, &timeline));
  return timeline;
}

TEST(StepTraceTest, EachNanosecondCountsOnce) {
  const RankTimes times = TimesOf(Example().ranks(0));
  EXPECT_EQ(times.queue, 10000);
  EXPECT_EQ(times.compute, 49000);
  EXPECT_EQ(times.wait, 15000);
  EXPECT_EQ(times.transfer, 6000);
  EXPECT_EQ(times.agree, 7000);
  EXPECT_EQ(times.update, 3000);
}

TEST(StepTraceTest, ATableOfRanks) {
  EXPECT_EQ(TimelineText(Example(), {}),
            "deployments/d/steps/3/timeline: 200us, of them 10us in the "
            "coordinator's queue and 5us to tell all ranks\n\n"
            "RANK   WORKER   QUEUE    RUN   COMPUTE   WAIT   TRANSFER   AGREE "
            "  UPDATE\n"
            "   0   w-0       10us   80us      49us   15us        6us     7us "
            "     3us\n");
}

// {process, lane, name, begin, duration} of the complete events.
std::vector<std::string> Events(const nlohmann::ordered_json& trace) {
  std::vector<std::string> events;
  for (const auto& event : trace["traceEvents"]) {
    if (event["ph"] != "X") continue;
    events.push_back(event["pid"].dump() + " " + event["tid"].dump() + " " +
                     event["name"].get<std::string>() + " " +
                     event["ts"].dump() + "+" + event["dur"].dump());
  }
  return events;
}

TEST(StepTraceTest, ATraceOfAllProcesses) {
  const nlohmann::ordered_json trace = ChromeTrace(Example());
  EXPECT_THAT(
      Events(trace),
      ::testing::ElementsAre(
          "0 3 deployments/d/steps/3/timeline 0.0+200.0", "0 3 queue 0.0+10.0",
          "0 3 dispatch 10.0+5.0", "0 3 ranks run 15.0+185.0",
          "1 3 queue 30.0+10.0", "1 3 run 40.0+80.0", "1 3 agree 120.0+7.0",
          "1 3 update 127.0+3.0", "1 0 segment 0 40.0+40.0",
          "1 1 all_reduce[tp] 80.0+1.0", "1 0 slice 81.0+9.0",
          "1 1 wait 90.0+20.0", "1 2 all_reduce[tp] 80.0+30.0"));
  EXPECT_EQ(trace["otherData"]["traceparent"], "00-abc-def-01");
  EXPECT_EQ(trace["traceEvents"][0]["args"]["name"], "coordinator");
}

}  // namespace
}  // namespace shardplane
