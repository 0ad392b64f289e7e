// Two programs for bench/rpc.py, which says what is measured:
//   rpc --serve [--pass_to=HOST:PORT,… --pass_by=calls|streams]
//     an EchoServer; prints its address, ends at the end of its input
//   rpc --coordinator=HOST:PORT --echo=… --relay_calls=… --relay_streams=…
//     measures what each line of its input asks for ("train 2000 32": name,
//     count, and steps ahead), and prints a JSON object for it, of arrays of
//     microseconds
#include <cstdio>
#include <functional>
#include <iostream>
#include <memory>
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

using Times = absl::btree_map<std::string, std::vector<double>>;

std::string ToJson(const Times& times) {
  std::vector<std::string> entries;
  for (const auto& [name, values] : times) {
    entries.push_back(
        absl::StrCat("\"", name, "\": [",
                     absl::StrJoin(values, ", ",
                                   [](std::string* out, double value) {
                                     absl::StrAppendFormat(out, "%.2f", value);
                                   }),
                     "]"));
  }
  return absl::StrCat("{", absl::StrJoin(entries, ", "), "}");
}

// What can be asked for, by name.
class Measurements {
 public:
  explicit Measurements(StepSide* step)
      : echo_(absl::GetFlag(FLAGS_echo), step->NextStep()),
        relay_calls_(absl::GetFlag(FLAGS_relay_calls), step->NextStep()),
        relay_streams_(absl::GetFlag(FLAGS_relay_streams), step->NextStep()) {
    by_name_["step"] = [step](int count, int, Times* times) {
      StepTimes step_times;
      absl::Status status = step->Steps(count, &step_times);
      (*times)["call"] = std::move(step_times.call);
      (*times)["coordinator"] = std::move(step_times.coordinator);
      (*times)["workers"] = std::move(step_times.workers);
      return status;
    };
    by_name_["train"] = [step](int count, int ahead, Times* times) {
      return step->Train(count, ahead, &(*times)["call"]);
    };
    Add("echo_call", &EchoSide::Calls, &echo_);
    Add("echo_message", &EchoSide::Messages, &echo_);
    Add("relay_by_calls", &EchoSide::Calls, &relay_calls_);
    Add("relay_by_streams", &EchoSide::Calls, &relay_streams_);
    Add("relay_of_streams", &EchoSide::Messages, &relay_streams_);
    Add("echo_stream", &EchoSide::Stream, &echo_);
    Add("relay_stream", &EchoSide::Stream, &relay_streams_);
  }

  absl::Status Measure(const std::string& name, int count, int ahead,
                       Times* times) const {
    const auto found = by_name_.find(name);
    if (found == by_name_.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("expected the name of a measurement, got: ", name));
    }
    return found->second(count, ahead, times);
  }

 private:
  using Measurement = std::function<absl::Status(int, int, Times*)>;

  void Add(const std::string& name,
           absl::Status (EchoSide::*measure)(int, std::vector<double>*),
           EchoSide* side) {
    by_name_[name] = [measure, side](int count, int, Times* times) {
      return (side->*measure)(count, &(*times)["call"]);
    };
  }
  void Add(const std::string& name,
           absl::Status (EchoSide::*measure)(int, int, std::vector<double>*),
           EchoSide* side) {
    by_name_[name] = [measure, side](int count, int ahead, Times* times) {
      return (side->*measure)(count, ahead, &(*times)["call"]);
    };
  }

  EchoSide echo_;
  EchoSide relay_calls_;
  EchoSide relay_streams_;
  absl::btree_map<std::string, Measurement> by_name_;
};

int Answer() {
  const auto step = StepSide::Create(absl::GetFlag(FLAGS_coordinator),
                                     absl::GetFlag(FLAGS_workers));
  if (!step.ok()) {
    return Fail(step.status());
  }
  const Measurements measurements(step->get());
  std::string name;
  int count = 0;
  int ahead = 0;
  while (std::cin >> name >> count >> ahead) {
    Times times;
    const absl::Status status =
        measurements.Measure(name, count, ahead, &times);
    if (!status.ok()) {
      return Fail(status);
    }
    std::printf("%s\n", ToJson(times).c_str());
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace shardplane

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("used by ./shardplane bench rpc");
  absl::ParseCommandLine(argc, argv);
  return absl::GetFlag(FLAGS_serve) ? shardplane::Serve()
                                    : shardplane::Answer();
}
