#include "worker/optimizers.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <variant>
#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/core/grad_mode.h"
#include "ATen/ops/empty_like.h"
#include "ATen/ops/zeros_like.h"
#include "common/errors.h"

namespace shardplane {
namespace {

// weight -= lr * (gradient + weight_decay * weight), without momentum.
void AddProduct(const SgdOptions& options, const at::Tensor& weight,
                const WeightProduct& gradient) {
  gradient.AddTo(weight, 1 - options.lr * options.weight_decay,
                 options.maximize ? options.lr : -options.lr);
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
      set.updates.push_back({fqn, AsReal(parameter), gradient->second});
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
                               const NamedProducts& products,
                               std::optional<double> clip_scale) {
  SP_RETURN_IF_ERROR(Check(options, parameters));
  const std::vector<UpdateSet> sets =
      Collect(options, parameters, gradients, products);
  kind_ = KindName(options.values);
  const at::AutoGradMode no_grad(false);
  std::vector<UpdateBatch> batches;
  for (const UpdateSet& set : sets) {
    std::visit(
        [&](const auto& values) { Prepare(values, set.updates, batches); },
        *set.values);
  }
  Make(batches, clip_scale);
  for (const UpdateSet& set : sets) {
    for (const ProductUpdate& update : set.products) {
      AddProduct(std::get<SgdOptions>(*set.values), update.parameter,
                 *update.gradient);
    }
  }
  return absl::OkStatus();
}

void Optimizers::Make(std::vector<UpdateBatch>& batches,
                      std::optional<double> clip_scale) {
  const auto rest =
      captured_ == nullptr
          ? batches.begin()
          : std::stable_partition(batches.begin(), batches.end(), TakesNumbers);
  const size_t taken = rest - batches.begin();
  const absl::Span<const UpdateBatch> all = batches;
  if (captured_ != nullptr) captured_->Run(all.first(taken), clip_scale);
  CallKernels(all.subspan(taken), clip_scale);
}

void Optimizers::Prepare(const SgdOptions& options,
                         const std::vector<Update>& updates,
                         std::vector<UpdateBatch>& batches) {
  // The kernel takes one element type a call, and one answer to whether the
  // buffers are new.
  absl::btree_map<std::pair<at::ScalarType, bool>, SgdBatch> by_kind;
  for (const auto& [fqn, parameter, gradient] : updates) {
    const bool first = !momentum_.contains(fqn);
    SgdBatch& batch = by_kind[{parameter.scalar_type(), first}];
    if (options.momentum != 0) {
      at::Tensor& buffer = momentum_[fqn];
      if (first) buffer = at::empty_like(parameter);
      batch.buffers.push_back(buffer);
    }
    batch.parameters.push_back(parameter);
    batch.gradients.push_back(gradient);
  }
  for (auto& [kind, batch] : by_kind) {
    batch.options = options;
    batch.first = kind.second;
    batches.push_back(std::move(batch));
  }
}

void Optimizers::Prepare(const AdamOptions& options,
                         const std::vector<Update>& updates,
                         std::vector<UpdateBatch>& batches) {
  absl::btree_map<at::ScalarType, AdamBatch> by_type;
  for (const auto& [fqn, parameter, gradient] : updates) {
    AdamState& state = adam_[fqn];
    if (state.steps == 0) {
      state.exp_avg = at::zeros_like(parameter);
      state.exp_avg_sq = at::zeros_like(parameter);
    }
    if (options.amsgrad && !state.max_exp_avg_sq.defined()) {
      state.max_exp_avg_sq = at::zeros_like(parameter);
    }
    AdamBatch& batch = by_type[parameter.scalar_type()];
    batch.parameters.push_back(parameter);
    batch.gradients.push_back(gradient);
    batch.exp_avgs.push_back(state.exp_avg);
    batch.exp_avg_sqs.push_back(state.exp_avg_sq);
    if (options.amsgrad) batch.max_exp_avg_sqs.push_back(state.max_exp_avg_sq);
    batch.steps.push_back(++state.steps);
  }
  for (auto& [type, batch] : by_type) {
    batch.options = options;
    batches.push_back(std::move(batch));
  }
}

void Optimizers::Reset() {
  kind_.clear();
  momentum_.clear();
  adam_.clear();
}

}  // namespace shardplane
