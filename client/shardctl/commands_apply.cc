// plan, apply, explain.
#include <algorithm>
#include <ostream>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/shardctl/commands.h"
#include "client/shardctl/manifest.h"
#include "client/shardctl/materialize.h"
#include "client/shardctl/printing.h"
#include "client/shardctl/report_text.h"
#include "client/shardctl/resource_kind.h"
#include "client/shardctl/spec_diff.h"
#include "client/shardctl/text_values.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

constexpr absl::Duration kWait = absl::Minutes(10);

// What applying one document has done, or would do.
enum class Outcome { kSame, kDifferent };

absl::Status Immutable(const std::string& name, const char* kind) {
  return WithHint(
      absl::FailedPreconditionError(
          absl::StrCat(name, " is another one than the file asks for, and a ",
                       kind, " never changes")),
      absl::StrCat("`apply --replace` deletes it and creates the other; of a "
                   "deployment, all that it has trained is lost"));
}

void Say(const Invocation& invocation, const std::string& name,
         const char* what) {
  if (invocation.output() == OutputFormat::kName) {
    invocation.out() << name << std::endl;
  } else {
    invocation.out() << name << " " << what << std::endl;
  }
}

bool IsDryRun(const Invocation& invocation) {
  return invocation.Has("dry-run");
}

void ShowDiff(const Invocation& invocation, const std::string& diff) {
  invocation.out() << ColoredDiff(invocation, diff) << std::flush;
}

// The file's program, where it has one and the deployment has not.
absl::StatusOr<Outcome> ApplyProgram(Invocation& invocation, Client& client,
                                     const pb::CreateDeploymentRequest& file,
                                     const pb::Deployment& running) {
  if (!file.has_signature()) return Outcome::kSame;
  pb::CreateProgramRequest request;
  request.set_parent(running.name());
  *request.mutable_signature() = file.signature();
  request.set_validate_only(true);
  absl::StatusOr<pb::Program> program = client.CreateProgram(request);
  if (!program.ok()) return program.status();
  if (std::find(running.programs().begin(), running.programs().end(),
                program->name()) != running.programs().end()) {
    return Outcome::kSame;
  }
  if (IsDryRun(invocation)) {
    Say(invocation, program->name(), "would be added");
    return Outcome::kDifferent;
  }
  request.set_validate_only(false);
  program = client.CreateProgram(request);
  if (!program.ok()) return program.status();
  Say(invocation, program->name(), "added");
  return Outcome::kDifferent;
}

absl::Status FinishDeployment(Invocation& invocation,
                              const pb::Deployment& deployment) {
  if (!invocation.Has("materialize") ||
      deployment.state() != pb::Deployment::STATE_AWAITING_DATA) {
    return absl::OkStatus();
  }
  absl::StatusOr<absl::Duration> limit = invocation.Span("timeout", kWait);
  if (!limit.ok()) return limit.status();
  if (absl::Status status = Materialize(invocation, deployment, *limit);
      !status.ok()) {
    return status;
  }
  Say(invocation, deployment.name(), "materialized");
  return absl::OkStatus();
}

absl::StatusOr<Outcome> CreateDeployment(
    Invocation& invocation, Client& client,
    const pb::CreateDeploymentRequest& file) {
  absl::StatusOr<pb::Deployment> made = client.CreateDeployment(file);
  if (!made.ok()) return made.status();
  Say(invocation, made->name(), "created");
  if (absl::Status status = FinishDeployment(invocation, *made); !status.ok()) {
    return status;
  }
  return Outcome::kDifferent;
}

absl::StatusOr<Outcome> ApplyExisting(Invocation& invocation, Client& client,
                                      const pb::CreateDeploymentRequest& file,
                                      const pb::Deployment& running,
                                      const pb::Deployment& planned) {
  const std::string diff = DeploymentDiff(running, planned, file.deployment());
  if (diff.empty()) {
    absl::StatusOr<Outcome> outcome =
        ApplyProgram(invocation, client, file, running);
    if (outcome.ok() && *outcome == Outcome::kSame) {
      Say(invocation, running.name(), "unchanged");
    }
    if (outcome.ok() && !IsDryRun(invocation)) {
      absl::Status status = FinishDeployment(invocation, running);
      if (!status.ok()) return status;
    }
    return outcome;
  }
  ShowDiff(invocation, diff);
  if (IsDryRun(invocation)) return Outcome::kDifferent;
  if (!invocation.Has("replace"))
    return Immutable(running.name(), "deployment");
  pb::DeleteDeploymentRequest request;
  request.set_name(running.name());
  request.set_etag(running.etag());
  if (absl::Status status = client.DeleteDeployment(request); !status.ok()) {
    return status;
  }
  Say(invocation, running.name(), "deleted");
  return CreateDeployment(invocation, client, file);
}

absl::StatusOr<Outcome> ApplyDeployment(Invocation& invocation, Client& client,
                                        pb::CreateDeploymentRequest file) {
  const std::string name = NameOf(Manifest(file));
  if (name.empty()) {
    return UsageError("expected the name of the deployment, got: none",
                      "deployment_id: NAME in the file, or --name=NAME");
  }
  if (file.validate_only()) {
    return UsageError("the file says validate_only: it asks for a plan alone",
                      "`shardctl plan -f FILE`");
  }
  pb::CreateDeploymentRequest dry_run = file;
  dry_run.set_validate_only(true);
  absl::StatusOr<pb::Deployment> planned = client.CreateDeployment(dry_run);
  if (!planned.ok()) return planned.status();
  absl::StatusOr<pb::Deployment> running = client.GetDeployment(name);
  if (running.ok()) {
    return ApplyExisting(invocation, client, file, *running, *planned);
  }
  if (!absl::IsNotFound(running.status())) return running.status();
  if (IsDryRun(invocation)) {
    ShowDiff(invocation, NewDiff(name, file.deployment()));
    return Outcome::kDifferent;
  }
  return CreateDeployment(invocation, client, file);
}

absl::StatusOr<Outcome> CreateModule(Invocation& invocation, Client& client,
                                     pb::CreateModuleRequest file) {
  file.set_validate_only(IsDryRun(invocation));
  const absl::StatusOr<pb::ModuleResource> made = client.CreateModule(file);
  if (!made.ok()) return made.status();
  if (IsDryRun(invocation)) {
    ShowDiff(invocation,
             NewDiff(NameOf(Manifest(file)), SpecOf(file.module())));
  } else {
    Say(invocation, made->name(), "created");
  }
  return Outcome::kDifferent;
}

absl::StatusOr<Outcome> ApplyModule(Invocation& invocation, Client& client,
                                    const pb::CreateModuleRequest& file) {
  const std::string name = NameOf(Manifest(file));
  if (name.empty()) {
    return UsageError("expected the name of the module, got: none",
                      "module_id: NAME in the file, or --name=NAME");
  }
  absl::StatusOr<pb::ModuleResource> running = client.GetModule(name);
  if (absl::IsNotFound(running.status())) {
    return CreateModule(invocation, client, file);
  }
  if (!running.ok()) return running.status();
  const std::string diff = ModuleDiff(*running, file.module());
  if (diff.empty()) {
    Say(invocation, name, "unchanged");
    return Outcome::kSame;
  }
  ShowDiff(invocation, diff);
  if (IsDryRun(invocation)) return Outcome::kDifferent;
  if (!invocation.Has("replace")) return Immutable(name, "module");
  pb::DeleteModuleRequest request;
  request.set_name(name);
  request.set_etag(running->etag());
  if (absl::Status status = client.DeleteModule(request); !status.ok()) {
    return status;
  }
  return CreateModule(invocation, client, file);
}

void SetName(const std::string& name, Manifest* manifest) {
  if (auto* request = std::get_if<pb::CreateDeploymentRequest>(manifest)) {
    request->set_deployment_id(LastPart(name));
  } else {
    std::get<pb::CreateModuleRequest>(*manifest).set_module_id(LastPart(name));
  }
}

}  // namespace

absl::StatusOr<ExitCode> RunPlan(Invocation& invocation) {
  absl::StatusOr<pb::CreateDeploymentRequest> request =
      ReadDeployment(invocation);
  if (!request.ok()) return request.status();
  absl::StatusOr<Client*> client = invocation.Connect();
  if (!client.ok()) return client.status();
  request->set_validate_only(true);
  if (invocation.Has("strict")) {
    request->mutable_deployment()->set_strict(true);
  }
  absl::StatusOr<pb::Deployment> planned =
      (*client)->CreateDeployment(*request);
  if (!planned.ok()) return planned.status();
  if (IsStructured(invocation.output())) {
    Print(invocation, *planned);
  } else if (invocation.output() == OutputFormat::kName) {
    invocation.out() << planned->name() << "\n";
  } else {
    invocation.out() << ReportText(planned->report(), invocation.Layout());
  }
  return ExitCode::kDone;
}

absl::StatusOr<ExitCode> RunApply(Invocation& invocation) {
  absl::StatusOr<std::vector<Manifest>> manifests = ReadManifests(invocation);
  if (!manifests.ok()) return manifests.status();
  if (invocation.Has("name") && manifests->size() != 1) {
    return UsageError("--name: expected a file of one document, got more");
  }
  absl::StatusOr<Client*> client = invocation.Connect();
  if (!client.ok()) return client.status();
  bool different = false;
  for (Manifest& manifest : *manifests) {
    if (invocation.Has("name")) SetName(invocation.Value("name"), &manifest);
    const auto* deployment =
        std::get_if<pb::CreateDeploymentRequest>(&manifest);
    const absl::StatusOr<Outcome> outcome =
        deployment != nullptr
            ? ApplyDeployment(invocation, **client, *deployment)
            : ApplyModule(invocation, **client,
                          std::get<pb::CreateModuleRequest>(manifest));
    if (!outcome.ok()) return outcome.status();
    different |= *outcome == Outcome::kDifferent;
  }
  return IsDryRun(invocation) && different ? ExitCode::kFailed
                                           : ExitCode::kDone;
}

absl::StatusOr<ExitCode> RunExplain(Invocation& invocation) {
  pb::ExplainDeploymentRequest request;
  const std::vector<std::string>& arguments = invocation.arguments();
  if (invocation.Has("filename")) {
    absl::StatusOr<pb::CreateDeploymentRequest> file =
        ReadDeployment(invocation);
    if (!file.ok()) return file.status();
    if (arguments.size() > 1) {
      return UsageError("expected -f FILE or a deployment, got: both");
    }
    *request.mutable_dry_run() = *std::move(file);
    request.mutable_dry_run()->set_validate_only(true);
  } else {
    if (arguments.empty()) {
      return UsageError("expected a deployment or -f FILE, got: neither");
    }
    absl::StatusOr<std::string> name = DeploymentName(arguments[0]);
    if (!name.ok()) return name.status();
    request.set_name(*name);
  }
  const size_t fqn = invocation.Has("filename") ? 0 : 1;
  if (arguments.size() > fqn) request.set_fqn(arguments[fqn]);
  absl::StatusOr<Client*> client = invocation.Connect();
  if (!client.ok()) return client.status();
  const absl::StatusOr<pb::Explanation> explanation =
      (*client)->ExplainDeployment(request);
  if (!explanation.ok()) return explanation.status();
  if (IsStructured(invocation.output())) {
    Print(invocation, *explanation);
  } else {
    invocation.out() << ExplanationText(*explanation, invocation.Layout());
  }
  return ExitCode::kDone;
}

}  // namespace shardplane
