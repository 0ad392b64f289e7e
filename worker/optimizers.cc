#include "worker/optimizers.h"

#include <utility>
#include <variant>
#include <vector>

#include "ATen/ATen.h"
#include "ATen/core/grad_mode.h"
#include "common/errors.h"

namespace shardplane {
namespace {

// Tensors that one call of a kernel updates together.
struct Batch {
  std::vector<at::Tensor> parameters;
  std::vector<at::Tensor> gradients;
  std::vector<at::Tensor> buffers;
};

void FusedSgd(const SgdOptions& options, const Batch& batch, bool first) {
  if (batch.parameters.empty()) return;
  at::_fused_sgd_(batch.parameters, batch.gradients, batch.buffers,
                  options.weight_decay, options.momentum, options.lr,
                  options.dampening, options.nesterov, options.maximize, first);
}

// torch 2.11's fused CPU kernel is wrong for f16 and bf16: from the 16th
// element on it updates with other elements' gradients.
void PlainSgd(const SgdOptions& options, const at::Tensor& parameter,
              const at::Tensor& gradient, at::Tensor* buffer, bool first) {
  at::Tensor step = options.maximize ? gradient.neg() : gradient;
  if (options.weight_decay != 0) {
    step = step.add(parameter, options.weight_decay);
  }
  if (buffer != nullptr) {
    if (first) {
      buffer->copy_(step);
    } else {
      buffer->mul_(options.momentum).add_(step, 1 - options.dampening);
    }
    step = options.nesterov ? step.add(*buffer, options.momentum) : *buffer;
  }
  parameter.add_(step, -options.lr);
}

}  // namespace

absl::Status Optimizers::Apply(const OptimizerOptions& options,
                               const NamedTensors& parameters,
                               const NamedTensors& gradients) {
  SP_RETURN_IF_ERROR(Validate(options));
  std::visit([&](const auto& kind) { ApplyKind(kind, parameters, gradients); },
             options);
  return absl::OkStatus();
}

void Optimizers::ApplyKind(const SgdOptions& options,
                           const NamedTensors& parameters,
                           const NamedTensors& gradients) {
  const at::AutoGradMode no_grad(false);
  // The kernel takes one element type a call, and one answer to whether the
  // buffers are new.
  absl::btree_map<std::pair<at::ScalarType, bool>, Batch> batches;
  for (const auto& [fqn, gradient] : gradients) {
    const auto found = parameters.find(fqn);
    if (found == parameters.end() || found->second.numel() == 0) continue;
    const at::Tensor& parameter = found->second;
    const bool first = !momentum_.contains(fqn);
    at::Tensor* buffer = nullptr;
    if (options.momentum != 0) {
      buffer = &momentum_[fqn];
      if (first) *buffer = at::empty_like(parameter);
    }
    if (at::isReducedFloatingType(parameter.scalar_type()) &&
        parameter.is_cpu()) {
      PlainSgd(options, parameter, gradient, buffer, first);
      continue;
    }
    Batch& batch = batches[{parameter.scalar_type(), first}];
    batch.parameters.push_back(parameter);
    batch.gradients.push_back(gradient.contiguous());
    if (buffer != nullptr) batch.buffers.push_back(*buffer);
  }
  for (const auto& [key, batch] : batches) {
    FusedSgd(options, batch, key.second);
  }
}

}  // namespace shardplane
