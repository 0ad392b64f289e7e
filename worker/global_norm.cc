#include "worker/global_norm.h"

#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/core/grad_mode.h"
#include "ATen/ops/_foreach_norm.h"
#include "ATen/ops/stack.h"
#include "ATen/ops/view_as_real.h"
#include "ATen/ops/zeros.h"
#include "common/errors.h"
#include "common/gradient_norm.h"
#include "common/tensor_spec.h"
#include "worker/torch_tensors.h"

namespace shardplane {
namespace {

// Without what ranks before this one have, too.
at::Tensor FirstOfReplicas(const at::Tensor& gradient,
                           const ShardedParameter& parameter,
                           const DeviceMesh& mesh,
                           absl::Span<const int> coordinate) {
  at::Tensor own = gradient;
  for (int d = 0; d < gradient.dim(); ++d) {
    const DimCuts cuts = CutsOfDim(parameter.type.shape, parameter.spec, d);
    if (!cuts.blocks.has_replicas()) continue;
    own = NarrowTo(own, d, FirstOf(cuts, mesh, coordinate));
  }
  return own;
}

// f64[1], the squares that this rank counts.
at::Tensor OwnSquares(const Parameters& parameters,
                      const absl::btree_map<std::string, at::Tensor>& gradients,
                      const DeviceMesh& mesh, absl::Span<const int> coordinate,
                      c10::Device device) {
  std::vector<at::Tensor> counted;
  for (const auto& [fqn, gradient] : gradients) {
    const auto parameter = parameters.find(fqn);
    if (parameter == parameters.end() || gradient.numel() == 0) continue;
    if (CountsInNorm(parameter->second.spec, coordinate)) {
      const at::Tensor own =
          FirstOfReplicas(gradient, parameter->second, mesh, coordinate);
      if (own.numel() == 0) continue;
      counted.push_back(own.is_complex() ? at::view_as_real(own.resolve_conj())
                                         : own);
    }
  }
  if (counted.empty()) {
    return at::zeros({1}, at::TensorOptions(at::kDouble).device(device));
  }
  return at::stack(at::_foreach_norm(counted, 2, at::kDouble))
      .square()
      .sum()
      .reshape({1});
}

}  // namespace

absl::StatusOr<double> GlobalNorm(
    const Parameters& parameters,
    const absl::btree_map<std::string, at::Tensor>& gradients,
    const DeviceMesh& mesh, absl::Span<const int> coordinate,
    Communicator& communicator) {
  const at::AutoGradMode no_grad(false);
  at::Tensor squares = OwnSquares(parameters, gradients, mesh, coordinate,
                                  communicator.device());
  for (size_t dim = 0; dim < coordinate.size(); ++dim) {
    SP_ASSIGN_OR_RETURN(
        squares,
        communicator.AllReduce(squares, static_cast<int>(dim), ReduceOp::kSum));
  }
  SP_RETURN_IF_ERROR(communicator.Finish());
  return squares.sqrt().item<double>();
}

}  // namespace shardplane
