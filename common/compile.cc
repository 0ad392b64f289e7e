#include "common/compile.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/buffer_writes.h"
#include "common/errors.h"
#include "common/fqn.h"
#include "common/op_emitter.h"
#include "common/packing.h"
#include "common/program_builder.h"
#include "common/recompute.h"
#include "common/style_layouts.h"
#include "common/written_graphs.h"

namespace shardplane {
namespace {

ProgramBuilderOptions BuilderOptions(const ResolvedPlan& plan,
                                     const CompileOptions& options) {
  ProgramBuilderOptions result{.overlap = options.overlap,
                               .link_costs = options.link_costs,
                               .fused_operators = options.fused_operators};
  for (const auto& kind : plan.data_parallel) {
    result.fully_sharded.push_back(kind == DataParallelKind::kFullyShard);
  }
  for (const Assignment& assignment : plan.assignments) {
    const auto* style = std::get_if<InputReshard>(&assignment.style.kind);
    if (style == nullptr || !style->input_reshard_dim) continue;
    result.resharded_inputs.push_back(
        {assignment.fqn, assignment.mesh_dim, *style->input_reshard_dim});
  }
  return result;
}

constexpr int kNoModule = -1;

class Compiler {
 public:
  Compiler(const GraphModule& module, const DeviceMesh& mesh,
           const ResolvedPlan& plan, const Signature& signature,
           const CompileOptions& options)
      : module_(module),
        plan_(plan),
        signature_(signature),
        graphs_(module),
        builder_(mesh, BuilderOptions(plan, options)),
        emitter_(&builder_, options, &compiled_),
        writes_(&emitter_),
        layouts_(module, plan, &builder_, &compiled_.diagnostics),
        parameters_(module.parameters().size(), -1),
        recomputed_(RecomputedModules(module, options.recompute,
                                      &compiled_.diagnostics)) {
    size_t nodes = 0;
    for (const ModuleNode& each : module.modules()) {
      constexpr size_t kOfKnownType = 5;  // as a linear has
      nodes += each.graph.has_value() ? each.graph->nodes.size() : kOfKnownType;
    }
    builder_.Expect(nodes);
    if (std::any_of(plan.data_parallel.begin(), plan.data_parallel.end(),
                    [](const auto& kind) { return kind.has_value(); })) {
      units_ = UnitsOf(module, options.unit_bytes);
    }
  }

  absl::StatusOr<CompiledProgram> Run() {
    std::vector<Flow> args;
    KeywordFlows kwargs;
    for (const InputSpec& input : signature_.inputs) {
      const Flow flow{AddInput(input)};
      if (layouts_.NamesInput(0, input.name)) {
        kwargs[input.name] = flow;
      } else {
        args.push_back(flow);
      }
    }
    SP_ASSIGN_OR_RETURN(Flow output,
                        RunModule(0, std::move(args), std::move(kwargs)));
    std::vector<ValueId> outputs;
    Flatten(output, &outputs);
    for (ValueId& id : outputs) {
      SP_ASSIGN_OR_RETURN(id, Settled(id));
    }
    writes_.Finish();
    std::vector<ValueId> kept = outputs;
    if (signature_.loss) {
      SP_ASSIGN_OR_RETURN(const ValueId loss, RunLoss(outputs));
      kept.push_back(loss);
    }
    if (emitter_.gathers()) {
      compiled_.packings =
          FindPackings({emitter_.TakeCalls(), builder_.Origins(), parameters_},
                       builder_.values(), module_, builder_.mesh(), plan_);
    }
    builder_.ChunkProducts(kept);
    if (signature_.loss) SP_RETURN_IF_ERROR(builder_.Backward(kept.back()));
    compiled_.program = builder_.Finish(std::move(outputs));
    compiled_.distinct_calls = emitter_.distinct_calls();
    return std::move(compiled_);
  }

 private:
  // By node name; the names are the graph's, which outlives it.
  using Env = absl::flat_hash_map<absl::string_view, Flow>;

  // The batch is cut where the mesh is data parallel.
  ValueId AddInput(const InputSpec& input) {
    const ValueId id =
        builder_.AddInput(input.name, input.type, input.requires_grad);
    if (input.type.shape.empty() || input.type.shape[0] == 1) return id;
    for (size_t m = 0; m < plan_.data_parallel.size(); ++m) {
      if (!plan_.data_parallel[m].has_value()) continue;
      builder_.Claim(id, static_cast<int>(m), Shard{0});
    }
    return id;
  }

  // An output as it may leave: sums made, nothing open.
  absl::StatusOr<ValueId> Settled(ValueId id) {
    builder_.Settle(id);
    if (!builder_.IsPendingSum(id)) return id;
    DTensorSpec spec = builder_.value(id).spec;
    for (int m = 0; m < builder_.mesh().ndim(); ++m) {
      if (IsPartial(spec.placements[m])) spec.placements[m] = Replicate{};
    }
    return builder_.Demand(id, spec, {});
  }

  // ------------------------------------------------------------- the loss

  absl::StatusOr<ValueId> RunLoss(const std::vector<ValueId>& outputs) {
    std::vector<Flow> inputs;
    for (const ValueId id : outputs) inputs.push_back({id});
    for (const InputSpec& target : signature_.targets) {
      inputs.push_back({AddInput(target)});
    }
    Flow result;
    if (const auto* graph = std::get_if<Graph>(&*signature_.loss)) {
      SP_ASSIGN_OR_RETURN(result, RunGraph({graph, "loss"}, kNoModule, "loss",
                                           std::move(inputs), {}));
    } else {
      if (outputs.size() != 1 || !signature_.targets.empty()) {
        return InvalidModule(
            absl::StrCat("a loss of sum or mean takes one output tensor and no "
                         "target; got: ",
                         outputs.size(), " outputs and ",
                         signature_.targets.size(), " targets"),
            "loss");
      }
      const bool mean =
          std::get<LossReduction>(*signature_.loss) == LossReduction::kMean;
      ValueCall call{mean ? "aten.mean.default" : "aten.sum.default",
                     {RefTo(outputs[0])},
                     {},
                     {},
                     "loss",
                     "reduction"};
      SP_ASSIGN_OR_RETURN(const std::vector<ValueId> ids, emitter_.Emit(call));
      result = {ids[0]};
    }
    std::vector<ValueId> ids;
    Flatten(result, &ids);
    if (ids.size() != 1 || !builder_.value(ids[0]).type.shape.empty() ||
        !IsFloatingPoint(builder_.value(ids[0]).type.dtype)) {
      return InvalidModule(
          absl::StrCat(
              "the loss must be one 0-dim floating-point tensor; got: ",
              ids.size() == 1 ? ToString(builder_.value(ids[0]).type)
                              : absl::StrCat(ids.size(), " tensors")),
          "loss");
    }
    return Settled(ids[0]);
  }

  // -------------------------------------------------------------- modules

  void EnterUnitOf(int index) {
    const int unit = units_.empty() ? -1 : units_[index];
    if (unit < 0 || unit == unit_) return;
    builder_.BeginUnit();
    unit_ = unit;
  }

  absl::StatusOr<Flow> RunModule(int index, std::vector<Flow> args,
                                 KeywordFlows kwargs) {
    EnterUnitOf(index);
    if (!recomputed_[index] || builder_.recomputing()) {
      return RunAndPlace(index, std::move(args), std::move(kwargs));
    }
    builder_.BeginRecompute();
    SP_ASSIGN_OR_RETURN(Flow output,
                        RunAndPlace(index, std::move(args), std::move(kwargs)));
    builder_.EndRecompute();
    return output;
  }

  absl::StatusOr<Flow> RunAndPlace(int index, std::vector<Flow> args,
                                   KeywordFlows kwargs) {
    const std::string& fqn = module_.modules()[index].fqn;
    SP_RETURN_IF_ERROR(layouts_.ApplyInputs(index, &args, &kwargs));
    SP_ASSIGN_OR_RETURN(const WrittenGraph graph, graphs_.Of(index));
    SP_ASSIGN_OR_RETURN(
        Flow output,
        RunGraph(graph, index, fqn, std::move(args), std::move(kwargs)));
    SP_RETURN_IF_ERROR(layouts_.ApplyOutputs(index, &output));
    return output;
  }

  // Of the module `index`, or of none.
  absl::StatusOr<Flow> RunGraph(const WrittenGraph& graph, int index,
                                const std::string& fqn, std::vector<Flow> args,
                                KeywordFlows kwargs) {
    Env env;
    env.reserve(graph.graph->nodes.size());
    size_t next = 0;
    for (const Node& node : graph.graph->nodes) {
      switch (node.op) {
        case NodeOp::kPlaceholder: {
          SP_ASSIGN_OR_RETURN(env[node.name],
                              BindPlaceholder(node, fqn, args, kwargs, &next));
          break;
        }
        case NodeOp::kGetAttr: {
          SP_ASSIGN_OR_RETURN(env[node.name],
                              GetAttr(graph, index, node.target, fqn));
          break;
        }
        case NodeOp::kCallModule: {
          SP_ASSIGN_OR_RETURN(env[node.name], CallModule(node, index, env));
          break;
        }
        case NodeOp::kCallFunction: {
          SP_ASSIGN_OR_RETURN(env[node.name], CallFunction(node, fqn, env));
          break;
        }
        case NodeOp::kOutput: {
          if (next < args.size()) {
            return InvalidModule(
                absl::StrCat("forward takes ", next,
                             " positional inputs; got: ", args.size()),
                fqn);
          }
          if (node.args.empty()) return Flow{};
          SP_ASSIGN_OR_RETURN(Flow flow, Evaluate(node.args[0], env, fqn));
          return writes_.Newest(std::move(flow));
        }
      }
    }
    return InvalidModule("the graph has no output", fqn);
  }

  absl::StatusOr<Flow> BindPlaceholder(const Node& node, const std::string& fqn,
                                       const std::vector<Flow>& args,
                                       const KeywordFlows& kwargs,
                                       size_t* next) {
    if (const auto it = kwargs.find(node.name); it != kwargs.end()) {
      return it->second;
    }
    if (*next >= args.size()) {
      return InvalidModule(absl::StrCat("forward lacks the input ", node.name,
                                        "; got: ", args.size(), " inputs"),
                           fqn);
    }
    const Flow& flow = args[(*next)++];
    const auto* id = std::get_if<ValueId>(&flow.v);
    if (id != nullptr && node.results.size() == 1 &&
        node.results[0] != builder_.value(*id).type) {
      return InvalidModule(
          absl::StrCat("input ", node.name, " is ", ToString(node.results[0]),
                       "; got: ", ToString(builder_.value(*id).type)),
          fqn);
    }
    return flow;
  }

  // The parameter that a graph of the module `index` has by that name. Most
  // are the module's own, which are few: no search among all.
  const Parameter* ParameterIn(const WrittenGraph& graph, int index,
                               const std::string& target) const {
    if (index == kNoModule || !IsWithin(graph.fqn, target)) return nullptr;
    const auto name_in = [](absl::string_view module, absl::string_view fqn) {
      return fqn.substr(module.empty() ? 0 : module.size() + 1);
    };
    const absl::string_view name = name_in(graph.fqn, target);
    const std::string& fqn = module_.modules()[index].fqn;
    for (const int own : module_.ParametersOf(index)) {
      const Parameter& parameter = module_.parameters()[own];
      if (name_in(fqn, parameter.fqn) == name) return &parameter;
    }
    return nullptr;
  }

  // The module of that name, which the module `caller` calls: its own child, or
  // any.
  int ModuleIn(int caller, const std::string& target) const {
    constexpr size_t kFew = 8;
    if (caller != kNoModule && module_.Children(caller).size() <= kFew) {
      for (const auto& [name, child] : module_.Children(caller)) {
        if (module_.modules()[child].fqn == target) return child;
      }
    }
    return module_.ModuleIndex(target);
  }

  absl::StatusOr<Flow> GetAttr(const WrittenGraph& graph, int index,
                               const std::string& target,
                               const std::string& fqn) {
    const Parameter* parameter = ParameterIn(graph, index, target);
    if (parameter == nullptr) {
      const std::string name = graph.TargetIn(fqn, target);
      parameter = module_.FindParameter(name);
      if (parameter == nullptr) {
        return InvalidModule(
            absl::StrCat("no parameter or buffer has the name ", name), fqn);
      }
    }
    const Parameter& canonical = module_.Canonical(*parameter);
    const auto index_of = [this](const Parameter& p) {
      return &p - module_.parameters().data();
    };
    ValueId& stored = parameters_[index_of(canonical)];
    if (stored < 0) {
      stored =
          builder_.AddParameter(canonical.fqn, canonical.type,
                                plan_.parameter_specs[index_of(canonical)],
                                canonical.requires_grad && !canonical.buffer);
    }
    SP_ASSIGN_OR_RETURN(
        const ValueId id,
        builder_.Demand(stored, plan_.wanted_specs[index_of(*parameter)], {}));
    if (canonical.buffer && id == stored) writes_.AddBuffer(id);
    return Flow{id};
  }

  absl::StatusOr<Flow> CallModule(const Node& node, int caller,
                                  const Env& env) {
    const int index = ModuleIn(caller, node.target);
    if (index < 0) {
      return InvalidModule(absl::StrCat("no module has the name ", node.target),
                           node.target);
    }
    std::vector<Flow> args;
    for (const Argument& arg : node.args) {
      SP_ASSIGN_OR_RETURN(Flow flow, Evaluate(arg, env, node.target));
      args.push_back(writes_.Newest(std::move(flow)));
    }
    KeywordFlows kwargs;
    for (const auto& [name, arg] : node.kwargs) {
      SP_ASSIGN_OR_RETURN(Flow flow, Evaluate(arg, env, node.target));
      kwargs[name] = writes_.Newest(std::move(flow));
    }
    return RunModule(index, std::move(args), std::move(kwargs));
  }

  absl::StatusOr<Flow> CallFunction(const Node& node, const std::string& fqn,
                                    const Env& env) {
    if (node.target == "getitem") return GetItem(node, fqn, env);
    ValueCall call{node.target, {}, {}, node.results, fqn, node.name};
    for (const Argument& arg : node.args) {
      SP_ASSIGN_OR_RETURN(Flow flow, Evaluate(arg, env, fqn));
      call.args.push_back(ToArgument(flow));
    }
    for (const auto& [name, arg] : node.kwargs) {
      SP_ASSIGN_OR_RETURN(Flow flow, Evaluate(arg, env, fqn));
      call.kwargs[name] = ToArgument(flow);
    }
    SP_ASSIGN_OR_RETURN(const std::vector<ValueId> ids,
                        writes_.Emit(std::move(call)));
    if (ids.size() == 1) return Flow{ids[0]};
    std::vector<Flow> tuple;
    for (const ValueId id : ids) tuple.push_back({id});
    return Flow{std::move(tuple)};
  }

  absl::StatusOr<Flow> GetItem(const Node& node, const std::string& fqn,
                               const Env& env) {
    const auto* index = node.args.size() == 2
                            ? std::get_if<int64_t>(&node.args[1].value)
                            : nullptr;
    if (index == nullptr) return InvalidModule("getitem expects an index", fqn);
    SP_ASSIGN_OR_RETURN(const Flow flow, Evaluate(node.args[0], env, fqn));
    const auto* tuple = std::get_if<std::vector<Flow>>(&flow.v);
    if (tuple == nullptr) {  // an op with one result, written as a list
      return *index == 0 ? absl::StatusOr<Flow>(flow)
                         : InvalidModule("getitem of what is no tuple", fqn);
    }
    if (*index < 0 || *index >= static_cast<int64_t>(tuple->size())) {
      return InvalidModule(absl::StrCat("getitem expects an index below ",
                                        tuple->size(), "; got: ", *index),
                           fqn);
    }
    return (*tuple)[*index];
  }

  absl::StatusOr<Flow> Evaluate(const Argument& argument, const Env& env,
                                const std::string& fqn) const {
    if (const auto* ref = std::get_if<NodeRef>(&argument.value)) {
      const auto it = env.find(ref->name);
      if (it == env.end()) {
        return InvalidModule(absl::StrCat("no node has the name ", ref->name),
                             fqn);
      }
      return it->second;
    }
    if (const auto* list = std::get_if<ArgumentList>(&argument.value)) {
      std::vector<Flow> flows;
      for (const Argument& item : *list) {
        SP_ASSIGN_OR_RETURN(Flow flow, Evaluate(item, env, fqn));
        flows.push_back(std::move(flow));
      }
      return Flow{std::move(flows)};
    }
    if (std::holds_alternative<std::monostate>(argument.value)) return Flow{};
    return Flow{argument};
  }

  static Argument ToArgument(const Flow& flow) {
    if (const auto* id = std::get_if<ValueId>(&flow.v)) return RefTo(*id);
    if (const auto* constant = std::get_if<Argument>(&flow.v)) return *constant;
    if (const auto* list = std::get_if<std::vector<Flow>>(&flow.v)) {
      ArgumentList items;
      for (const Flow& item : *list) items.push_back(ToArgument(item));
      return {std::move(items)};
    }
    return {};
  }

  const GraphModule& module_;
  const ResolvedPlan& plan_;
  const Signature& signature_;
  WrittenGraphs graphs_;
  CompiledProgram compiled_;
  ProgramBuilder builder_;
  OpEmitter emitter_;
  BufferWrites writes_;
  StyleLayouts layouts_;
  std::vector<ValueId> parameters_;     // by index, as stored; -1: not yet used
  const std::vector<bool> recomputed_;  // by module
  std::vector<int> units_;  // by module; none: nothing data parallel
  int unit_ = -1;           // the one that runs
};

}  // namespace

absl::StatusOr<CompiledProgram> Compile(const GraphModule& module,
                                        const DeviceMesh& mesh,
                                        const ResolvedPlan& plan,
                                        const Signature& signature,
                                        const CompileOptions& options) {
  return Compiler(module, mesh, plan, signature, options).Run();
}

}  // namespace shardplane
