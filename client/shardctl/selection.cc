#include "client/shardctl/selection.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/shardctl/suggest.h"
#include "client/shardctl/text_values.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using google::protobuf::Message;

// Of --deployment; "": it was not given.
absl::StatusOr<std::string> ParentOf(const Invocation& invocation) {
  if (!invocation.Has("deployment")) return std::string();
  return DeploymentName(invocation.Value("deployment"));
}

absl::StatusOr<std::vector<std::string>> Parents(Client& client,
                                                 const ResourceKind& kind,
                                                 const std::string& parent) {
  if (!kind.of_deployment || !parent.empty()) {
    return std::vector<std::string>{parent};
  }
  absl::StatusOr<pb::ListDeploymentsResponse> deployments =
      client.ListDeployments();
  if (!deployments.ok()) return deployments.status();
  std::vector<std::string> names;
  for (const pb::Deployment& deployment : deployments->deployments()) {
    names.push_back(deployment.name());
  }
  return names;
}

absl::StatusOr<Selected> SelectAll(Client& client, const ResourceKind& kind,
                                   const std::string& parent) {
  Selected selected{.kind = &kind};
  absl::StatusOr<std::vector<std::string>> parents =
      Parents(client, kind, parent);
  if (!parents.ok()) return parents.status();
  for (const std::string& name : *parents) {
    absl::StatusOr<MessagePtr> list = kind.list(client, name);
    if (!list.ok()) return list.status();
    for (const Message* item : ItemsOf(**list)) {
      selected.items.push_back(item);
    }
    selected.answers.push_back(*std::move(list));
  }
  return selected;
}

// What may have been meant by a name that there is not.
std::string HintFor(Client& client, const ResourceName& resource) {
  const std::string parent =
      resource.kind->of_deployment
          ? resource.name.substr(0, resource.name.find(absl::StrCat(
                                        "/", resource.kind->plural, "/")))
          : "";
  const absl::StatusOr<MessagePtr> list = resource.kind->list(client, parent);
  const std::string general =
      absl::StrCat("`shardctl get ", resource.kind->plural, "` lists them");
  if (!list.ok()) return general;
  std::vector<std::string> names;
  for (const Message* item : ItemsOf(**list)) {
    names.push_back(LastPart(NameOf(*item)));
  }
  const std::string meant = DidYouMean(LastPart(resource.name), names);
  return meant.empty() ? general : meant.substr(1);
}

// "wk,deploy" and "all"; empty: it is no kind but a name.
absl::StatusOr<std::vector<const ResourceKind*>> KindsOf(
    const std::string& text) {
  std::vector<const ResourceKind*> kinds;
  if (text == "all") {
    for (const ResourceKind& kind : ResourceKinds()) {
      if (kind.in_all) kinds.push_back(&kind);
    }
    return kinds;
  }
  if (absl::StrContains(text, '/')) return kinds;
  for (const std::string& name :
       std::vector<std::string>(absl::StrSplit(text, ','))) {
    absl::StatusOr<const ResourceKind*> kind = FindKind(name);
    if (!kind.ok()) return kind.status();
    kinds.push_back(*kind);
  }
  return kinds;
}

// Lists of all of some kinds; `get all` leaves out what an older coordinator
// has no list of.
absl::StatusOr<std::vector<Selected>> SelectKinds(
    Client& client, const std::vector<const ResourceKind*>& kinds,
    const std::string& parent, bool is_all) {
  std::vector<Selected> groups;
  for (const ResourceKind* kind : kinds) {
    absl::StatusOr<Selected> group = SelectAll(client, *kind, parent);
    if (is_all && absl::IsUnimplemented(group.status())) continue;
    if (!group.ok()) return group.status();
    groups.push_back(*std::move(group));
  }
  return groups;
}

}  // namespace

absl::StatusOr<std::vector<ResourceName>> NamedResources(
    const Invocation& invocation, const std::vector<std::string>& arguments) {
  absl::StatusOr<std::string> parent = ParentOf(invocation);
  if (!parent.ok()) return parent.status();
  const ResourceKind* kind = nullptr;
  size_t first = 0;
  if (!arguments.empty() && !absl::StrContains(arguments[0], '/')) {
    absl::StatusOr<const ResourceKind*> found = FindKind(arguments[0]);
    if (!found.ok()) return found.status();
    kind = *found;
    first = 1;
  }
  std::vector<ResourceName> names;
  for (size_t i = first; i < arguments.size(); ++i) {
    absl::StatusOr<ResourceName> name =
        ParseResource(arguments[i], kind, *parent);
    if (!name.ok()) return name.status();
    names.push_back(*std::move(name));
  }
  if (names.empty()) {
    return UsageError("expected KIND NAME or KIND/NAME, got: no name");
  }
  return names;
}

absl::StatusOr<MessagePtr> GetResource(Invocation& invocation,
                                       const ResourceName& resource) {
  absl::StatusOr<Client*> client = invocation.Connect();
  if (!client.ok()) return client.status();
  absl::StatusOr<MessagePtr> found =
      resource.kind->get(**client, resource.name);
  if (absl::IsNotFound(found.status())) {
    return WithHint(found.status(), HintFor(**client, resource));
  }
  return found;
}

absl::StatusOr<std::vector<Selected>> Select(
    Invocation& invocation, const std::vector<std::string>& arguments) {
  absl::StatusOr<std::vector<const ResourceKind*>> kinds =
      KindsOf(arguments[0]);
  if (!kinds.ok()) return kinds.status();
  absl::StatusOr<std::string> parent = ParentOf(invocation);
  if (!parent.ok()) return parent.status();
  if (arguments.size() == 1 && !kinds->empty()) {
    absl::StatusOr<Client*> client = invocation.Connect();
    if (!client.ok()) return client.status();
    return SelectKinds(**client, *kinds, *parent, arguments[0] == "all");
  }
  absl::StatusOr<std::vector<ResourceName>> names =
      NamedResources(invocation, arguments);
  if (!names.ok()) return names.status();
  std::vector<Selected> groups;
  for (const ResourceName& name : *names) {
    absl::StatusOr<MessagePtr> found = GetResource(invocation, name);
    if (!found.ok()) return found.status();
    auto group = std::find_if(
        groups.begin(), groups.end(),
        [&](const Selected& selected) { return selected.kind == name.kind; });
    if (group == groups.end()) {
      group = groups.insert(groups.end(), Selected{.kind = name.kind});
    }
    group->items.push_back(found->get());
    group->answers.push_back(*std::move(found));
    group->is_single = names->size() == 1;
  }
  return groups;
}

}  // namespace shardplane
