#include "client/shardctl/resource_kind.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/shardctl/failure.h"
#include "client/shardctl/resource_rows.h"
#include "client/shardctl/suggest.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using google::protobuf::Message;

template <typename Answer>
absl::StatusOr<MessagePtr> Boxed(absl::StatusOr<Answer> answer) {
  if (!answer.ok()) return answer.status();
  return MessagePtr(new Answer(*std::move(answer)));
}

template <auto method>
absl::StatusOr<MessagePtr> Get(Client& client, const std::string& name) {
  return Boxed((client.*method)(name));
}
template <auto method>
absl::StatusOr<MessagePtr> List(Client& client, const std::string&) {
  return Boxed((client.*method)());
}

absl::StatusOr<MessagePtr> ListPrograms(Client& client,
                                        const std::string& parent) {
  return Boxed(client.ListPrograms(parent));
}
absl::StatusOr<MessagePtr> ListSteps(Client& client,
                                     const std::string& parent) {
  return Boxed(client.ListSteps(parent));
}
absl::StatusOr<MessagePtr> ListEvents(Client& client, const std::string&) {
  return Boxed(client.ListEvents());
}

// Events have no method of their own to get one.
absl::StatusOr<MessagePtr> GetEvent(Client& client, const std::string& name) {
  absl::StatusOr<pb::ListEventsResponse> events = client.ListEvents();
  if (!events.ok()) return events.status();
  for (const pb::Event& event : events->events()) {
    if (event.name() == name) return MessagePtr(new pb::Event(event));
  }
  return absl::NotFoundError(
      absl::StrCat("expected one of the last 1000 events, got: ", name));
}

std::vector<std::string> KindNames() {
  std::vector<std::string> names;
  for (const ResourceKind& kind : ResourceKinds()) {
    names.push_back(kind.plural);
    names.insert(names.end(), kind.short_names.begin(), kind.short_names.end());
  }
  return names;
}

absl::StatusOr<std::string> NameOfKind(const std::string& text,
                                       const char* plural) {
  absl::StatusOr<const ResourceKind*> kind = FindKind(plural);
  if (!kind.ok()) return kind.status();
  absl::StatusOr<ResourceName> name = ParseResource(text, *kind, "");
  if (!name.ok()) return name.status();
  return name->name;
}

}  // namespace

const std::vector<ResourceKind>& ResourceKinds() {
  static const auto* const kKinds = new std::vector<ResourceKind>{
      {"workers",
       "worker",
       {"wk"},
       false,
       true,
       true,
       WorkerColumns(),
       &WorkerRow,
       &List<&Client::ListWorkers>,
       &Get<&Client::GetWorker>},
      {"modules",
       "module",
       {"mod"},
       false,
       true,
       true,
       ModuleColumns(),
       &ModuleRow,
       &List<&Client::ListModules>,
       &Get<&Client::GetModule>},
      {"deployments",
       "deployment",
       {"deploy", "dp"},
       false,
       true,
       true,
       DeploymentColumns(),
       &DeploymentRow,
       &List<&Client::ListDeployments>,
       &Get<&Client::GetDeployment>},
      {"programs",
       "program",
       {"prog"},
       true,
       false,
       true,
       ProgramColumns(),
       &ProgramRow,
       &ListPrograms,
       &Get<&Client::GetProgram>},
      {"steps",
       "step",
       {"st"},
       true,
       false,
       false,
       StepColumns(),
       &StepRow,
       &ListSteps,
       &Get<&Client::GetStep>},
      {"operations",
       "operation",
       {"op"},
       false,
       true,
       true,
       OperationColumns(),
       &OperationRow,
       &List<&Client::ListOperations>,
       &Get<&Client::GetOperation>},
      {"events",
       "event",
       {"ev"},
       false,
       true,
       false,
       EventColumns(),
       &EventRow,
       &ListEvents,
       &GetEvent},
  };
  return *kKinds;
}

absl::StatusOr<const ResourceKind*> FindKind(const std::string& name) {
  for (const ResourceKind& kind : ResourceKinds()) {
    if (kind.plural == name || kind.singular == name ||
        std::find(kind.short_names.begin(), kind.short_names.end(), name) !=
            kind.short_names.end()) {
      return &kind;
    }
  }
  return UsageError(absl::StrCat("there is no kind of resource \"", name, "\".",
                                 DidYouMean(name, KindNames())),
                    absl::StrCat("kinds: ", absl::StrJoin(KindNames(), ", ")));
}

absl::StatusOr<ResourceName> ParseResource(const std::string& text,
                                           const ResourceKind* kind,
                                           const std::string& parent) {
  const std::vector<std::string> parts = absl::StrSplit(text, '/');
  if (std::find(parts.begin(), parts.end(), "") != parts.end()) {
    return UsageError(absl::StrCat("expected KIND/NAME, got: \"", text, "\""));
  }
  if (parts.size() == 4) {  // deployments/d/programs/p
    absl::StatusOr<const ResourceKind*> found = FindKind(parts[2]);
    if (!found.ok()) return found.status();
    return ResourceName{*found, absl::StrCat("deployments/", parts[1], "/",
                                             (*found)->plural, "/", parts[3])};
  }
  if (parts.size() > 2) {
    return UsageError(absl::StrCat("expected KIND/NAME, got: \"", text, "\""));
  }
  if (parts.size() == 2) {
    absl::StatusOr<const ResourceKind*> found = FindKind(parts[0]);
    if (!found.ok()) return found.status();
    if (kind != nullptr && kind != *found) {
      return UsageError(absl::StrCat("expected one of ", kind->plural,
                                     ", got: \"", text, "\""));
    }
    kind = *found;
  }
  if (kind == nullptr) {
    return UsageError(absl::StrCat("expected KIND/NAME, got: \"", text, "\""));
  }
  if (!kind->of_deployment) {
    return ResourceName{kind, absl::StrCat(kind->plural, "/", parts.back())};
  }
  if (parent.empty()) {
    return UsageError(absl::StrCat("of which deployment is ", kind->singular,
                                   " ", parts.back(), "?"),
                      absl::StrCat("--deployment NAME, or deployments/NAME/",
                                   kind->plural, "/", parts.back()));
  }
  return ResourceName{
      kind, absl::StrCat(parent, "/", kind->plural, "/", parts.back())};
}

std::vector<const Message*> ItemsOf(const Message& list) {
  const google::protobuf::Reflection& reflection = *list.GetReflection();
  std::vector<const Message*> items;
  // Lists have their items as the first field.
  const google::protobuf::FieldDescriptor* field =
      list.GetDescriptor()->field(0);
  for (int i = 0; i < reflection.FieldSize(list, field); ++i) {
    items.push_back(&reflection.GetRepeatedMessage(list, field, i));
  }
  return items;
}

std::string NameOf(const Message& resource) {
  const google::protobuf::FieldDescriptor* name =
      resource.GetDescriptor()->FindFieldByName("name");
  return resource.GetReflection()->GetString(resource, name);
}

absl::StatusOr<std::string> DeploymentName(const std::string& text) {
  return NameOfKind(text, "deployments");
}

absl::StatusOr<std::string> WorkerName(const std::string& text) {
  return NameOfKind(text, "workers");
}

}  // namespace shardplane
