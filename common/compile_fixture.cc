#include "common/compile_fixture.h"

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/errors.h"
#include "common/packing.h"

namespace shardplane {

ModuleNode Mod(const std::string& fqn, const std::string& type) {
  ModuleNode node;
  node.fqn = fqn;
  node.type = "torch.nn." + type;
  return node;
}

Parameter Param(const std::string& fqn, const Shape& shape,
                bool requires_grad) {
  Parameter parameter;
  parameter.fqn = fqn;
  parameter.type = {DType::kFloat64, shape};
  parameter.requires_grad = requires_grad;
  return parameter;
}

Argument Ref(const std::string& name) { return {NodeRef{name}}; }

Node Placeholder(const std::string& name) {
  Node node;
  node.name = name;
  return node;
}
Node Call(const std::string& name, const std::string& target,
          std::vector<Argument> args) {
  Node node;
  node.name = name;
  node.op = target.rfind("aten.", 0) == 0 || target == "getitem"
                ? NodeOp::kCallFunction
                : NodeOp::kCallModule;
  node.target = target;
  node.args = std::move(args);
  return node;
}
Node Output(Argument value) {
  Node node;
  node.name = "output";
  node.op = NodeOp::kOutput;
  node.args = {std::move(value)};
  return node;
}

ModuleNode Root(std::vector<Node> nodes) {
  ModuleNode root = Mod("", "Module");
  root.type = "Model";
  root.graph = Graph{std::move(nodes)};
  return root;
}

GraphModule Mlp(int64_t in, int64_t hidden) {
  return *GraphModule::Create(
      {Mod("", "Sequential"), Mod("net1", "Linear"), Mod("relu", "ReLU"),
       Mod("net2", "Linear")},
      {Param("net1.weight", {hidden, in}), Param("net1.bias", {hidden}),
       Param("net2.weight", {in, hidden}), Param("net2.bias", {in})});
}

GraphModule TiedLinears() {
  Parameter alias = Param("out.weight", {12, 10});
  alias.alias_of = "in.weight";
  return *GraphModule::Create(
      {Root({Placeholder("x"), Call("a", "in", {Ref("x")}),
             Call("b", "out", {Ref("x")}),
             Call("ab", "aten.add.Tensor", {Ref("a"), Ref("b")}),
             Output(Ref("ab"))}),
       Mod("in", "Linear"), Mod("out", "Linear")},
      {Param("in.weight", {12, 10}), alias});
}

PlanEntry Entry(const std::string& pattern, ParallelStyle style) {
  return {pattern, std::vector<ParallelStyle>{std::move(style)}};
}
ParallelStyle Colwise(Placement in, Placement out) {
  return {ColwiseParallel{in, out}, ""};
}
ParallelStyle Rowwise(Placement in, Placement out) {
  return {RowwiseParallel{in, out}, ""};
}

namespace {

absl::StatusOr<ResolvedPlan> Resolve(const Request& s, const DeviceMesh& mesh) {
  return ResolvePlan(s.module, mesh, ParallelizePlan{s.plan},
                     {.data_parallel = s.data_parallel});
}
Signature SignatureOf(const Request& s) {
  Signature signature;
  signature.inputs = {{{DType::kFloat64, s.input}, s.input_grad, "x"}};
  if (s.loss) signature.loss = LossReduction::kSum;
  return signature;
}
CompileOptions OptionsOf(const Request& s) {
  return {.strict = s.strict,
          .unit_bytes = s.unit_bytes,
          .link_costs = s.link_costs,
          .recompute = s.recompute};
}

}  // namespace

absl::StatusOr<CompiledProgram> Compile(const Request& s) {
  const DeviceMesh mesh = *DeviceMesh::Create(s.mesh);
  SP_ASSIGN_OR_RETURN(const ResolvedPlan plan, Resolve(s, mesh));
  return Compile(s.module, mesh, plan, SignatureOf(s), OptionsOf(s));
}

absl::StatusOr<CompiledProgram> CompileAndPack(const Request& s,
                                               ResolvedPlan* plan) {
  const DeviceMesh mesh = *DeviceMesh::Create(s.mesh);
  SP_ASSIGN_OR_RETURN(*plan, Resolve(s, mesh));
  return CompileAndPack(s.module, mesh, SignatureOf(s), OptionsOf(s), plan);
}

std::string Steps(const absl::StatusOr<CompiledProgram>& compiled) {
  if (!compiled.ok()) return std::string(compiled.status().message());
  const absl::Status valid = Validate(compiled->program);
  if (!valid.ok()) return std::string(valid.message());
  std::string out;
  bool on = false;
  for (absl::string_view line :
       absl::StrSplit(ToString(compiled->program), '\n')) {
    if (line == "forward") on = true;
    if (line == "values") break;
    if (on && line.find("  free ") == absl::string_view::npos) {
      absl::StrAppend(&out, line, "\n");
    }
  }
  return out;
}

std::string Specs(const absl::StatusOr<CompiledProgram>& compiled) {
  std::vector<std::string> specs;
  for (const ParameterBinding& p : compiled->program.parameters) {
    specs.push_back(absl::StrCat(
        p.fqn, " ", ToString(compiled->program.values[p.value].spec), " ",
        p.gradient < 0 ? "none"
                       : ToString(compiled->program.values[p.gradient].spec)));
  }
  return absl::StrJoin(specs, "; ");
}

int Count(const std::string& text, const std::string& word) {
  int count = 0;
  for (size_t at = text.find(word); at != std::string::npos;
       at = text.find(word, at + 1)) {
    ++count;
  }
  return count;
}

}  // namespace shardplane
