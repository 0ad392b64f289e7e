// The text form of programs: what goldens hold and reports show.
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/program_text.h"
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
                       [&](std::string* out, const DimCuts& factor) {
                         absl::StrAppend(out, ToString(factor, mesh));
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
            return absl::StrCat("offset(", ToString(v.dim, mesh), ")");
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

bool Reduces(RedistributeKind kind) {
  return kind == RedistributeKind::kAllReduce ||
         kind == RedistributeKind::kReduceScatter;
}

std::string Text(const Redistribute& step, const DeviceMesh& mesh) {
  return absl::StrCat(Id(step.output), " = ", OperationText(step, mesh), " ",
                      Id(step.input));
}

// `start %3, %4 = all_gather[dp, from 0 1, again] %1, %2`
std::string Text(const Bucket& bucket, const DeviceMesh& mesh) {
  return absl::StrCat(bucket.async ? "start " : "", Ids(bucket.outputs), " = ",
                      OperationText(bucket, mesh), " ", Ids(bucket.inputs));
}

// `reshard %3` or, of activations, `%8 = reshard[tp, to 1] %3`
std::string Text(const Reshard& reshard, const DeviceMesh& mesh) {
  if (reshard.outputs.empty()) {
    return absl::StrCat("reshard ", Ids(reshard.values));
  }
  return absl::StrCat(Ids(reshard.outputs), " = reshard[",
                      mesh.dims()[reshard.mesh_dim].name, ", to ",
                      reshard.to_dim, "] ", Ids(reshard.values));
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
          [&](const RunWeightGradients& run) {
            return absl::StrCat(Ids(run.gradients), " = weight gradients of ",
                                run.segment, " (", Ids(run.weights), ")");
          },
          [&](const Redistribute& step) { return Text(step, program.mesh); },
          [&](const Bucket& bucket) { return Text(bucket, program.mesh); },
          [](const Wait& wait) {
            return absl::StrCat("wait ", Ids(wait.values));
          },
          [&](const Reshard& reshard) { return Text(reshard, program.mesh); },
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

std::string Named(absl::string_view name, ValueId id) {
  return id < 0 ? "" : absl::StrCat(", ", name, " ", Id(id));
}

}  // namespace

std::string OperationText(const Redistribute& step, const DeviceMesh& mesh) {
  std::string out =
      absl::StrCat(ToString(step.kind), "[", mesh.dims()[step.mesh_dim].name);
  if (step.from_dim >= 0) absl::StrAppend(&out, ", from ", step.from_dim);
  if (step.to_dim >= 0) absl::StrAppend(&out, ", to ", step.to_dim);
  if (Reduces(step.kind)) absl::StrAppend(&out, ", ", ToString(step.op));
  return absl::StrCat(out, "]");
}

std::string OperationText(const Bucket& bucket, const DeviceMesh& mesh) {
  std::string out = absl::StrCat(ToString(bucket.kind), "[",
                                 mesh.dims()[bucket.mesh_dim].name);
  if (!bucket.dims.empty()) {
    absl::StrAppend(
        &out, bucket.kind == RedistributeKind::kAllGather ? ", from " : ", to ",
        absl::StrJoin(bucket.dims, " "));
  }
  if (Reduces(bucket.kind)) absl::StrAppend(&out, ", ", ToString(bucket.op));
  if (bucket.again) absl::StrAppend(&out, ", again");
  return absl::StrCat(out, "]");
}

std::string ProgramText(const ShardedProgram& program, size_t max_bytes) {
  std::string out = absl::StrCat("mesh ", program.mesh.ToString(), "\n");
  const auto line = [&](const auto&... parts) {
    if (out.size() <= max_bytes) absl::StrAppend(&out, parts..., "\n");
  };
  line("parameters");
  for (const ParameterBinding& p : program.parameters) {
    if (out.size() > max_bytes) break;
    line("  ", Describe(program, p.value), Named("gradient", p.gradient),
         Named("update", p.update));
  }
  line("inputs");
  for (const InputBinding& input : program.inputs) {
    line("  ", Describe(program, input.value),
         Named("gradient", input.gradient));
  }
  line("outputs");
  for (const ValueId id : program.outputs) line("  ", Describe(program, id));
  if (program.random >= 0) {
    line("random\n  ", Describe(program, program.random));
  }
  if (program.loss >= 0) line("loss\n  ", Describe(program, program.loss));
  for (int i = 0; i < static_cast<int>(program.instructions.size()); ++i) {
    if (out.size() > max_bytes) break;
    if (i == 0) line("forward");
    if (i == program.backward_begin) line("backward");
    line("  ", Text(program.instructions[i], program));
  }
  line("values");
  for (int id = 0; id < static_cast<int>(program.values.size()); ++id) {
    if (out.size() > max_bytes) break;
    line("  ", Describe(program, id));
  }
  if (out.size() > max_bytes) {
    absl::StrAppend(&out, "... (", program.instructions.size(),
                    " instructions and ", program.values.size(),
                    " values in all)\n");
  }
  return out;
}

std::string ToString(const ShardedProgram& program) {
  return ProgramText(program, std::string::npos);
}

}  // namespace shardplane
