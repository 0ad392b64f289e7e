// drain, uncordon, cancel, events, diagnose.
#include <algorithm>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/shardctl/commands.h"
#include "client/shardctl/findings.h"
#include "client/shardctl/printing.h"
#include "client/shardctl/resource_rows.h"
#include "client/shardctl/selection.h"
#include "client/shardctl/watching.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

enum class Cordon { kDrain, kUndo };

absl::StatusOr<ExitCode> SetDraining(Invocation& invocation, Cordon cordon) {
  for (const std::string& argument : invocation.arguments()) {
    absl::StatusOr<std::string> name = WorkerName(argument);
    if (!name.ok()) return name.status();
    absl::StatusOr<Client*> client = invocation.Connect();
    if (!client.ok()) return client.status();
    pb::DrainWorkerRequest request;
    request.set_name(*name);
    request.set_undo(cordon == Cordon::kUndo);
    const absl::StatusOr<pb::WorkerNode> worker =
        (*client)->DrainWorker(std::move(request));
    if (!worker.ok()) return worker.status();
    invocation.out() << worker->name() << " is " << StateText(worker->state());
    if (cordon == Cordon::kDrain && !worker->deployment().empty()) {
      invocation.out() << "; it goes on to serve " << worker->deployment();
    }
    invocation.out() << std::endl;
  }
  return ExitCode::kDone;
}

// "deploy/mlp" -> "deployments/mlp"; "": of all.
absl::StatusOr<std::string> ResourceOfEvents(const Invocation& invocation) {
  if (!invocation.Has("for")) return std::string();
  absl::StatusOr<ResourceName> resource =
      ParseResource(invocation.Value("for"), nullptr, "");
  if (!resource.ok()) return resource.status();
  return resource->name;
}

// Adds what a method has answered; where it is lacking, its name.
template <typename Answer, typename Repeated>
absl::Status Take(const absl::StatusOr<Answer>& answer, const char* method,
                  const Repeated& (Answer::*items)() const,
                  ClusterSnapshot* snapshot,
                  std::vector<typename Repeated::value_type>* taken) {
  if (absl::IsUnimplemented(answer.status())) {
    snapshot->lacking.push_back(method);
    return absl::OkStatus();
  }
  if (!answer.ok()) return answer.status();
  const Repeated& found = ((*answer).*items)();
  taken->assign(found.begin(), found.end());
  return absl::OkStatus();
}

// A step of a deployment. It may be of a kind that has no timeline, or be
// forgotten.
absl::Status TakeTimeline(Client& client, const std::string& step,
                          ClusterSnapshot* snapshot) {
  const absl::StatusOr<pb::StepTimeline> timeline =
      client.GetStepTimeline(step);
  if (absl::IsUnimplemented(timeline.status())) {
    if (std::find(snapshot->lacking.begin(), snapshot->lacking.end(),
                  "GetStepTimeline") == snapshot->lacking.end()) {
      snapshot->lacking.push_back("GetStepTimeline");
    }
    return absl::OkStatus();
  }
  if (timeline.ok()) snapshot->timelines.push_back(*timeline);
  return absl::IsNotFound(timeline.status()) ||
                 absl::IsOutOfRange(timeline.status())
             ? absl::OkStatus()
             : timeline.status();
}

// The last steps of a deployment.
absl::Status TakeTimelines(Client& client, const pb::Deployment& deployment,
                           ClusterSnapshot* snapshot) {
  constexpr uint64_t kSteps = 3;
  if (deployment.state() != pb::Deployment::STATE_READY) {
    return absl::OkStatus();
  }
  absl::Status status;
  const auto last = static_cast<uint64_t>(deployment.last_step());
  for (uint64_t i = 0; i < std::min(kSteps, last); ++i) {
    status.Update(TakeTimeline(
        client, absl::StrCat(deployment.name(), "/steps/", last - i),
        snapshot));
  }
  return status;
}

absl::StatusOr<ClusterSnapshot> TakeSnapshot(Invocation& invocation) {
  absl::StatusOr<Client*> client = invocation.Connect();
  if (!client.ok()) return client.status();
  ClusterSnapshot snapshot{.now = invocation.now()};
  absl::Status status =
      Take((*client)->ListWorkers(), "ListWorkers",
           &pb::ListWorkersResponse::workers, &snapshot, &snapshot.workers);
  status.Update(Take((*client)->ListOperations(), "ListOperations",
                     &pb::ListOperationsResponse::operations, &snapshot,
                     &snapshot.operations));
  std::vector<pb::Deployment> listed;
  status.Update(Take((*client)->ListDeployments(), "ListDeployments",
                     &pb::ListDeploymentsResponse::deployments, &snapshot,
                     &listed));
  for (const pb::Deployment& deployment : listed) {
    if (!status.ok()) return status;
    absl::StatusOr<pb::Deployment> whole =
        (*client)->GetDeployment(deployment.name());
    if (absl::IsNotFound(whole.status())) continue;  // deleted meanwhile
    if (!whole.ok()) return whole.status();
    status.Update(TakeTimelines(**client, *whole, &snapshot));
    snapshot.deployments.push_back(*std::move(whole));
  }
  if (!status.ok()) return status;
  return snapshot;
}

nlohmann::ordered_json JsonOfFindings(const std::vector<Finding>& findings) {
  nlohmann::ordered_json items = nlohmann::ordered_json::array();
  for (const Finding& finding : findings) {
    items.push_back({{"severity", SeverityText(finding.severity)},
                     {"check", finding.check},
                     {"resource", finding.resource},
                     {"what", finding.what},
                     {"hint", finding.hint}});
  }
  return {{"findings", items}};
}

std::string FindingsText(const Invocation& invocation,
                         const std::vector<Finding>& findings) {
  if (findings.empty()) {
    return absl::StrCat("Nothing is wrong, by ", Checks().size(), " checks.\n");
  }
  Table table({{"SEVERITY"}, {"CHECK"}, {"RESOURCE"}, {"WHAT"}, {"HINT"}});
  for (const Finding& finding : findings) {
    table.Add({SeverityText(finding.severity), finding.check, finding.resource,
               finding.what, finding.hint});
  }
  return ColoredStates(invocation, table.Text(invocation.Layout()));
}

}  // namespace

absl::StatusOr<ExitCode> RunDrain(Invocation& invocation) {
  return SetDraining(invocation, Cordon::kDrain);
}

absl::StatusOr<ExitCode> RunUncordon(Invocation& invocation) {
  return SetDraining(invocation, Cordon::kUndo);
}

absl::StatusOr<ExitCode> RunCancel(Invocation& invocation) {
  absl::StatusOr<const ResourceKind*> kind = FindKind("operations");
  if (!kind.ok()) return kind.status();
  absl::StatusOr<Client*> client = invocation.Connect();
  if (!client.ok()) return client.status();
  for (const std::string& argument : invocation.arguments()) {
    absl::StatusOr<ResourceName> name = ParseResource(argument, *kind, "");
    if (!name.ok()) return name.status();
    pb::CancelOperationRequest request;
    request.set_name(name->name);
    const absl::StatusOr<pb::Operation> operation =
        (*client)->CancelOperation(std::move(request));
    if (!operation.ok()) return operation.status();
    invocation.out() << operation->name() << " is "
                     << StateText(operation->state()) << std::endl;
  }
  return ExitCode::kDone;
}

absl::StatusOr<ExitCode> RunEvents(Invocation& invocation) {
  absl::StatusOr<std::string> resource = ResourceOfEvents(invocation);
  if (!resource.ok()) return resource.status();
  absl::StatusOr<const ResourceKind*> kind = FindKind("events");
  if (!kind.ok()) return kind.status();
  if (invocation.Has("watch")) {
    return Watch(
        invocation, **kind, "", [&](const google::protobuf::Message& message) {
          const auto& event =
              *google::protobuf::DynamicCastToGenerated<const pb::Event>(
                  &message);
          return resource->empty() || event.resource() == *resource;
        });
  }
  absl::StatusOr<Client*> client = invocation.Connect();
  if (!client.ok()) return client.status();
  const absl::StatusOr<pb::ListEventsResponse> events =
      (*client)->ListEvents(*resource);
  if (!events.ok()) return events.status();
  if (IsStructured(invocation.output())) {
    Print(invocation, *events);
    return ExitCode::kDone;
  }
  Table table(EventColumns());
  for (const pb::Event& event : events->events()) {
    table.Add(EventRow(event, invocation.now()));
  }
  if (table.empty()) invocation.err() << "There are none.\n";
  invocation.out() << (table.empty()
                           ? ""
                           : ColoredStates(invocation,
                                           table.Text(invocation.Layout())));
  return ExitCode::kDone;
}

absl::StatusOr<ExitCode> RunDiagnose(Invocation& invocation) {
  absl::StatusOr<ClusterSnapshot> snapshot = TakeSnapshot(invocation);
  std::vector<Finding> findings;
  ExitCode code = ExitCode::kFailed;
  if (snapshot.ok()) {
    findings = Diagnose(*snapshot);
    // Notes alone are nothing wrong.
    if (findings.empty() ||
        findings.front().severity == Finding::Severity::kNote) {
      code = ExitCode::kDone;
    }
  } else if (absl::IsUnavailable(snapshot.status())) {
    const absl::StatusOr<std::string> address = invocation.Address();
    findings = {{Finding::Severity::kError, "coordinator", "coordinator",
                 std::string(snapshot.status().message()),
                 absl::StrCat("is it running at ", address.value_or("?"),
                              "? `shardctl config get-contexts`")}};
    code = ExitCode::kUnreachable;
  } else {
    return snapshot.status();
  }
  if (IsStructured(invocation.output())) {
    Print(invocation, JsonOfFindings(findings));
  } else {
    invocation.out() << FindingsText(invocation, findings);
  }
  return code;
}

}  // namespace shardplane
