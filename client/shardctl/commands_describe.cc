// describe: all that is known of one resource.
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/shardctl/commands.h"
#include "client/shardctl/printing.h"
#include "client/shardctl/report_text.h"
#include "client/shardctl/resource_rows.h"
#include "client/shardctl/selection.h"
#include "client/shardctl/text_values.h"
#include "google/protobuf/util/time_util.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using google::protobuf::Message;

std::string TimeText(const google::protobuf::Timestamp& time) {
  return time.seconds() == 0 ? kNone
                             : google::protobuf::util::TimeUtil::ToString(time);
}

// "Name:   mlp" lines, in one column.
class Facts {
 public:
  Facts() : table_({{""}, {""}}) {}
  Facts& Add(const std::string& name, const std::string& value) {
    table_.Add({name + ":", OrNone(value)});
    return *this;
  }
  std::string Text(TableLayout layout) const {
    layout.headers = false;
    return table_.Text(layout);
  }

 private:
  Table table_;
};

std::string LabelsText(
    const google::protobuf::Map<std::string, std::string>& labels) {
  std::vector<std::string> pairs;
  for (const auto& [key, value] : labels) {
    pairs.push_back(absl::StrCat(key, "=", value));
  }
  std::sort(pairs.begin(), pairs.end());
  return absl::StrJoin(pairs, ", ");
}

std::string Describe(const pb::WorkerNode& worker, const TableLayout& layout) {
  return Facts()
      .Add("Name", worker.name())
      .Add("Uid", worker.uid())
      .Add("State", StateText(worker.state()))
      .Add("Reason", worker.state_reason())
      .Add("Since", TimeText(worker.state_time()))
      .Add("Device", worker.device())
      .Add("Address", worker.address())
      .Add("Metrics", worker.http_address())
      .Add("Incarnation", absl::StrCat(worker.incarnation()))
      .Add("Deployment", worker.deployment())
      .Add("Rank",
           worker.deployment().empty() ? "" : absl::StrCat(worker.rank()))
      .Text(layout);
}

std::string Describe(const pb::ModuleResource& module,
                     const TableLayout& layout) {
  std::string text =
      Facts()
          .Add("Name", module.name())
          .Add("Uid", module.uid())
          .Add("Labels", LabelsText(module.labels()))
          .Add("Created", TimeText(module.create_time()))
          .Add("Parameters", absl::StrCat(module.parameter_count()))
          .Add("Size", BytesText(module.parameter_bytes()))
          .Text(layout);
  Table modules({{"MODULE"}, {"TYPE"}});
  for (const pb::ModuleNode& node : module.module().modules()) {
    modules.Add({node.fqn().empty() ? "(root)" : node.fqn(), node.type()});
  }
  return absl::StrCat(text, Titled("Modules", modules, layout));
}

std::string Describe(const pb::Deployment& deployment,
                     const TableLayout& layout) {
  Facts facts;
  facts.Add("Name", deployment.name())
      .Add("Uid", deployment.uid())
      .Add("State", StateText(deployment.state()))
      .Add("Reason", deployment.state_reason())
      .Add("Labels", LabelsText(deployment.labels()))
      .Add("Created", TimeText(deployment.create_time()))
      .Add("Mesh", MeshText(deployment.mesh()))
      .Add("Plan's mesh dim", deployment.plan_mesh_dim())
      .Add("Module", deployment.module_name())
      .Add("Source rank", deployment.has_src_data_rank()
                              ? absl::StrCat(deployment.src_data_rank())
                              : "")
      .Add("Seed", absl::StrCat(deployment.seed()))
      .Add("Epoch", absl::StrCat(deployment.epoch()))
      .Add("Last step", absl::StrCat(deployment.last_step()))
      .Add("Operation", deployment.operation());
  Table workers({{"RANK", Column::Align::kRight}, {"WORKER"}});
  for (int rank = 0; rank < deployment.workers_size(); ++rank) {
    workers.Add({absl::StrCat(rank), LastPart(deployment.workers(rank))});
  }
  Table programs({{"PROGRAM"}});
  for (const std::string& program : deployment.programs()) {
    programs.Add({LastPart(program)});
  }
  return absl::StrCat(facts.Text(layout), Titled("Workers", workers, layout),
                      Titled("Programs", programs, layout), "\nPlan\n",
                      ReportText(deployment.report(), layout));
}

std::string Describe(const pb::Program& program, const TableLayout& layout) {
  return absl::StrCat(Facts()
                          .Add("Name", program.name())
                          .Add("Uid", program.uid())
                          .Add("Created", TimeText(program.create_time()))
                          .Add("Inputs", TypesText(program.inputs()))
                          .Add("Outputs", TypesText(program.outputs()))
                          .Add("Loss", program.has_loss() ? "yes" : "no")
                          .Add("Buffers it changes",
                               absl::StrJoin(program.changed_buffers(), ", "))
                          .Text(layout),
                      "\nPlan\n", ReportText(program.report(), layout));
}

std::string Describe(const pb::StepResult& step, const TableLayout& layout) {
  Table collectives({{"PHASE"},
                     {"COLLECTIVE"},
                     {"COUNT", Column::Align::kRight},
                     {"BYTES", Column::Align::kRight}});
  for (const pb::CollectiveCount& row : step.collectives()) {
    collectives.Add({row.phase(), row.kind(), absl::StrCat(row.count()),
                     BytesText(row.bytes())});
  }
  std::vector<std::string> peaks;
  for (const int64_t bytes : step.peak_run_bytes()) {
    peaks.push_back(BytesText(bytes));
  }
  return absl::StrCat(
      Facts()
          .Add("Name", step.name())
          .Add("Epoch", absl::StrCat(step.epoch()))
          .Add("Loss", LossText(step))
          .Add("Duration", SecondsText(step.duration_seconds()))
          .Add("Run", SecondsText(step.timing().run_seconds()))
          .Add("Collectives", SecondsText(step.timing().collective_seconds()))
          .Add("Commit", SecondsText(step.timing().commit_call_seconds()))
          .Add("Gradient norm", step.has_gradient_norm()
                                    ? absl::StrCat(step.gradient_norm())
                                    : "")
          .Add("Peak by rank", absl::StrJoin(peaks, ", "))
          .Text(layout),
      Titled("Collectives that ran, of rank 0", collectives, layout));
}

std::string Describe(const pb::Operation& operation,
                     const TableLayout& layout) {
  return Facts()
      .Add("Name", operation.name())
      .Add("Uid", operation.uid())
      .Add("Kind",
           EnumText(pb::Operation::Kind_Name(operation.kind()), "KIND_"))
      .Add("Resource", operation.resource())
      .Add("State", StateText(operation.state()))
      .Add("Phase", operation.phase())
      .Add("Done", absl::StrCat(BytesText(operation.bytes_done()), " of ",
                                BytesText(operation.bytes_total())))
      .Add("Created", TimeText(operation.create_time()))
      .Add("Ended", TimeText(operation.end_time()))
      .Add("Error", operation.error().message())
      .Text(layout);
}

std::string Describe(const pb::Event& event, const TableLayout& layout) {
  return Facts()
      .Add("Name", event.name())
      .Add("Time", TimeText(event.create_time()))
      .Add("Severity",
           EnumText(pb::Event::Severity_Name(event.severity()), "SEVERITY_"))
      .Add("Reason", event.reason())
      .Add("Resource", event.resource())
      .Add("Message", event.message())
      .Text(layout);
}

template <typename Resource>
bool DescribeIf(const Message& message, const TableLayout& layout,
                std::string* text) {
  const auto* resource =
      google::protobuf::DynamicCastToGenerated<const Resource>(&message);
  if (resource == nullptr) return false;
  *text = Describe(*resource, layout);
  return true;
}

std::string DescribeAny(const Message& message, const TableLayout& layout) {
  std::string text;
  (void)(DescribeIf<pb::WorkerNode>(message, layout, &text) ||
         DescribeIf<pb::ModuleResource>(message, layout, &text) ||
         DescribeIf<pb::Deployment>(message, layout, &text) ||
         DescribeIf<pb::Program>(message, layout, &text) ||
         DescribeIf<pb::StepResult>(message, layout, &text) ||
         DescribeIf<pb::Operation>(message, layout, &text) ||
         DescribeIf<pb::Event>(message, layout, &text));
  return text;
}

// What has happened to it; where the coordinator keeps none, that.
absl::StatusOr<std::string> EventsText(Invocation& invocation,
                                       const std::string& name) {
  absl::StatusOr<Client*> client = invocation.Connect();
  if (!client.ok()) return client.status();
  const absl::StatusOr<pb::ListEventsResponse> events =
      (*client)->ListEvents(name);
  if (absl::IsUnimplemented(events.status())) {
    return std::string("\nEvents: this coordinator keeps none\n");
  }
  if (!events.ok()) return events.status();
  Table table(EventColumns());
  for (const pb::Event& event : events->events()) {
    table.Add(EventRow(event, invocation.now()));
  }
  return Titled("Events", table, invocation.Layout());
}

}  // namespace

absl::StatusOr<ExitCode> RunDescribe(Invocation& invocation) {
  absl::StatusOr<std::vector<ResourceName>> names =
      NamedResources(invocation, invocation.arguments());
  if (!names.ok()) return names.status();
  bool first = true;
  for (const ResourceName& name : *names) {
    absl::StatusOr<MessagePtr> found = GetResource(invocation, name);
    if (!found.ok()) return found.status();
    invocation.out() << (first ? "" : "\n")
                     << DescribeAny(**found, invocation.Layout());
    first = false;
    if (name.kind->plural == "events" || name.kind->of_deployment) continue;
    absl::StatusOr<std::string> events = EventsText(invocation, name.name);
    if (!events.ok()) return events.status();
    invocation.out() << *events;
  }
  return ExitCode::kDone;
}

}  // namespace shardplane
