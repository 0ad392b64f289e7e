#include "worker/update_calls.h"

#include <algorithm>
#include <cstddef>
#include <initializer_list>

#include "ATen/core/Tensor.h"
#include "ATen/ops/_fused_adam.h"
#include "ATen/ops/_fused_adamw.h"
#include "ATen/ops/_fused_sgd.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/empty_like.h"
#include "ATen/ops/full.h"
#include "ATen/ops/mul.h"
#include "ATen/ops/view_as_real.h"
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

// `scale` has a dim of its own, f32[1]: so f16 and bf16 are multiplied in f32,
// and it is not rounded to their type.
at::Tensor Clipped(const at::Tensor& gradient, const at::Tensor& scale) {
  at::Tensor clipped = at::empty_like(gradient);
  at::Tensor flat = clipped.view({-1});
  at::mul_out(flat, gradient.view({-1}), scale);
  return clipped;
}

// `clip_scale` undefined: as they are.
std::vector<at::Tensor> Ready(const std::vector<at::Tensor>& gradients,
                              const at::Tensor& clip_scale) {
  std::vector<at::Tensor> ready;
  for (const at::Tensor& gradient : gradients) {
    const at::Tensor real = AsReal(gradient).contiguous();
    ready.push_back(clip_scale.defined() ? Clipped(real, clip_scale) : real);
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

// `lr`, here and below: a double, or f32[] on the device.
template <typename Rate>
void FusedSgd(const SgdBatch& batch, const std::vector<at::Tensor>& gradients,
              const Rate& lr) {
  const SgdOptions& options = batch.options;
  at::_fused_sgd_(batch.parameters, gradients, batch.buffers,
                  options.weight_decay, options.momentum, lr, options.dampening,
                  options.nesterov, options.maximize, batch.first);
}

// Unlike SGD's, these kernels compute f16 and bf16 in f32, and rightly so:
// closer to exact arithmetic than torch's plain formula, whose eps vanishes in
// f16. `steps`: by parameter, f32 as kernels want it.
template <typename Rate>
void FusedAdam(const AdamBatch& batch, const std::vector<at::Tensor>& gradients,
               const std::vector<at::Tensor>& steps, const Rate& lr) {
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

double LrOf(const UpdateBatch& batch) {
  return std::visit([](const auto& of) { return of.options.lr; }, batch);
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

// None where there is no kernel of ours.
AdamTable TableOf(const UpdateBatch& batch, const std::vector<int64_t>& counts,
                  const std::vector<at::Tensor>& tensors) {
  const auto* adam = std::get_if<AdamBatch>(&batch);
  // Complex gradients may be memory that is resolved anew.
  if (adam == nullptr || adam->gradients[0].is_complex()) return {};
  const std::vector<at::Tensor> steps = StepsOf(*adam, counts, tensors);
  std::vector<AdamOperands> states;
  for (size_t i = 0; i < steps.size(); ++i) {
    states.push_back({.parameter = adam->parameters[i],
                      .gradient = adam->gradients[i],
                      .exp_avg = adam->exp_avgs[i],
                      .exp_avg_sq = adam->exp_avg_sqs[i],
                      .max_exp_avg_sq = adam->max_exp_avg_sqs.empty()
                                            ? at::Tensor()
                                            : adam->max_exp_avg_sqs[i],
                      .steps = steps[i]});
  }
  return HasAdamKernel(states) ? MakeAdamTable(states) : AdamTable();
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

void Append(const std::vector<at::Tensor>& tensors, UpdateIdentity& identity) {
  for (const at::Tensor& tensor : tensors) {
    std::vector<int64_t>& places = identity.places;
    places.push_back(reinterpret_cast<intptr_t>(tensor.const_data_ptr()));
    places.push_back(static_cast<int64_t>(tensor.scalar_type()));
    // Whether numbers are lazily conjugated or negated is a part of it.
    places.push_back(static_cast<int64_t>(tensor.key_set().raw_repr()));
    places.push_back(tensor.dim());
    places.insert(places.end(), tensor.sizes().begin(), tensor.sizes().end());
    places.insert(places.end(), tensor.strides().begin(),
                  tensor.strides().end());
  }
}

void Append(const SgdBatch& batch, const std::vector<int64_t>&,
            UpdateIdentity& identity) {
  identity.places.push_back(batch.first ? 1 : 0);
  for (const auto* of : {&batch.parameters, &batch.gradients, &batch.buffers}) {
    Append(*of, identity);
  }
}

void Append(const AdamBatch& batch, const std::vector<int64_t>& counts,
            UpdateIdentity& identity) {
  for (const int64_t steps : batch.steps) {
    identity.places.push_back(IndexOf(steps, counts));
  }
  for (const auto* of : {&batch.parameters, &batch.gradients, &batch.exp_avgs,
                         &batch.exp_avg_sqs, &batch.max_exp_avg_sqs}) {
    Append(*of, identity);
  }
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

bool TakesNumbers(const UpdateBatch& batch) {
  if (ParametersOf(batch)[0].scalar_type() == at::kDouble) return false;
  const auto* sgd = std::get_if<SgdBatch>(&batch);
  return sgd == nullptr || !IsPlain(*sgd);
}

UpdateNumbers MakeNumbers(absl::Span<const UpdateBatch> batches, bool clips) {
  UpdateNumbers numbers;
  for (const UpdateBatch& batch : batches) {
    numbers.lrs.push_back(at::empty({}, NumberOptions(batch)));
    numbers.filled.push_back(std::nullopt);
  }
  const std::vector<int64_t> counts = CountsOf(batches);
  for (size_t i = 0; i < counts.size(); ++i) {
    numbers.steps.push_back(at::empty({}, NumberOptions(batches[0])));
  }
  if (clips) numbers.clip_scale = at::empty({1}, NumberOptions(batches[0]));
  for (const UpdateBatch& batch : batches) {
    numbers.tables.push_back(TableOf(batch, counts, numbers.steps));
  }
  return numbers;
}

void FillNumbers(absl::Span<const UpdateBatch> batches,
                 std::optional<double> clip_scale, UpdateNumbers& numbers) {
  for (size_t i = 0; i < batches.size(); ++i) {
    const double lr = LrOf(batches[i]);
    if (numbers.filled[i] == lr) continue;
    numbers.lrs[i].fill_(lr);
    numbers.filled[i] = lr;
  }
  const std::vector<int64_t> counts = CountsOf(batches);
  for (size_t i = 0; i < counts.size(); ++i) numbers.steps[i].fill_(counts[i]);
  if (clip_scale.has_value()) numbers.clip_scale.fill_(*clip_scale);
}

void CallKernels(absl::Span<const UpdateBatch> batches,
                 const UpdateNumbers& numbers) {
  const std::vector<int64_t> counts = CountsOf(batches);
  for (size_t i = 0; i < batches.size(); ++i) {
    const at::Tensor& lr = numbers.lrs[i];
    if (const auto* sgd = std::get_if<SgdBatch>(&batches[i])) {
      FusedSgd(*sgd, Ready(sgd->gradients, numbers.clip_scale), lr);
    } else {
      const AdamBatch& adam = std::get<AdamBatch>(batches[i]);
      const AdamTable& table = numbers.tables[i];
      if (table.places.defined()) {
        AdamByKernel(adam.options, table, lr, numbers.clip_scale);
        continue;
      }
      FusedAdam(adam, Ready(adam.gradients, numbers.clip_scale),
                StepsOf(adam, counts, numbers.steps), lr);
    }
  }
}

UpdateIdentity IdentityOf(absl::Span<const UpdateBatch> batches, bool clips) {
  const std::vector<int64_t> counts = CountsOf(batches);
  UpdateIdentity identity;
  identity.places.push_back(clips ? 1 : 0);
  for (const UpdateBatch& batch : batches) {
    std::visit(
        [&](const auto& of) {
          auto options = of.options;
          options.lr = 0;
          identity.options.push_back(options);
          identity.places.push_back(static_cast<int64_t>(of.parameters.size()));
          Append(of, counts, identity);
        },
        batch);
  }
  return identity;
}

}  // namespace shardplane
