#include "worker/global_norm.h"

#include <vector>

#include "ATen/ATen.h"
#include "ATen/core/grad_mode.h"
#include "common/errors.h"
#include "common/gradient_norm.h"

namespace shardplane {
namespace {

// f64[1], the squares that this rank counts.
at::Tensor OwnSquares(const Parameters& parameters,
                      const absl::btree_map<std::string, at::Tensor>& gradients,
                      absl::Span<const int> coordinate, c10::Device device) {
  std::vector<at::Tensor> counted;
  for (const auto& [fqn, gradient] : gradients) {
    const auto parameter = parameters.find(fqn);
    if (parameter == parameters.end() || gradient.numel() == 0) continue;
    if (CountsInNorm(parameter->second.spec, coordinate)) {
      counted.push_back(gradient.is_complex()
                            ? at::view_as_real(gradient.resolve_conj())
                            : gradient);
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
    absl::Span<const int> coordinate, Communicator& communicator) {
  const at::AutoGradMode no_grad(false);
  at::Tensor squares =
      OwnSquares(parameters, gradients, coordinate, communicator.device());
  for (size_t dim = 0; dim < coordinate.size(); ++dim) {
    SP_ASSIGN_OR_RETURN(
        squares,
        communicator.AllReduce(squares, static_cast<int>(dim), ReduceOp::kSum));
  }
  SP_RETURN_IF_ERROR(communicator.Finish());
  return squares.sqrt().item<double>();
}

}  // namespace shardplane
