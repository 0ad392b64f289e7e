// Two programs for bench/rpc.py, which says what is measured:
//   rpc --serve [--pass_to=HOST:PORT,… --pass_by=calls|streams]
//     an EchoServer; prints its address, ends at the end of its input
//   rpc --coordinator=HOST:PORT --echo=… --relay_calls=… --relay_streams=…
//     measures, in turns; prints a JSON object of arrays, in microseconds
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "bench/echo_server.h"
#include "bench/rpc_cost.h"

ABSL_FLAG(bool, serve, false, "be an echo server");
ABSL_FLAG(std::vector<std::string>, pass_to, {},
          "echo servers that are asked before it answers");
ABSL_FLAG(std::string, pass_by, "calls", "how they are asked: calls, streams");
ABSL_FLAG(std::string, coordinator, "", "HOST:PORT, with free workers");
ABSL_FLAG(int, workers, 4, "how many of them the model is cut over");
ABSL_FLAG(std::string, echo, "", "an echo server");
ABSL_FLAG(std::string, relay_calls, "", "one that passes on by calls");
ABSL_FLAG(std::string, relay_streams, "", "one that passes on by streams");
ABSL_FLAG(int, rounds, 11, "of all sides in turns; one more to warm up");
ABSL_FLAG(int, steps, 200, "of each side in a round, one by one");
ABSL_FLAG(int, train_steps, 2000, "of each side in a round, in a stream");
ABSL_FLAG(int, ahead, 32, "steps of a stream without an answer, at most");

namespace shardplane {
namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}

int Serve() {
  const auto server =
      EchoServer::Start({.workers = absl::GetFlag(FLAGS_pass_to),
                         .relay_by = absl::GetFlag(FLAGS_pass_by) == "streams"
                                         ? RelayBy::kStreams
                                         : RelayBy::kCalls});
  if (!server.ok()) {
    return Fail(server.status());
  }
  std::printf("%s\n", (*server)->address().c_str());
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
  return 0;
}

// Every side once, and then again.
class Measurement {
 public:
  explicit Measurement(StepSide* step)
      : step_(step),
        echo_(absl::GetFlag(FLAGS_echo), step->NextStep()),
        relay_calls_(absl::GetFlag(FLAGS_relay_calls), step->NextStep()),
        relay_streams_(absl::GetFlag(FLAGS_relay_streams), step->NextStep()) {}

  absl::Status Round() {
    const int steps = absl::GetFlag(FLAGS_steps);
    const int many = absl::GetFlag(FLAGS_train_steps);
    const int ahead = absl::GetFlag(FLAGS_ahead);
    absl::Status status = step_->Steps(steps, &steps_);
    status.Update(echo_.Calls(steps, &times_["echo_call"]));
    status.Update(echo_.Messages(steps, &times_["echo_message"]));
    status.Update(relay_calls_.Calls(steps, &times_["relay_by_calls"]));
    status.Update(relay_streams_.Calls(steps, &times_["relay_by_streams"]));
    status.Update(relay_streams_.Messages(steps, &times_["relay_of_streams"]));
    status.Update(step_->Train(many, ahead, &train_));
    status.Update(echo_.Stream(many, ahead, &times_["echo_stream"]));
    status.Update(relay_streams_.Stream(many, ahead, &times_["relay_stream"]));
    return status;
  }

  void Print() {
    times_["step"] = steps_.call;
    times_["step_in_coordinator"] = steps_.coordinator;
    times_["step_in_workers"] = steps_.workers;
    times_["train"] = train_.step;
    times_["train_in_workers"] = train_.workers;
    std::vector<std::string> entries;
    for (const auto& [name, values] : times_) {
      entries.push_back(absl::StrCat(
          "\"", name, "\": [",
          absl::StrJoin(values, ", ",
                        [](std::string* out, double value) {
                          absl::StrAppendFormat(out, "%.1f", value);
                        }),
          "]"));
    }
    std::printf("{%s}\n", absl::StrJoin(entries, ",\n").c_str());
  }

 private:
  StepSide* const step_;
  EchoSide echo_;
  EchoSide relay_calls_;
  EchoSide relay_streams_;
  StepTimes steps_;
  TrainTimes train_;
  absl::btree_map<std::string, std::vector<double>> times_;
};

int Measure() {
  const auto step = StepSide::Create(absl::GetFlag(FLAGS_coordinator),
                                     absl::GetFlag(FLAGS_workers));
  if (!step.ok()) {
    return Fail(step.status());
  }
  if (const absl::Status status = Measurement(step->get()).Round();
      !status.ok()) {
    return Fail(status);
  }
  Measurement measurement(step->get());
  for (int round = 0; round < absl::GetFlag(FLAGS_rounds); ++round) {
    if (const absl::Status status = measurement.Round(); !status.ok()) {
      return Fail(status);
    }
  }
  measurement.Print();
  return 0;
}

}  // namespace
}  // namespace shardplane

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("used by ./shardplane bench rpc");
  absl::ParseCommandLine(argc, argv);
  return absl::GetFlag(FLAGS_serve) ? shardplane::Serve()
                                    : shardplane::Measure();
}
