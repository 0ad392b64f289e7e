#include "client/shardctl/report_text.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "client/shardctl/text_values.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

constexpr auto kRight = Column::Align::kRight;

std::string Quoted(const std::string& text) {
  return absl::StrCat("\"", text, "\"");
}

Table Assignments(const pb::Report& report) {
  Table table({{"MODULE"},
               {"STYLE"},
               {"PARAMETERS"},
               {"INPUTS"},
               {"OUTPUTS"},
               {"PATTERN"}});
  for (const pb::Assignment& assignment : report.assignments()) {
    const std::string parameters = absl::StrJoin(
        assignment.parameters(), ", ",
        [](std::string* out, const pb::Assignment::ParameterPlacement& p) {
          absl::StrAppend(out, p.name(), " ", p.text());
        });
    table.Add({assignment.fqn().empty() ? "(root)" : assignment.fqn(),
               assignment.style(), OrNone(parameters),
               OrNone(assignment.input_layouts()),
               OrNone(assignment.output_layouts()),
               Quoted(assignment.pattern())});
  }
  return table;
}

Table Collectives(const pb::Report& report) {
  Table table(
      {{"PHASE"}, {"COLLECTIVE"}, {"COUNT", kRight}, {"BYTES", kRight}});
  for (const pb::CollectiveCount& row : report.collectives()) {
    if (row.count() > 0) {
      table.Add({row.phase(), row.kind(), absl::StrCat(row.count()),
                 BytesText(row.bytes())});
    }
  }
  return table;
}

Table ModuleCollectives(const pb::Report& report) {
  Table table({{"MODULE"},
               {"PHASE"},
               {"COLLECTIVE"},
               {"COUNT", kRight},
               {"BYTES", kRight},
               {"WHY"}});
  for (const pb::ModuleCollective& row : report.module_collectives()) {
    table.Add({row.fqn(), row.phase(),
               absl::StrCat(row.kind(), "[", row.mesh_dim(), "]"),
               absl::StrCat(row.count()), BytesText(row.bytes()), row.why()});
  }
  return table;
}

Table Memory(const pb::Report& report) {
  Table table({{"RANK", kRight},
               {"PARAMETERS", kRight},
               {"GRADIENTS", kRight},
               {"BUFFERS", kRight},
               {"ACTIVATIONS", kRight},
               {"PEAK OF A RUN", kRight}});
  for (const pb::RankMemory& row : report.memory()) {
    table.Add({absl::StrCat(row.rank()), BytesText(row.parameter_bytes()),
               BytesText(row.gradient_bytes()), BytesText(row.buffer_bytes()),
               BytesText(row.peak_activation_bytes()),
               BytesText(row.peak_run_bytes())});
  }
  return table;
}

Table Diagnostics(
    const google::protobuf::RepeatedPtrField<pb::Diagnostic>& diagnostics) {
  Table table({{"SEVERITY"}, {"REASON"}, {"MODULE"}, {"MESSAGE"}});
  for (const pb::Diagnostic& row : diagnostics) {
    table.Add({EnumText(pb::Severity_Name(row.severity()), "SEVERITY_"),
               row.reason(), OrNone(row.fqn()), row.message()});
  }
  return table;
}

// OUTCOME_COUNTED_ONCE -> "counted once"
std::string Words(const std::string& name, const char* prefix) {
  return absl::AsciiStrToLower(
      absl::StrReplaceAll(EnumText(name, prefix), {{"_", " "}}));
}

Table Matches(const pb::Explanation& explanation) {
  Table table(
      {{"PATTERN"}, {"STYLE"}, {"MESH DIM"}, {"OUTCOME"}, {"CONTRIBUTED"}});
  for (const pb::Explanation::Match& match : explanation.matches()) {
    table.Add({Quoted(match.pattern()), match.style(), match.mesh_dim(),
               Words(pb::Explanation::Match::Outcome_Name(match.outcome()),
                     "OUTCOME_"),
               absl::StrJoin(match.contributed(), "; ")});
  }
  return table;
}

// "[0:8, 0:16]"
std::string ExtentText(const pb::Explanation::Part& part) {
  std::vector<std::string> dims;
  for (int dim = 0; dim < part.offsets_size(); ++dim) {
    std::vector<std::string> stretches;
    for (const auto& stretch : part.stretches()) {
      if (stretch.dim() == dim) {
        stretches.push_back(absl::StrCat(stretch.offset(), ":",
                                         stretch.offset() + stretch.size()));
      }
    }
    if (stretches.empty()) {
      stretches.push_back(absl::StrCat(part.offsets(dim), ":",
                                       part.offsets(dim) + part.sizes(dim)));
    }
    dims.push_back(absl::StrJoin(stretches, " "));
  }
  return absl::StrCat("[", absl::StrJoin(dims, ", "), "]");
}

Table Tensors(const pb::Explanation& explanation) {
  Table table({{"TENSOR"},
               {"TYPE"},
               {"PLACEMENTS"},
               {"RANK", kRight},
               {"PART"},
               {"BYTES", kRight}});
  for (const pb::Explanation::Tensor& tensor : explanation.tensors()) {
    for (const pb::Explanation::Part& part : tensor.parts()) {
      table.Add({tensor.fqn(), TypeText(tensor.type()), tensor.text(),
                 absl::StrCat(part.rank()), ExtentText(part),
                 BytesText(part.bytes())});
    }
  }
  return table;
}

Table ExplainedCollectives(const pb::Explanation& explanation) {
  Table table({{"PHASE"},
               {"COLLECTIVE"},
               {"TENSOR"},
               {"BYTES", kRight},
               {"WHY"},
               {"PROGRAM"}});
  for (const auto& row : explanation.collectives()) {
    table.Add({row.phase(), absl::StrCat(row.kind(), "[", row.mesh_dim(), "]"),
               row.tensor(), BytesText(row.bytes()), row.why(),
               LastPart(row.program())});
  }
  return table;
}

}  // namespace

std::string Titled(const std::string& title, const Table& table,
                   const TableLayout& layout) {
  return table.empty() ? ""
                       : absl::StrCat("\n", title, "\n", table.Text(layout));
}

std::string ReportText(const pb::Report& report, const TableLayout& layout) {
  const Table assignments = Assignments(report);
  std::string text =
      assignments.empty() ? "No style is applied.\n" : assignments.Text(layout);
  const Table collectives = Collectives(report);
  absl::StrAppend(&text,
                  collectives.empty()
                      ? "\nNo collectives are known: no program was planned, "
                        "or it has none.\n"
                      : Titled("Collectives, of rank 0", collectives, layout),
                  Titled("Memory by rank", Memory(report), layout));
  if (layout.wide) {
    absl::StrAppend(&text, Titled("Collectives by module",
                                  ModuleCollectives(report), layout));
    if (!report.program_text().empty()) {
      absl::StrAppend(&text, "\nProgram\n", report.program_text(), "\n");
    }
  }
  absl::StrAppend(&text, Titled("Warnings and notes",
                                Diagnostics(report.diagnostics()), layout));
  return text;
}

std::string ExplanationText(const pb::Explanation& explanation,
                            const TableLayout& layout) {
  const bool is_module = explanation.kind() == pb::Explanation::KIND_MODULE;
  std::string text = absl::StrCat(
      explanation.fqn().empty() ? "the root module" : explanation.fqn(), ": ",
      Words(pb::Explanation::Kind_Name(explanation.kind()), "KIND_"),
      is_module ? " " : " of a ", explanation.module_type(), "\n");
  const Table matches = Matches(explanation);
  absl::StrAppend(&text,
                  matches.empty()
                      ? "\nNo pattern of the plan matched.\n"
                      : Titled("Patterns that matched", matches, layout),
                  Titled("Tensors by rank", Tensors(explanation), layout));
  Table bytes({{"RANK", kRight}, {"BYTES", kRight}});
  for (const auto& row : explanation.bytes()) {
    bytes.Add({absl::StrCat(row.rank()), BytesText(row.bytes())});
  }
  absl::StrAppend(
      &text,
      Titled("Parameters and buffers, children's included", bytes, layout),
      Titled("Collectives, children's included",
             ExplainedCollectives(explanation), layout),
      Titled("Warnings and notes", Diagnostics(explanation.diagnostics()),
             layout));
  return text;
}

}  // namespace shardplane
