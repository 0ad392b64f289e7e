#include "worker/update_calls.h"

#include <algorithm>
#include <cstddef>

#include "ATen/ATen.h"
#include "absl/algorithm/container.h"

namespace shardplane {
namespace {

std::vector<at::Tensor> Ready(const std::vector<at::Tensor>& gradients,
                              std::optional<double> clip_scale) {
  const bool clips = clip_scale.value_or(1) != 1;
  std::vector<at::Tensor> ready;
  for (const at::Tensor& gradient : gradients) {
    ready.push_back(
        AsReal(clips ? gradient.mul(*clip_scale) : gradient).contiguous());
  }
  return ready;
}

bool IsPlain(const SgdBatch& batch) {
  const at::Tensor& parameter = batch.parameters[0];
  return at::isReducedFloatingType(parameter.scalar_type()) &&
         parameter.is_cpu();
}

// torch 2.11's fused CPU kernel is wrong for f16 and bf16: from the 16th
// element on it updates with other elements' gradients.
void PlainSgd(const SgdOptions& options, const at::Tensor& parameter,
              const at::Tensor& gradient, const at::Tensor* buffer,
              bool first) {
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

void FusedSgd(const SgdBatch& batch, const std::vector<at::Tensor>& gradients,
              double lr) {
  const SgdOptions& options = batch.options;
  at::_fused_sgd_(batch.parameters, gradients, batch.buffers,
                  options.weight_decay, options.momentum, lr, options.dampening,
                  options.nesterov, options.maximize, batch.first);
}

// Unlike SGD's, these kernels compute f16 and bf16 in f32, and rightly so:
// closer to exact arithmetic than torch's plain formula, whose eps vanishes in
// f16. `steps`: by parameter, f32 as kernels want it.
void FusedAdam(const AdamBatch& batch, const std::vector<at::Tensor>& gradients,
               const std::vector<at::Tensor>& steps, double lr) {
  const AdamOptions& options = batch.options;
  const auto call = [&](auto kernel) {
    kernel(batch.parameters, gradients, batch.exp_avgs, batch.exp_avg_sqs,
           batch.max_exp_avg_sqs, steps, lr, options.beta1, options.beta2,
           options.weight_decay, options.eps, options.amsgrad,
           options.maximize);
  };
  if (options.kind == AdamKind::kAdamW) {
    call([](const auto&... args) { at::_fused_adamw_(args...); });
  } else {
    call([](const auto&... args) { at::_fused_adam_(args...); });
  }
}

const std::vector<at::Tensor>& ParametersOf(const UpdateBatch& batch) {
  return std::visit(
      [](const auto& of) -> const std::vector<at::Tensor>& {
        return of.parameters;
      },
      batch);
}

at::TensorOptions NumberOptions(const UpdateBatch& batch) {
  return ParametersOf(batch)[0].options().dtype(at::kFloat);
}

// Ascending. Most parameters have taken as many steps, and share the tensor
// that says so.
std::vector<int64_t> CountsOf(absl::Span<const UpdateBatch> batches) {
  std::vector<int64_t> counts;
  for (const UpdateBatch& batch : batches) {
    const auto* adam = std::get_if<AdamBatch>(&batch);
    if (adam == nullptr) continue;
    for (const int64_t steps : adam->steps) {
      const auto at = absl::c_lower_bound(counts, steps);
      if (at == counts.end() || *at != steps) counts.insert(at, steps);
    }
  }
  return counts;
}

int64_t IndexOf(int64_t steps, const std::vector<int64_t>& counts) {
  return absl::c_lower_bound(counts, steps) - counts.begin();
}

// By parameter.
std::vector<at::Tensor> StepsOf(const AdamBatch& batch,
                                const std::vector<int64_t>& counts,
                                const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> steps;
  for (const int64_t count : batch.steps) {
    steps.push_back(tensors[IndexOf(count, counts)]);
  }
  return steps;
}

void Call(const SgdBatch& batch, const std::vector<int64_t>&,
          const std::vector<at::Tensor>&, std::optional<double> clip_scale) {
  const std::vector<at::Tensor> gradients = Ready(batch.gradients, clip_scale);
  if (!IsPlain(batch)) return FusedSgd(batch, gradients, batch.options.lr);
  for (size_t i = 0; i < gradients.size(); ++i) {
    PlainSgd(batch.options, batch.parameters[i], gradients[i],
             batch.buffers.empty() ? nullptr : &batch.buffers[i], batch.first);
  }
}

void Call(const AdamBatch& batch, const std::vector<int64_t>& counts,
          const std::vector<at::Tensor>& steps,
          std::optional<double> clip_scale) {
  FusedAdam(batch, Ready(batch.gradients, clip_scale),
            StepsOf(batch, counts, steps), batch.options.lr);
}

}  // namespace

at::Tensor AsReal(const at::Tensor& tensor) {
  return tensor.is_complex() ? at::view_as_real(tensor.resolve_conj()) : tensor;
}

void CallKernels(absl::Span<const UpdateBatch> batches,
                 std::optional<double> clip_scale) {
  const std::vector<int64_t> counts = CountsOf(batches);
  std::vector<at::Tensor> steps;
  for (const int64_t count : counts) {
    steps.push_back(at::full({}, count, NumberOptions(batches[0])));
  }
  for (const UpdateBatch& batch : batches) {
    std::visit([&](const auto& of) { Call(of, counts, steps, clip_scale); },
               batch);
  }
}

}  // namespace shardplane
