// The mean of nll_loss over cut rows.
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/call_arguments.h"
#include "common/errors.h"
#include "common/loss_reduction.h"
#include "common/op_decompositions.h"
#include "common/redistribute.h"

namespace shardplane {
namespace {

absl::StatusOr<ValueId> Call(const ValueCall& like, OpEmitter* emitter,
                             const std::string& target,
                             std::vector<Argument> args) {
  SP_ASSIGN_OR_RETURN(
      const std::vector<ValueId> ids,
      emitter->Emit({target, std::move(args), {}, {}, like.fqn, like.name}));
  return ids[0];
}

// Cut along another dim than that of the classes?
bool CutsRows(const Value& scores) {
  const int classes = scores.type.shape.size() > 1 ? 1 : 0;
  for (const Placement& placement : scores.spec.placements) {
    const int dim = ShardDim(placement);
    if (dim >= 0 && dim != classes) return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<std::optional<std::vector<ValueId>>> EmitNllLoss(
    const ValueCall& call, OpEmitter* emitter) {
  const OpCall plain{call.target, call.args, call.kwargs, {}, {}};
  SP_ASSIGN_OR_RETURN(const std::vector<ValueId> tensors, ValuesOf(call));
  const int64_t reduction =
      IntArgument(plain, kNllReductionArgument, "reduction")
          .value_or(kMeanReduction);
  if (reduction != kMeanReduction || tensors.size() < 2) return std::nullopt;
  emitter->builder().Settle(tensors[0]);
  if (!CutsRows(emitter->builder().value(tensors[0]))) return std::nullopt;
  const Argument* weight = FindArgument(plain, 2, "weight");
  const Argument ignored = {
      IntArgument(plain, 4, "ignore_index").value_or(-100)};
  const auto sum_of = [&](const Argument& scores) {
    return Call(
        call, emitter, call.target,
        {scores, RefTo(tensors[1]), weight == nullptr ? Argument{} : *weight,
         Argument{kSumReduction}, ignored});
  };
  SP_ASSIGN_OR_RETURN(const ValueId sum, sum_of(RefTo(tensors[0])));
  // Of scores of -1 it is the sum of the weights that count.
  SP_ASSIGN_OR_RETURN(const ValueId units,
                      Call(call, emitter, "aten.full_like.default",
                           {RefTo(tensors[0]), {-1.0}}));
  SP_ASSIGN_OR_RETURN(const ValueId count, sum_of(RefTo(units)));
  SP_ASSIGN_OR_RETURN(const ValueId mean, Call(call, emitter, "aten.div.Tensor",
                                               {RefTo(sum), RefTo(count)}));
  return std::vector<ValueId>{mean};
}

}  // namespace shardplane
