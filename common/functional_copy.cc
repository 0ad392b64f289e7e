// aten.copy: what is left of an assignment once nothing is in place.
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/op_decompositions.h"

namespace shardplane {

// The op itself has no derivative in ATen.
absl::StatusOr<std::optional<std::vector<ValueId>>> EmitCopy(
    const ValueCall& call, OpEmitter* emitter) {
  SP_ASSIGN_OR_RETURN(const std::vector<ValueId> tensors, ValuesOf(call));
  if (tensors.size() != 2) return std::nullopt;
  const TensorType to = emitter->builder().value(tensors[0]).type;
  const TensorType from = emitter->builder().value(tensors[1]).type;
  ValueCall step{
      "aten.alias.default", {RefTo(tensors[1])}, {}, {}, call.fqn, call.name};
  if (from.shape != to.shape) {
    ArgumentList sizes;
    for (const int64_t size : to.shape) sizes.push_back({size});
    step.target = "aten.expand.default";
    step.args.push_back({std::move(sizes)});
  }
  SP_ASSIGN_OR_RETURN(std::vector<ValueId> copied, emitter->Emit(step));
  if (from.dtype == to.dtype) return copied;
  step.target = "aten.to.dtype";
  step.args = {RefTo(copied[0]), Argument{to.dtype}};
  SP_ASSIGN_OR_RETURN(copied, emitter->Emit(step));
  return copied;
}

}  // namespace shardplane
