// top: how fast deployments step, and what workers do.
#include <algorithm>
#include <map>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/shardctl/commands.h"
#include "client/shardctl/printing.h"
#include "client/shardctl/resource_kind.h"
#include "client/shardctl/resource_rows.h"
#include "client/shardctl/step_figures.h"
#include "client/shardctl/text_values.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

constexpr auto kRight = Column::Align::kRight;
constexpr uint64_t kSteps = 64;  // the last ones, which figures are of
constexpr absl::Duration kInterval = absl::Seconds(2);
constexpr char kClearScreen[] = "\033[H\033[2J";

struct Pace {
  pb::Deployment deployment;
  std::vector<pb::StepResult> steps;
  StepFigures figures;
};

// The last steps; of a coordinator that lists none, those that it still has
// the answers of.
absl::StatusOr<std::vector<pb::StepResult>> LastSteps(
    Client& client, const pb::Deployment& deployment) {
  const uint64_t last = deployment.last_step();
  const uint64_t after = last - std::min(last, kSteps);
  std::vector<pb::StepResult> steps;
  const absl::StatusOr<pb::ListStepsResponse> listed =
      client.ListSteps(deployment.name(), after);
  if (listed.ok()) {
    steps.assign(listed->steps().begin(), listed->steps().end());
    return steps;
  }
  if (!absl::IsUnimplemented(listed.status())) return listed.status();
  for (uint64_t number = after + 1; number <= last; ++number) {
    absl::StatusOr<pb::StepResult> step =
        client.GetStep(absl::StrCat(deployment.name(), "/steps/", number));
    if (absl::IsOutOfRange(step.status())) continue;
    if (!step.ok()) return step.status();
    steps.push_back(*std::move(step));
  }
  return steps;
}

absl::StatusOr<std::vector<Pace>> Paces(Client& client) {
  absl::StatusOr<pb::ListDeploymentsResponse> deployments =
      client.ListDeployments();
  if (!deployments.ok()) return deployments.status();
  std::vector<Pace> paces;
  for (const pb::Deployment& deployment : deployments->deployments()) {
    absl::StatusOr<std::vector<pb::StepResult>> steps =
        LastSteps(client, deployment);
    if (!steps.ok()) return steps.status();
    const StepFigures figures = FiguresOf(*steps);
    paces.push_back({deployment, *std::move(steps), figures});
  }
  return paces;
}

std::string Rate(const StepFigures& figures) {
  return figures.steps == 0 ? kNone
                            : absl::StrFormat("%.1f", figures.steps_per_second);
}

std::string Part(const StepFigures& figures, double part) {
  return figures.steps == 0 ? kNone : absl::StrFormat("%.0f%%", part * 100);
}

Table TopDeployments(const std::vector<Pace>& paces) {
  Table table({{"NAME"},
               {"STATE"},
               {"MESH"},
               {"LAST STEP", kRight},
               {"LOSS", kRight},
               {"STEPS/S", kRight},
               {"P50", kRight},
               {"COMPUTE", kRight},
               {"COLLECTIVES", kRight},
               {"COMMIT", kRight}});
  for (const Pace& pace : paces) {
    const StepFigures& of = pace.figures;
    table.Add(
        {LastPart(pace.deployment.name()), StateText(pace.deployment.state()),
         MeshText(pace.deployment.mesh()),
         absl::StrCat(pace.deployment.last_step()),
         pace.steps.empty() ? kNone : LossText(pace.steps.back()), Rate(of),
         of.steps == 0 ? kNone : SecondsText(of.median_seconds),
         Part(of, of.run), Part(of, of.collectives), Part(of, of.commit)});
  }
  return table;
}

Table TopWorkers(const pb::ListWorkersResponse& workers,
                 const std::vector<Pace>& paces) {
  std::map<std::string, const Pace*> by_name;
  for (const Pace& pace : paces) {
    by_name[pace.deployment.name()] = &pace;
  }
  Table table({{"NAME"},
               {"STATE"},
               {"DEVICE"},
               {"DEPLOYMENT"},
               {"RANK", kRight},
               {"LAST STEP", kRight},
               {"STEPS/S", kRight}});
  for (const pb::WorkerNode& worker : workers.workers()) {
    const auto it = by_name.find(worker.deployment());
    const bool serves = it != by_name.end();
    table.Add(
        {LastPart(worker.name()), StateText(worker.state()),
         OrNone(worker.device()),
         serves ? LastPart(worker.deployment()) : kNone,
         serves ? absl::StrCat(worker.rank()) : kNone,
         serves ? absl::StrCat(it->second->deployment.last_step()) : kNone,
         serves ? Rate(it->second->figures) : kNone});
  }
  return table;
}

absl::StatusOr<Table> TopOf(Client& client, const ResourceKind& kind) {
  absl::StatusOr<std::vector<Pace>> paces = Paces(client);
  if (!paces.ok()) return paces.status();
  if (kind.plural == "deployments") return TopDeployments(*paces);
  absl::StatusOr<pb::ListWorkersResponse> workers = client.ListWorkers();
  if (!workers.ok()) return workers.status();
  return TopWorkers(*workers, *paces);
}

}  // namespace

absl::StatusOr<ExitCode> RunTop(Invocation& invocation) {
  const std::string name = invocation.arguments().empty()
                               ? "deployments"
                               : invocation.arguments()[0];
  absl::StatusOr<const ResourceKind*> kind = FindKind(name);
  if (!kind.ok()) return kind.status();
  if ((*kind)->plural != "deployments" && (*kind)->plural != "workers") {
    return UsageError(
        absl::StrCat("top: expected deployments or workers, "
                     "got: ",
                     name));
  }
  absl::StatusOr<absl::Duration> interval =
      invocation.Span("interval", kInterval);
  if (!interval.ok()) return interval.status();
  // Without a number --watch goes on until it is ended.
  absl::StatusOr<int64_t> times =
      invocation.Number("times", invocation.Has("watch") ? 0 : 1, 1);
  if (!times.ok()) return times.status();
  absl::StatusOr<Client*> client = invocation.Connect();
  if (!client.ok()) return client.status();
  for (int64_t shown = 0; *times == 0 || shown < *times; ++shown) {
    if (shown > 0) invocation.environment().sleep(*interval);
    absl::StatusOr<Table> table = TopOf(**client, **kind);
    if (!table.ok()) return table.status();
    if (invocation.Has("watch") && invocation.environment().out_is_terminal) {
      invocation.out() << kClearScreen;
    }
    invocation.out() << ColoredStates(invocation,
                                      table->Text(invocation.Layout()))
                     << std::flush;
  }
  return ExitCode::kDone;
}

}  // namespace shardplane
