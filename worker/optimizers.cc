#include "worker/optimizers.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <variant>
#include <vector>

#include "ATen/ATen.h"
#include "ATen/core/grad_mode.h"
#include "common/errors.h"

namespace shardplane {
namespace {

// Of complex numbers their parts, each of which torch's optimizers update as a
// number of its own. Else `tensor`.
at::Tensor AsReal(const at::Tensor& tensor) {
  return tensor.is_complex() ? at::view_as_real(tensor.resolve_conj()) : tensor;
}

// Tensors that one call of a kernel updates together.
struct SgdBatch {
  std::vector<at::Tensor> parameters;
  std::vector<at::Tensor> gradients;
  std::vector<at::Tensor> buffers;
};

void FusedSgd(const SgdOptions& options, const SgdBatch& batch, bool first) {
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

// weight -= lr * (gradient + weight_decay * weight), without momentum.
void AddProduct(const SgdOptions& options, const at::Tensor& weight,
                const WeightProduct& gradient) {
  gradient.AddTo(weight, 1 - options.lr * options.weight_decay,
                 options.maximize ? options.lr : -options.lr);
}

struct AdamBatch {
  std::vector<at::Tensor> parameters;
  std::vector<at::Tensor> gradients;
  std::vector<at::Tensor> exp_avgs;
  std::vector<at::Tensor> exp_avg_sqs;
  std::vector<at::Tensor> max_exp_avg_sqs;  // empty without amsgrad
  std::vector<at::Tensor> steps;  // this one counted; f32, as kernels want it
};

// Unlike SGD's, these kernels compute f16 and bf16 in f32, and rightly so:
// closer to exact arithmetic than torch's plain formula, whose eps vanishes in
// f16.
void FusedAdam(const AdamOptions& options, const AdamBatch& batch) {
  const auto call = [&](auto kernel) {
    kernel(batch.parameters, batch.gradients, batch.exp_avgs, batch.exp_avg_sqs,
           batch.max_exp_avg_sqs, batch.steps, options.lr, options.beta1,
           options.beta2, options.weight_decay, options.eps, options.amsgrad,
           options.maximize);
  };
  if (options.kind == AdamKind::kAdamW) {
    call([](const auto&... args) { at::_fused_adamw_(args...); });
  } else {
    call([](const auto&... args) { at::_fused_adam_(args...); });
  }
}

}  // namespace

absl::Status Optimizers::Check(const OptimizerOptions& options,
                               const NamedTensors& parameters) {
  SP_RETURN_IF_ERROR(Validate(options));
  SP_RETURN_IF_ERROR(CheckKind(options, kind_));
  return AssignTo(options, parameters);
}

bool Optimizers::IsAssigned(const OptimizerOptions& options,
                            const NamedTensors& parameters) const {
  const auto same_patterns = [](const ParameterGroup& group,
                                const std::vector<std::string>& patterns) {
    return group.patterns == patterns;
  };
  const auto same_name = [](const auto& parameter, const std::string& fqn) {
    return parameter.first == fqn;
  };
  return std::equal(options.groups.begin(), options.groups.end(),
                    assigned_.patterns.begin(), assigned_.patterns.end(),
                    same_patterns) &&
         std::equal(parameters.begin(), parameters.end(),
                    assigned_.fqns.begin(), assigned_.fqns.end(), same_name);
}

absl::Status Optimizers::AssignTo(const OptimizerOptions& options,
                                  const NamedTensors& parameters) {
  if (options.groups.empty() || IsAssigned(options, parameters)) {
    return absl::OkStatus();
  }
  Assigned assigned;
  for (const ParameterGroup& group : options.groups) {
    assigned.patterns.push_back(group.patterns);
  }
  for (const auto& [fqn, parameter] : parameters) assigned.fqns.push_back(fqn);
  SP_ASSIGN_OR_RETURN(assigned.groups, AssignGroups(options, assigned.fqns));
  assigned_ = std::move(assigned);
  return absl::OkStatus();
}

std::vector<Optimizers::UpdateSet> Optimizers::Collect(
    const OptimizerOptions& options, const NamedTensors& parameters,
    const NamedTensors& gradients, const NamedProducts& products) const {
  std::vector<UpdateSet> sets{{&options.values, {}, {}}};
  std::vector<size_t> set_of_group;
  for (const ParameterGroup& group : options.groups) {
    size_t set = 0;
    while (set < sets.size() && *sets[set].values != group.values) ++set;
    if (set == sets.size()) sets.push_back({&group.values, {}, {}});
    set_of_group.push_back(set);
  }
  size_t index = 0;
  for (const auto& [fqn, parameter] : parameters) {
    const int group = options.groups.empty() ? -1 : assigned_.groups[index++];
    if (parameter.numel() == 0) continue;
    UpdateSet& set = sets[group < 0 ? 0 : set_of_group[group]];
    const auto gradient = gradients.find(fqn);
    const auto product = products.find(fqn);
    if (gradient != gradients.end()) {
      set.updates.push_back(
          {fqn, AsReal(parameter), AsReal(gradient->second).contiguous()});
    } else if (product != products.end() && OnlyAdds(*set.values)) {
      set.products.push_back({parameter, &product->second});
    } else if (product != products.end()) {
      set.updates.push_back({fqn, parameter, product->second.Made()});
    }
  }
  return sets;
}

absl::Status Optimizers::Apply(const OptimizerOptions& options,
                               const NamedTensors& parameters,
                               const NamedTensors& gradients,
                               const NamedProducts& products) {
  SP_RETURN_IF_ERROR(Check(options, parameters));
  const std::vector<UpdateSet> sets =
      Collect(options, parameters, gradients, products);
  kind_ = KindName(options.values);
  const at::AutoGradMode no_grad(false);
  for (const UpdateSet& set : sets) {
    std::visit([&](const auto& values) { ApplyKind(values, set.updates); },
               *set.values);
    for (const ProductUpdate& update : set.products) {
      AddProduct(std::get<SgdOptions>(*set.values), update.parameter,
                 *update.gradient);
    }
  }
  return absl::OkStatus();
}

void Optimizers::ApplyKind(const SgdOptions& options,
                           const std::vector<Update>& updates) {
  // The kernel takes one element type a call, and one answer to whether the
  // buffers are new.
  absl::btree_map<std::pair<at::ScalarType, bool>, SgdBatch> batches;
  for (const auto& [fqn, parameter, gradient] : updates) {
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
    SgdBatch& batch = batches[{parameter.scalar_type(), first}];
    batch.parameters.push_back(parameter);
    batch.gradients.push_back(gradient);
    if (buffer != nullptr) batch.buffers.push_back(*buffer);
  }
  for (const auto& [key, batch] : batches) {
    FusedSgd(options, batch, key.second);
  }
}

void Optimizers::ApplyKind(const AdamOptions& options,
                           const std::vector<Update>& updates) {
  absl::btree_map<at::ScalarType, AdamBatch> batches;
  // Most have taken as many steps, and share the tensor that says so.
  absl::btree_map<int64_t, at::Tensor> steps;
  for (const auto& [fqn, parameter, gradient] : updates) {
    AdamState& state = adam_[fqn];
    if (state.steps == 0) {
      state.exp_avg = at::zeros_like(parameter);
      state.exp_avg_sq = at::zeros_like(parameter);
    }
    at::Tensor& step = steps[++state.steps];
    if (!step.defined()) {
      step = at::full({}, state.steps, parameter.options().dtype(at::kFloat));
    }
    if (options.amsgrad && !state.max_exp_avg_sq.defined()) {
      state.max_exp_avg_sq = at::zeros_like(parameter);
    }
    AdamBatch& batch = batches[parameter.scalar_type()];
    batch.parameters.push_back(parameter);
    batch.gradients.push_back(gradient);
    batch.exp_avgs.push_back(state.exp_avg);
    batch.exp_avg_sqs.push_back(state.exp_avg_sq);
    if (options.amsgrad) batch.max_exp_avg_sqs.push_back(state.max_exp_avg_sq);
    batch.steps.push_back(step);
  }
  for (const auto& [dtype, batch] : batches) FusedAdam(options, batch);
}

void Optimizers::Reset() {
  kind_.clear();
  momentum_.clear();
  adam_.clear();
}

}  // namespace shardplane
