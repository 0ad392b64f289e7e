#include "client/shardctl/watching.h"

#include <ostream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/shardctl/printing.h"
#include "client/shardctl/selection.h"
#include "client/watch_stream.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using google::protobuf::Message;

// The resource of an event; null: a bookmark.
const Message* ResourceOf(const pb::WatchEvent& event) {
  const google::protobuf::Reflection& reflection = *event.GetReflection();
  const auto* field = reflection.GetOneofFieldDescriptor(
      event, event.GetDescriptor()->FindOneofByName("resource"));
  return field == nullptr ? nullptr : &reflection.GetMessage(event, field);
}

// Prints what comes. Before the first bookmark rows are collected, so that they
// are one table.
class Printer {
 public:
  Printer(const Invocation& invocation, const ResourceKind& kind)
      : invocation_(invocation), kind_(kind), table_(kind.columns) {}

  void Take(const Message& resource, pb::WatchEvent::Type type) {
    if (IsStructured(invocation_.output())) {
      if (invocation_.output() == OutputFormat::kYaml) {
        invocation_.out() << "---\n";
      }
      Print(invocation_, resource);
    } else if (invocation_.output() == OutputFormat::kName) {
      invocation_.out() << NameOf(resource) << std::endl;
    } else {
      Table::Row row = kind_.row(resource, invocation_.now());
      if (type == pb::WatchEvent::TYPE_DELETED) {
        row[0] += " (deleted)";
      }
      table_.Add(std::move(row));
      if (is_listed_) Write(table_.LastLine(invocation_.Layout()));
    }
  }
  void Listed() {
    if (!std::exchange(is_listed_, true) && !table_.empty()) {
      Write(table_.Text(invocation_.Layout()));
    }
  }

 private:
  void Write(const std::string& text) {
    invocation_.out() << ColoredStates(invocation_, text) << std::flush;
  }

  const Invocation& invocation_;
  const ResourceKind& kind_;
  Table table_;
  bool is_listed_ = false;
};

}  // namespace

absl::StatusOr<ExitCode> Watch(
    Invocation& invocation, const ResourceKind& kind, const std::string& name,
    const std::function<bool(const Message&)>& keep) {
  absl::StatusOr<absl::Duration> limit =
      invocation.Span("timeout", absl::InfiniteDuration());
  if (!limit.ok()) return limit.status();
  absl::StatusOr<Client*> client = invocation.Connect();
  if (!client.ok()) return client.status();
  pb::WatchRequest request;
  request.add_collections(kind.plural);
  request.set_name(name);
  const std::unique_ptr<WatchStream> watch =
      (*client)->Watch(request, {.until = invocation.now() + *limit});
  Printer printer(invocation, kind);
  while (true) {
    const absl::StatusOr<pb::WatchEvent> event = watch->Next();
    if (absl::IsOutOfRange(event.status())) continue;  // it starts anew
    if (!event.ok()) {
      printer.Listed();
      // Who gave a time has seen what there was to see.
      return absl::IsDeadlineExceeded(event.status())
                 ? absl::StatusOr<ExitCode>(ExitCode::kDone)
                 : event.status();
    }
    const Message* resource = ResourceOf(*event);
    if (event->type() == pb::WatchEvent::TYPE_BOOKMARK) {
      printer.Listed();
    } else if (resource != nullptr && keep(*resource)) {
      printer.Take(*resource, event->type());
    }
  }
}

absl::StatusOr<ExitCode> WatchKind(Invocation& invocation) {
  const std::vector<std::string>& arguments = invocation.arguments();
  ResourceName target;
  if (arguments.size() == 1 && arguments[0].find('/') == std::string::npos) {
    absl::StatusOr<const ResourceKind*> kind = FindKind(arguments[0]);
    if (!kind.ok()) return kind.status();
    target.kind = *kind;
  } else {
    absl::StatusOr<std::vector<ResourceName>> names =
        NamedResources(invocation, arguments);
    if (!names.ok()) return names.status();
    if (names->size() != 1) {
      return UsageError("--watch: expected a kind, or one of it");
    }
    target = names->front();
  }
  if (!target.kind->watched) {
    return UsageError(
        absl::StrCat("--watch: ", target.kind->plural, " cannot be watched"),
        "a step shows as its deployment's last one: get deployments --watch");
  }
  return Watch(invocation, *target.kind, target.name,
               [](const Message&) { return true; });
}

}  // namespace shardplane
