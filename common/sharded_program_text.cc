// The text form of programs: what goldens hold and reports show.
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/sharded_program.h"

namespace shardplane {
namespace {

template <class... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};
template <class... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;

std::string Id(ValueId id) { return id < 0 ? "none" : absl::StrCat("%", id); }

std::string Ids(const std::vector<ValueId>& ids) {
  return absl::StrJoin(ids, ", ", [](std::string* out, ValueId id) {
    absl::StrAppend(out, Id(id));
  });
}

std::string Text(const LocalSize& size, const DeviceMesh& mesh) {
  if (size.factors.empty()) return "1";
  return absl::StrJoin(size.factors, "*",
                       [&](std::string* out, const LocalSize::Factor& factor) {
                         absl::StrAppend(out, factor.extent);
                         for (const int cut : factor.cuts) {
                           absl::StrAppend(out, "/", mesh.dims()[cut].name);
                         }
                       });
}

std::string Text(const ProgramArgument& argument, const DeviceMesh& mesh) {
  return std::visit(
      Overloaded{
          [](std::monostate) -> std::string { return "None"; },
          [](const ValueRef& ref) { return Id(ref.id); },
          [](int64_t v) { return absl::StrCat(v); },
          [](double v) { return absl::StrCat(v); },
          [](bool v) -> std::string { return v ? "true" : "false"; },
          [](const std::string& v) { return absl::StrCat("\"", v, "\""); },
          [](DType v) { return ToString(v); },
          [&](const LocalSize& v) { return Text(v, mesh); },
          [&](const LocalOffset& v) {
            const LocalSize size{{{v.extent, v.cuts}}};
            return absl::StrCat("offset(", Text(size, mesh), ")");
          },
          [&](const ProgramArgumentList& list) {
            return absl::StrCat(
                "[",
                absl::StrJoin(list, ", ",
                              [&](std::string* out, const ProgramArgument& a) {
                                absl::StrAppend(out, Text(a, mesh));
                              }),
                "]");
          }},
      argument.value);
}

std::string Text(const Op& op, const DeviceMesh& mesh) {
  std::vector<std::string> args;
  for (const ProgramArgument& arg : op.args) args.push_back(Text(arg, mesh));
  for (const auto& [name, arg] : op.kwargs) {
    args.push_back(absl::StrCat(name, "=", Text(arg, mesh)));
  }
  return absl::StrCat(Ids(op.results), " = ", op.target, "(",
                      absl::StrJoin(args, ", "), ")",
                      op.fqn.empty() ? "" : absl::StrCat("  # ", op.fqn));
}

std::string Text(const Redistribute& step, const DeviceMesh& mesh) {
  std::string out = absl::StrCat(Id(step.output), " = ", ToString(step.kind),
                                 "[", mesh.dims()[step.mesh_dim].name);
  if (step.from_dim >= 0) absl::StrAppend(&out, ", from ", step.from_dim);
  if (step.to_dim >= 0) absl::StrAppend(&out, ", to ", step.to_dim);
  if (step.kind == RedistributeKind::kAllReduce ||
      step.kind == RedistributeKind::kReduceScatter) {
    absl::StrAppend(&out, ", ", ToString(step.op));
  }
  return absl::StrCat(out, "] ", Id(step.input));
}

std::string Text(const Instruction& instruction,
                 const ShardedProgram& program) {
  return std::visit(
      Overloaded{
          [&](const RunSegment& run) {
            const Segment& segment = program.segments[run.segment];
            std::string out = absl::StrCat(
                "segment ", run.segment,
                segment.differentiable_inputs.empty()
                    ? ""
                    : absl::StrCat(" recording ",
                                   Ids(segment.differentiable_inputs)));
            for (const Op& op : segment.ops) {
              absl::StrAppend(&out, "\n    ", Text(op, program.mesh));
            }
            return out;
          },
          [&](const RunSegmentBackward& run) {
            return absl::StrCat(Ids(run.input_gradients), " = backward of ",
                                run.segment, " (", Ids(run.output_gradients),
                                ")");
          },
          [&](const Redistribute& step) { return Text(step, program.mesh); },
          [&](const AllReduceBucket& bucket) {
            return absl::StrCat(Ids(bucket.outputs), " = all_reduce[",
                                program.mesh.dims()[bucket.mesh_dim].name, ", ",
                                ToString(bucket.op), "] ", Ids(bucket.inputs));
          },
          [](const Accumulate& sum) {
            return absl::StrCat(Id(sum.output), " = accumulate ",
                                Ids(sum.inputs));
          },
          [](const Ones& ones) {
            return absl::StrCat(Id(ones.output), " = ones");
          },
          [](const Free& free) {
            return absl::StrCat("free ", Ids(free.values));
          }},
      instruction);
}

std::string Describe(const ShardedProgram& program, ValueId id) {
  const Value& value = program.values[id];
  return absl::StrCat(Id(id), ": ", ToString(value.type), " ",
                      ToString(value.spec), " ", value.name);
}

std::string WithGradient(const ShardedProgram& program, ValueId id,
                         ValueId gradient) {
  return absl::StrCat(
      "  ", Describe(program, id),
      gradient < 0 ? "" : absl::StrCat(", gradient ", Id(gradient)), "\n");
}

}  // namespace

std::string ToString(const ShardedProgram& program) {
  std::string out = absl::StrCat("mesh ", program.mesh.ToString(), "\n");
  absl::StrAppend(&out, "parameters\n");
  for (const ParameterBinding& p : program.parameters) {
    absl::StrAppend(&out, WithGradient(program, p.value, p.gradient));
  }
  absl::StrAppend(&out, "inputs\n");
  for (const InputBinding& input : program.inputs) {
    absl::StrAppend(&out, WithGradient(program, input.value, input.gradient));
  }
  absl::StrAppend(&out, "outputs\n");
  for (const ValueId id : program.outputs) {
    absl::StrAppend(&out, "  ", Describe(program, id), "\n");
  }
  if (program.random >= 0) {
    absl::StrAppend(&out, "random\n  ", Describe(program, program.random),
                    "\n");
  }
  if (program.loss >= 0) {
    absl::StrAppend(&out, "loss\n  ", Describe(program, program.loss), "\n");
  }
  for (int i = 0; i < static_cast<int>(program.instructions.size()); ++i) {
    if (i == 0) absl::StrAppend(&out, "forward\n");
    if (i == program.backward_begin) absl::StrAppend(&out, "backward\n");
    absl::StrAppend(&out, "  ", Text(program.instructions[i], program), "\n");
  }
  absl::StrAppend(&out, "values\n");
  for (int id = 0; id < static_cast<int>(program.values.size()); ++id) {
    absl::StrAppend(&out, "  ", Describe(program, id), "\n");
  }
  return out;
}

}  // namespace shardplane
