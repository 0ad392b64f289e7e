#include "client/shardctl/step_trace.h"

#include <algorithm>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/shardctl/text_values.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using Json = nlohmann::ordered_json;

enum Lane { kOperators, kCollectives, kBeside, kStep };
constexpr const char* kLanes[] = {"operators", "collectives", "beside", "step"};
constexpr int kCoordinator = 0;  // ranks come behind it

double Micros(int64_t nanos) { return static_cast<double>(nanos) / 1e3; }
std::string NanosText(int64_t nanos) {
  return SecondsText(static_cast<double>(nanos) * 1e-9);
}

bool IsCompute(const pb::Timeline::Span& span) {
  return span.kind() == pb::Timeline::KIND_COMPUTE ||
         span.kind() == pb::Timeline::KIND_LOCAL;
}

Json Meta(const char* what, int process, int lane, const std::string& name) {
  return {{"ph", "M"},
          {"name", what},
          {"pid", process},
          {"tid", lane},
          {"args", {{"name", name}}}};
}

Json Complete(int process, Lane lane, const std::string& name,
              int64_t begin_nanos, int64_t nanos,
              Json arguments = Json::object()) {
  return {{"ph", "X"},
          {"pid", process},
          {"tid", static_cast<int>(lane)},
          {"name", name},
          {"ts", Micros(begin_nanos)},
          {"dur", Micros(nanos)},
          {"args", std::move(arguments)}};
}

Json ArgumentsOf(const pb::Timeline::Span& span) {
  Json arguments = {{"instruction", span.instruction()}};
  if (!span.module().empty()) arguments["module"] = span.module();
  if (span.bytes() != 0) arguments["bytes"] = span.bytes();
  if (span.wait_nanos() != 0) arguments["wait_us"] = Micros(span.wait_nanos());
  return arguments;
}

void AddCoordinator(const pb::StepTimeline& timeline, Json* events) {
  events->push_back(Meta("process_name", kCoordinator, 0, "coordinator"));
  events->push_back(Meta("thread_name", kCoordinator, kStep, kLanes[kStep]));
  const int64_t queue = timeline.queue_nanos();
  const int64_t dispatch = timeline.dispatch_nanos();
  events->push_back(Complete(kCoordinator, kStep, timeline.name(), 0,
                             timeline.total_nanos()));
  events->push_back(Complete(kCoordinator, kStep, "queue", 0, queue));
  events->push_back(Complete(kCoordinator, kStep, "dispatch", queue, dispatch));
  events->push_back(Complete(
      kCoordinator, kStep, "ranks run", queue + dispatch,
      std::max<int64_t>(0, timeline.total_nanos() - queue - dispatch)));
}

// Collectives from their start to where somebody waits for them.
void AddBeside(const pb::Timeline& run, int process, int64_t offset,
               Json* events) {
  std::map<int, const pb::Timeline::Span*> starts;
  for (const pb::Timeline::Span& span : run.spans()) {
    if (span.kind() == pb::Timeline::KIND_START) {
      starts[span.instruction()] = &span;
    }
    const auto start =
        span.has_started() ? starts.find(span.started()) : starts.end();
    if (start == starts.end()) continue;
    const int64_t begin = start->second->begin_nanos();
    events->push_back(
        Complete(process, kBeside, start->second->name(), offset + begin,
                 span.begin_nanos() + span.duration_nanos() - begin,
                 ArgumentsOf(*start->second)));
  }
}

void AddRank(const pb::StepTimeline& timeline, const pb::RankTimeline& rank,
             Json* events) {
  const int process = rank.rank() + 1;
  const int64_t received =
      rank.received_unix_nanos() - timeline.received_unix_nanos();
  const int64_t begin =
      rank.run().begin_unix_nanos() - timeline.received_unix_nanos();
  events->push_back(Meta(
      "process_name", process, 0,
      absl::StrCat("rank ", rank.rank(), " (", LastPart(rank.worker()), ")")));
  for (const Lane lane : {kOperators, kCollectives, kBeside, kStep}) {
    events->push_back(Meta("thread_name", process, lane, kLanes[lane]));
  }
  int64_t at = begin;
  events->push_back(
      Complete(process, kStep, "queue", received, begin - received));
  const std::pair<const char*, int64_t> parts[] = {
      {"run", rank.run_nanos()},
      {"agree", rank.agree_nanos()},
      {"update", rank.update_nanos()}};
  for (const auto& [name, nanos] : parts) {
    events->push_back(Complete(process, kStep, name, at, nanos));
    at += nanos;
  }
  for (const pb::Timeline::Span& span : rank.run().spans()) {
    events->push_back(Complete(
        process, IsCompute(span) ? kOperators : kCollectives, span.name(),
        begin + span.begin_nanos(), span.duration_nanos(), ArgumentsOf(span)));
  }
  AddBeside(rank.run(), process, begin, events);
}

}  // namespace

RankTimes TimesOf(const pb::RankTimeline& rank) {
  RankTimes times{.agree = rank.agree_nanos(), .update = rank.update_nanos()};
  times.queue = rank.run().begin_unix_nanos() - rank.received_unix_nanos();
  for (const pb::Timeline::Span& span : rank.run().spans()) {
    if (IsCompute(span)) {
      times.compute += span.duration_nanos();
    } else {
      times.wait += span.wait_nanos();
      times.transfer +=
          std::max<int64_t>(0, span.duration_nanos() - span.wait_nanos());
    }
  }
  return times;
}

std::string TimelineText(const pb::StepTimeline& timeline,
                         const TableLayout& layout) {
  constexpr auto kRight = Column::Align::kRight;
  Table table({{"RANK", kRight},
               {"WORKER"},
               {"QUEUE", kRight},
               {"RUN", kRight},
               {"COMPUTE", kRight},
               {"WAIT", kRight},
               {"TRANSFER", kRight},
               {"AGREE", kRight},
               {"UPDATE", kRight}});
  for (const pb::RankTimeline& rank : timeline.ranks()) {
    const RankTimes times = TimesOf(rank);
    table.Add({absl::StrCat(rank.rank()), LastPart(rank.worker()),
               NanosText(times.queue), NanosText(rank.run_nanos()),
               NanosText(times.compute), NanosText(times.wait),
               NanosText(times.transfer), NanosText(times.agree),
               NanosText(times.update)});
  }
  return absl::StrCat(timeline.name(), ": ", NanosText(timeline.total_nanos()),
                      ", of them ", NanosText(timeline.queue_nanos()),
                      " in the coordinator's queue and ",
                      NanosText(timeline.dispatch_nanos()),
                      " to tell all ranks\n\n", table.Text(layout));
}

Json ChromeTrace(const pb::StepTimeline& timeline) {
  Json events = Json::array();
  AddCoordinator(timeline, &events);
  for (const pb::RankTimeline& rank : timeline.ranks()) {
    AddRank(timeline, rank, &events);
  }
  Json trace = {{"traceEvents", std::move(events)},
                {"displayTimeUnit", "ms"},
                {"otherData", {{"step", timeline.name()}}}};
  if (!timeline.traceparent().empty()) {
    trace["otherData"]["traceparent"] = timeline.traceparent();
  }
  return trace;
}

}  // namespace shardplane
