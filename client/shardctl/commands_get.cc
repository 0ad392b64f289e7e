// get, delete, wait.
#include <algorithm>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/shardctl/commands.h"
#include "client/shardctl/manifest.h"
#include "client/shardctl/materialize.h"
#include "client/shardctl/printing.h"
#include "client/shardctl/resource_kind.h"
#include "client/shardctl/selection.h"
#include "client/shardctl/suggest.h"
#include "client/shardctl/text_values.h"
#include "client/shardctl/watching.h"
#include "client/shardctl/yaml_json.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using google::protobuf::Message;

constexpr absl::Duration kWait = absl::Minutes(10);
constexpr absl::Duration kFirstAsk = absl::Milliseconds(50);
constexpr absl::Duration kLongestAsk = absl::Seconds(1);

void PrintTables(const Invocation& invocation,
                 const std::vector<Selected>& groups) {
  bool first = true;
  for (const Selected& group : groups) {
    if (group.items.empty() && groups.size() > 1) continue;
    if (!first) invocation.out() << "\n";
    first = false;
    if (groups.size() > 1) {
      invocation.out() << invocation.Colored(
                              absl::AsciiStrToUpper(group.kind->plural), kBold)
                       << "\n";
    }
    Table table(group.kind->columns);
    for (const Message* item : group.items) {
      table.Add(group.kind->row(*item, invocation.now()));
    }
    if (!table.empty()) {
      invocation.out() << ColoredStates(invocation,
                                        table.Text(invocation.Layout()));
    }
  }
  if (std::all_of(groups.begin(), groups.end(),
                  [](const Selected& group) { return group.items.empty(); })) {
    invocation.err() << "There are none.\n";
  }
}

// One that was named as itself, one list as the API's answer, more of them
// under their names.
void PrintStructured(const Invocation& invocation,
                     const std::vector<Selected>& groups) {
  if (groups.size() == 1 && groups[0].is_single) {
    Print(invocation, *groups[0].items[0]);
    return;
  }
  nlohmann::ordered_json all = nlohmann::ordered_json::object();
  for (const Selected& group : groups) {
    nlohmann::ordered_json items = nlohmann::ordered_json::array();
    for (const Message* item : group.items) {
      items.push_back(JsonOf(*item));
    }
    all[group.kind->plural] = std::move(items);
  }
  Print(invocation, all);
}

void PrintNames(const Invocation& invocation,
                const std::vector<Selected>& groups) {
  for (const Selected& group : groups) {
    for (const Message* item : group.items) {
      invocation.out() << NameOf(*item) << "\n";
    }
  }
}

absl::Status DeleteOne(Client& client, const ResourceName& resource,
                       bool allow_missing) {
  if (resource.kind->plural == "deployments") {
    pb::DeleteDeploymentRequest request;
    request.set_name(resource.name);
    request.set_allow_missing(allow_missing);
    return client.DeleteDeployment(std::move(request));
  }
  if (resource.kind->plural == "modules") {
    pb::DeleteModuleRequest request;
    request.set_name(resource.name);
    request.set_allow_missing(allow_missing);
    return client.DeleteModule(std::move(request));
  }
  return UsageError(
      absl::StrCat("expected a deployment or a module, got: ", resource.name));
}

// What is to be deleted: by name, or by file.
absl::StatusOr<std::vector<ResourceName>> Targets(Invocation& invocation) {
  if (!invocation.Has("filename")) {
    return NamedResources(invocation, invocation.arguments());
  }
  absl::StatusOr<std::vector<Manifest>> manifests = ReadManifests(invocation);
  if (!manifests.ok()) return manifests.status();
  std::vector<ResourceName> targets;
  for (const Manifest& manifest : *manifests) {
    absl::StatusOr<ResourceName> target =
        ParseResource(NameOf(manifest), nullptr, "");
    if (!target.ok()) return target.status();
    targets.push_back(*target);
  }
  return targets;
}

// Asks less and less often, until `done` says so.
absl::Status Poll(
    Invocation& invocation, absl::Duration limit, const std::string& what,
    const std::function<absl::StatusOr<bool>(std::string* state)>& done) {
  const absl::Time end = invocation.now() + limit;
  absl::Duration wait = kFirstAsk;
  std::string state = "as it was";
  while (true) {
    const absl::StatusOr<bool> is_done = done(&state);
    if (!is_done.ok()) return is_done.status();
    if (*is_done) return absl::OkStatus();
    const absl::Duration left = end - invocation.now();
    if (left <= absl::ZeroDuration()) return WaitTimedOut(what, state);
    invocation.environment().sleep(std::min(wait, left));
    wait = std::min(2 * wait, kLongestAsk);
  }
}

absl::Status WaitUntilGone(Invocation& invocation, Client& client,
                           const ResourceName& resource) {
  absl::StatusOr<absl::Duration> limit = invocation.Span("timeout", kWait);
  if (!limit.ok()) return limit.status();
  return Poll(invocation, *limit, resource.name,
              [&](std::string* state) -> absl::StatusOr<bool> {
                *state = "still there";
                const absl::StatusOr<MessagePtr> found =
                    resource.kind->get(client, resource.name);
                if (absl::IsNotFound(found.status())) return true;
                if (!found.ok()) return found.status();
                return false;
              });
}

// The names of the states of a kind, as --for takes them: "ready".
std::vector<std::string> StatesOf(const Message& resource) {
  std::vector<std::string> states;
  const auto* field = resource.GetDescriptor()->FindFieldByName("state");
  if (field == nullptr) return states;
  for (int i = 1; i < field->enum_type()->value_count(); ++i) {
    states.push_back(absl::AsciiStrToLower(
        EnumText(field->enum_type()->value(i)->name(), "STATE_")));
  }
  return states;
}

std::string StateOf(const Message& resource) {
  const auto* field = resource.GetDescriptor()->FindFieldByName("state");
  return absl::AsciiStrToLower(EnumText(
      resource.GetReflection()->GetEnum(resource, field)->name(), "STATE_"));
}

// A state that nothing leads out of: what waits for another waits in vain.
bool IsOver(const std::string& state) {
  return state == "failed" || state == "cancelled" || state == "succeeded" ||
         state == "retired";
}

absl::StatusOr<bool> HasCome(Client& client, const ResourceName& resource,
                             const std::string& wanted, std::string* state) {
  const absl::StatusOr<MessagePtr> found =
      resource.kind->get(client, resource.name);
  if (absl::IsNotFound(found.status()) && wanted == "deleted") return true;
  if (!found.ok()) return found.status();
  std::vector<std::string> states = StatesOf(**found);
  if (std::find(states.begin(), states.end(), "deleted") == states.end()) {
    states.push_back("deleted");
  }
  if (std::find(states.begin(), states.end(), wanted) == states.end()) {
    return UsageError(
        absl::StrCat("--for: ", resource.kind->plural, " are never ", wanted,
                     ".", DidYouMean(wanted, states)),
        absl::StrCat("states: ", absl::StrJoin(states, ", ")));
  }
  *state = StateOf(**found);
  if (*state != wanted && wanted != "deleted" && IsOver(*state)) {
    return WithHint(
        absl::FailedPreconditionError(absl::StrCat(
            resource.name, " is ", *state, ", and will not be ", wanted)),
        absl::StrCat("`shardctl describe ", resource.name, "` tells why"));
  }
  return *state == wanted;
}

}  // namespace

absl::StatusOr<ExitCode> RunGet(Invocation& invocation) {
  if (invocation.Has("watch")) return WatchKind(invocation);
  absl::StatusOr<std::vector<Selected>> groups =
      Select(invocation, invocation.arguments());
  if (!groups.ok()) return groups.status();
  if (IsStructured(invocation.output())) {
    PrintStructured(invocation, *groups);
  } else if (invocation.output() == OutputFormat::kName) {
    PrintNames(invocation, *groups);
  } else {
    PrintTables(invocation, *groups);
  }
  return ExitCode::kDone;
}

absl::StatusOr<ExitCode> RunDelete(Invocation& invocation) {
  absl::StatusOr<std::vector<ResourceName>> targets = Targets(invocation);
  if (!targets.ok()) return targets.status();
  absl::StatusOr<Client*> client = invocation.Connect();
  if (!client.ok()) return client.status();
  for (const ResourceName& target : *targets) {
    if (absl::Status status =
            DeleteOne(**client, target, invocation.Has("ignore-not-found"));
        !status.ok()) {
      return status;
    }
    if (invocation.Has("wait")) {
      if (absl::Status status = WaitUntilGone(invocation, **client, target);
          !status.ok()) {
        return status;
      }
    }
    invocation.out() << target.name << " deleted" << std::endl;
  }
  return ExitCode::kDone;
}

absl::StatusOr<ExitCode> RunWait(Invocation& invocation) {
  if (!invocation.Has("for")) {
    return UsageError("expected a state to wait for, got: none",
                      "--for=ready, --for=deleted, …");
  }
  absl::StatusOr<std::vector<ResourceName>> targets =
      NamedResources(invocation, invocation.arguments());
  if (!targets.ok()) return targets.status();
  absl::StatusOr<absl::Duration> limit = invocation.Span("timeout", kWait);
  if (!limit.ok()) return limit.status();
  absl::StatusOr<Client*> client = invocation.Connect();
  if (!client.ok()) return client.status();
  const std::string wanted = absl::AsciiStrToLower(invocation.Value("for"));
  const absl::Time end = invocation.now() + *limit;
  for (const ResourceName& target : *targets) {
    const absl::Status status =
        Poll(invocation, end - invocation.now(), target.name,
             [&](std::string* state) {
               return HasCome(**client, target, wanted, state);
             });
    if (!status.ok()) return status;
    invocation.out() << target.name << " is " << wanted << std::endl;
  }
  return ExitCode::kDone;
}

}  // namespace shardplane
