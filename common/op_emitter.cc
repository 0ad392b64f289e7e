#include "common/op_emitter.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/op_decompositions.h"
#include "common/op_rules.h"

namespace shardplane {
namespace {

absl::Status InContext(const absl::Status& status, const ValueCall& call) {
  const std::string message =
      absl::StrCat(call.fqn.empty() ? "the root module" : call.fqn, ", node ",
                   call.name, ": ", status.message());
  absl::Status named = MakeError(status.code(), message,
                                 GetErrorInfo(status).value_or(ErrorInfo{}));
  return WithMetadata(WithMetadata(std::move(named), "fqn", call.fqn), "op",
                      call.target);
}

// `argument` with its tensors replaced by `ids`, from *next on.
ProgramArgument ToProgram(const Argument& argument,
                          const std::vector<ValueId>& ids, size_t* next) {
  return std::visit(
      [&](const auto& v) -> ProgramArgument {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, NodeRef>) {
          return {ValueRef{ids[(*next)++]}};
        } else if constexpr (std::is_same_v<T, ArgumentList>) {
          ProgramArgumentList list;
          for (const Argument& item : v) {
            list.push_back(ToProgram(item, ids, next));
          }
          return {std::move(list)};
        } else {
          return {v};
        }
      },
      argument.value);
}

Op ToOp(const std::string& target, const std::vector<Argument>& args,
        const absl::btree_map<std::string, Argument>& kwargs,
        const std::vector<ValueId>& ids, const std::string& fqn) {
  Op op;
  op.target = target;
  op.fqn = fqn;
  size_t next = 0;
  for (const Argument& arg : args) {
    op.args.push_back(ToProgram(arg, ids, &next));
  }
  for (const auto& [name, arg] : kwargs) {
    op.kwargs.emplace_back(name, ToProgram(arg, ids, &next));
  }
  return op;
}

// Whether an operand is cut and has to lie otherwise.
bool Gathers(const std::vector<OperandState>& states,
             const OpSharding& sharding) {
  for (size_t i = 0; i < states.size(); ++i) {
    const Placements& needs = sharding.operands[i].spec.placements;
    for (size_t m = 0; m < needs.size(); ++m) {
      const auto* at = std::get_if<Shard>(&states[i].spec.placements[m]);
      const auto* to = std::get_if<Shard>(&needs[m]);
      if (at == nullptr || (to != nullptr && Refines(*to, *at))) continue;
      if (to == nullptr || *to != *at) return true;
    }
  }
  return false;
}

ProgramArgument LocalSizes(const ResultRule& result, const OpInstance& op,
                           const OpSharding& sharding) {
  ProgramArgumentList sizes;
  for (size_t d = 0; d < result.dims.size(); ++d) {
    LocalSize size;
    // A whole factor may span several dims, and has something of each.
    int64_t rest = result.type.shape[d];
    bool whole = false;
    for (const int f : result.dims[d]) {
      if (op.factors[f].kind == FactorKind::kWhole) {
        whole = true;
        continue;
      }
      size.factors.push_back(sharding.factor_cuts[f]);
      if (op.factors[f].size > 0) rest /= op.factors[f].size;
    }
    if (whole) size.factors.push_back({rest, {}});
    sizes.push_back({std::move(size)});
  }
  return {std::move(sizes)};
}

}  // namespace

// Ops of which some calls are written as several.
struct Decomposition {
  absl::string_view target;
  absl::StatusOr<std::optional<std::vector<ValueId>>> (*emit)(
      const ValueCall& call, OpEmitter* emitter);
};
constexpr Decomposition kDecompositions[] = {
    {"aten.copy.default", EmitCopy},
    {"aten.cross_entropy_loss.default", EmitCrossEntropy},
    {"aten.nll_loss_nd.default", EmitNllLoss},
    {"aten.scaled_dot_product_attention.default", EmitAttention},
};

Argument RefTo(ValueId id) { return {NodeRef{absl::StrCat(id)}}; }

absl::StatusOr<std::vector<ValueId>> ValuesOf(const ValueCall& call) {
  std::vector<ValueId> ids;
  for (const NodeRef& ref : TensorArguments(call.args, call.kwargs)) {
    int id = 0;
    if (!absl::SimpleAtoi(ref.name, &id)) {
      return absl::InternalError(absl::StrCat("no value id; got: ", ref.name));
    }
    ids.push_back(id);
  }
  return ids;
}

// Which dropout of the model it is, whatever the mesh: FNV-1a of its name.
int64_t NodeKey(const std::string& fqn, int index) {
  uint64_t hash = kCollectiveHashSeed;
  for (const char c : absl::StrCat(fqn, "#", index)) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  }
  return static_cast<int64_t>(hash);
}

Op OpEmitter::ToEmbedding(const OpInstance& op, const OpSharding& sharding,
                          const std::vector<ValueId>& ids) const {
  Op emitted = ToOp(op.target, op.args, op.kwargs, ids, "");
  const int vocabulary = op.operands[0].dims[0][0];
  // Also where the weight is whole: a bad id is one error everywhere.
  const int64_t size = op.factors[vocabulary].size;
  emitted.target = "shardplane.embedding.default";
  const ProgramArgument padding = emitted.args[2];
  emitted.args.resize(2);
  emitted.args.push_back({LocalOffset{sharding.factor_cuts[vocabulary]}});
  emitted.args.push_back({size});
  emitted.args.push_back(padding);
  return emitted;
}

// A split, or what lies behind the first of three parts, in this rank's sizes.
Op OpEmitter::ToParts(const OpInstance& op, const OpSharding& sharding,
                      ValueId operand) const {
  ProgramArgumentList sizes;
  for (const int part : op.parted[0].parts) {
    sizes.push_back({LocalSize{{sharding.factor_cuts[part]}}});
  }
  const auto dim = static_cast<int64_t>(op.parted_dim);
  Op emitted;
  if (op.lowering == Lowering::kSplit) {
    emitted.target = "aten.split_with_sizes.default";
    emitted.args = {{ValueRef{operand}}, {std::move(sizes)}, {dim}};
  } else {
    emitted.target = "aten.narrow.default";
    emitted.args = {{ValueRef{operand}}, {dim}, sizes[0], sizes[1]};
  }
  return emitted;
}

bool OpEmitter::LeavesARankEmpty(const OpInstance& op,
                                 const OpSharding& sharding) const {
  const DeviceMesh& mesh = builder_->mesh();
  for (int rank = 0; rank < mesh.size(); ++rank) {
    for (size_t i = 0; i < op.results.size(); ++i) {
      if (NumElements(LocalShape(op.results[i].type.shape, sharding.results[i],
                                 mesh, mesh.Coordinate(rank))) == 0) {
        return true;
      }
    }
  }
  return false;
}

Op OpEmitter::ToDropout(const ValueCall& call, const OpInstance& op,
                        const OpSharding& sharding, ValueId operand) {
  ProgramArgumentList sizes;
  ProgramArgumentList offsets;
  const ResultRule& result = op.results[0];
  for (int d = 0; d < static_cast<int>(result.type.shape.size()); ++d) {
    sizes.push_back({result.type.shape[d]});
    offsets.push_back(
        {LocalOffset{CutsOfDim(result.type.shape, sharding.results[0], d)}});
  }
  Op emitted;
  emitted.target = "shardplane.dropout.default";
  emitted.args = {{ValueRef{operand}},
                  {ValueRef{builder_->Random()}},
                  {std::get<double>(op.args[1].value)},
                  {NodeKey(call.fqn, dropouts_[call.fqn]++)},
                  {std::move(sizes)},
                  {std::move(offsets)}};
  return emitted;
}

absl::Status OpEmitter::WarnReplicated(
    const ValueCall& call, const std::vector<OperandState>& states) {
  int64_t bytes = 0;
  for (const OperandState& state : states) {
    if (!IsFullyReplicated(state.spec)) bytes += ByteSize(state.type);
  }
  const std::string message =
      absl::StrCat(call.target,
                   " has no sharding rule: it runs alike on every "
                   "rank, after gathering ",
                   bytes, " bytes");
  if (options_.strict) {
    return MakeError(absl::StatusCode::kUnimplemented, message,
                     {"OP_WITHOUT_ROW", {}});
  }
  compiled_->diagnostics.push_back(
      {Severity::kWarning, "REPLICATED_OP",
       absl::StrCat(call.fqn.empty() ? "the root module" : call.fqn, ": ",
                    message),
       call.fqn, ""});
  return absl::OkStatus();
}

void OpEmitter::NoteGatheredView(const ValueCall& call, const OpInstance& op,
                                 const OpSharding& sharding,
                                 const OperandState& state) {
  for (int m = 0; m < builder_->mesh().ndim(); ++m) {
    const int dim = ShardDim(state.spec.placements[m]);
    if (dim < 0 || !IsReplicate(sharding.operands[0].spec.placements[m]) ||
        builder_->mesh().dim_size(m) == 1) {
      continue;
    }
    const MeshDim& mesh_dim = builder_->mesh().dims()[m];
    compiled_->diagnostics.push_back(
        {Severity::kNote, "VIEW_GATHERS",
         absl::StrCat(call.fqn.empty() ? "the root module" : call.fqn, ": ",
                      call.name, " views ", ToString(state.type), " as ",
                      ShapeToString(op.results[0].type.shape),
                      "; its cut of dim ", dim, " over ", mesh_dim.name, "=",
                      mesh_dim.size, " falls inside a dim of the result, so ",
                      ByteSize(state.type), " bytes are gathered first"),
         call.fqn, ""});
  }
}

void OpEmitter::CountFlops(const OpInstance& op, const OpSharding& sharding,
                           const std::vector<ValueId>& tensors) {
  if (op.flops == 0) return;
  Flops flops{.forward = op.flops};
  // One product as large for each operand's gradient; that of what is merely
  // added is none. Of the two products of attention each has two operands.
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (op.operands[i].term == 0 && builder_->requires_grad(tensors[i])) {
      flops.backward += op.flops;
    }
  }
  if (op.lowering == Lowering::kAttention && flops.backward > 0) {
    flops.backward = 2 * op.flops;
  }
  if (builder_->recomputing()) flops.backward += flops.forward;
  compiled_->flops.Add(sharding.factor_cuts, flops);
}

ValueId OpEmitter::EmitMean(const ValueCall& call, const OpInstance& op,
                            const OpSharding& sharding,
                            const std::vector<ValueId>& operands) {
  bool requires_grad = false;
  for (const ValueId id : operands) {
    requires_grad = requires_grad || builder_->requires_grad(id);
  }
  const ProgramBuilder::Result result{
      absl::StrCat(JoinFqn(call.fqn, call.name)), op.results[0].type,
      sharding.results[0], requires_grad};
  const ValueId sum =
      builder_->EmitOp(ToOp(op.partial_target, op.partial_args,
                            op.partial_kwargs, operands, call.fqn),
                       {result})[0];
  Op divide;
  divide.target = "aten.div.Scalar";
  divide.fqn = call.fqn;
  divide.args = {{ValueRef{sum}}, {static_cast<double>(op.mean_count)}};
  return builder_->EmitOp(std::move(divide), {result})[0];
}

absl::StatusOr<ValueId> OpEmitter::EmitWithAddedTerm(
    const ValueCall& call, const OpInstance& op, const OpSharding& sharding,
    const std::vector<ValueId>& tensors) {
  std::vector<ValueId> ids;
  Op partial;
  partial.target = op.partial_target;
  partial.fqn = call.fqn;
  bool requires_grad = false;
  for (int i = 0; i < static_cast<int>(tensors.size()); ++i) {
    if (i == op.added_operand) continue;
    SP_ASSIGN_OR_RETURN(const ValueId id,
                        builder_->Demand(tensors[i], sharding.operands[i].spec,
                                         sharding.operands[i].vary));
    requires_grad = requires_grad || builder_->requires_grad(id);
    partial.args.push_back({ValueRef{id}});
  }
  const std::string name = JoinFqn(call.fqn, call.name);
  const ValueId base = builder_->EmitOp(
      std::move(partial),
      {{name, op.results[0].type, sharding.results[0], requires_grad}})[0];
  return builder_->AddAfterReduction(base, tensors[op.added_operand], name);
}

absl::StatusOr<std::vector<ValueId>> OpEmitter::EmitChosen(
    const ValueCall& call, const OpInstance& op, const OpSharding& sharding,
    const std::vector<ValueId>& tensors) {
  if (op.lowering == Lowering::kAddTerm && sharding.partial) {
    SP_ASSIGN_OR_RETURN(const ValueId id,
                        EmitWithAddedTerm(call, op, sharding, tensors));
    return std::vector<ValueId>{id};
  }
  std::vector<ValueId> ids;
  bool requires_grad = false;
  for (size_t i = 0; i < tensors.size(); ++i) {
    SP_ASSIGN_OR_RETURN(const ValueId id,
                        builder_->Demand(tensors[i], sharding.operands[i].spec,
                                         sharding.operands[i].vary));
    ids.push_back(id);
    requires_grad = requires_grad || builder_->requires_grad(id);
  }
  if (op.lowering == Lowering::kMean && sharding.partial) {
    return std::vector<ValueId>{EmitMean(call, op, sharding, ids)};
  }
  std::vector<ProgramBuilder::Result> results;
  for (size_t i = 0; i < op.results.size(); ++i) {
    const TensorType& type = op.results[i].type;
    results.push_back(
        {JoinFqn(call.fqn, call.name), type, sharding.results[i],
         requires_grad && op.differentiable && CarriesGradient(type.dtype)});
  }
  Op emitted = op.lowering == Lowering::kEmbedding
                   ? ToEmbedding(op, sharding, ids)
               : op.lowering == Lowering::kDropout
                   ? ToDropout(call, op, sharding, ids[0])
                   : ToOp(op.target, op.args, op.kwargs, ids, "");
  if (op.lowering == Lowering::kResize) {
    emitted.args[op.sizes_argument] = LocalSizes(op.results[0], op, sharding);
  }
  if (op.lowering == Lowering::kGroups) {
    emitted.args[op.groups_argument] = {
        LocalSize{{sharding.factor_cuts[op.groups_factor]}}};
  }
  if (op.lowering == Lowering::kSplit || op.lowering == Lowering::kPart) {
    const PartedFactor& parted = op.parted[0];
    if (!sharding.factor_cuts[parted.factor].cuts.empty()) {
      emitted = ToParts(op, sharding, ids[0]);
    }
  }
  if (op.lowering == Lowering::kAttention && LeavesARankEmpty(op, sharding)) {
    emitted.target = "shardplane.attention.default";
  }
  emitted.fqn = call.fqn;
  return builder_->EmitOp(std::move(emitted), results);
}

absl::StatusOr<std::vector<ValueId>> OpEmitter::Emit(const ValueCall& call) {
  for (const Decomposition& decomposition : kDecompositions) {
    if (decomposition.target != call.target) continue;
    absl::StatusOr<std::optional<std::vector<ValueId>>> ids =
        decomposition.emit(call, this);
    if (!ids.ok()) return InContext(ids.status(), call);
    if (ids->has_value()) return **std::move(ids);
  }
  return EmitOne(call);
}

absl::StatusOr<std::vector<ValueId>> OpEmitter::EmitOne(const ValueCall& call) {
  SP_ASSIGN_OR_RETURN(const std::vector<ValueId> tensors, ValuesOf(call));
  std::vector<OperandState> states;
  for (const ValueId id : tensors) {
    builder_->Settle(id);
    states.push_back({builder_->value(id).type, builder_->value(id).spec,
                      builder_->requires_grad(id), builder_->is_parameter(id)});
  }
  const absl::StatusOr<const OpDecision*> decided = decisions_.Of(call, states);
  if (!decided.ok()) return InContext(decided.status(), call);
  const auto& [op, sharding] = **decided;
  if (!op.has_row) {
    if (absl::Status status = WarnReplicated(call, states); !status.ok()) {
      return InContext(status, call);
    }
  }
  if (op.lowering == Lowering::kResize) {
    NoteGatheredView(call, op, sharding, states[0]);
  }
  CountFlops(op, sharding, tensors);
  absl::StatusOr<std::vector<ValueId>> ids =
      EmitChosen(call, op, sharding, tensors);
  if (!ids.ok()) return InContext(ids.status(), call);
  gathers_ = gathers_ || Gathers(states, sharding);
  calls_.push_back({&op, tensors, *ids});
  return ids;
}

}  // namespace shardplane
