// Of what a rank holds, what others may look at.
#include <variant>

#include "absl/strings/str_cat.h"
#include "worker/gang_tensors.h"
#include "worker/torch_tensors.h"

namespace shardplane {

// As the coordinator says it of what never has one.
constexpr char kNoGradient[] = "GRADIENT_NOT_FOUND";

absl::StatusOr<ShardedTensor> GangTensors::Read(const TensorKey& key) const {
  return std::visit([this](const auto& one) { return ReadOne(one); }, key);
}

absl::StatusOr<ShardedTensor> GangTensors::ReadOne(
    const ParameterKey& key) const {
  const auto found = parameters_.find(key.fqn);
  if (found == parameters_.end()) return NotThere("a parameter", key.fqn);
  return ShardedTensor{FromTorch(found->second.local), found->second.type,
                       found->second.spec};
}

absl::StatusOr<ShardedTensor> GangTensors::ReadOne(
    const GradientKey& key) const {
  const auto parameter = parameters_.find(key.fqn);
  const at::Tensor gradient = gradients_.Find(key.fqn);
  if (parameter == parameters_.end() || !gradient.defined()) {
    return NotThere("a parameter with a gradient", key.fqn, kNoGradient);
  }
  return ShardedTensor{FromTorch(gradient), parameter->second.type,
                       parameter->second.spec};
}

ShardedTensor GangTensors::ValueOf(const at::Tensor& tensor, ValueId id) const {
  const Value& value = last_program_->program().values[id];
  return {FromTorch(tensor), value.type, value.spec};
}

absl::StatusOr<ShardedTensor> GangTensors::ReadOne(const OutputKey& key) const {
  if (key.index < 0 || key.index >= static_cast<int>(last_.outputs.size())) {
    return NotThere("an output of the last call",
                    absl::StrCat("output ", key.index));
  }
  return ValueOf(last_.outputs[key.index],
                 last_program_->program().outputs[key.index]);
}

absl::StatusOr<ShardedTensor> GangTensors::ReadOne(
    const InputGradientKey& key) const {
  const int count = static_cast<int>(last_.input_gradients.size());
  if (key.index < 0 || key.index >= count ||
      !last_.input_gradients[key.index].defined()) {
    return NotThere("an input with a gradient",
                    absl::StrCat("input ", key.index), kNoGradient);
  }
  return ValueOf(last_.input_gradients[key.index],
                 last_program_->program().inputs[key.index].gradient);
}

}  // namespace shardplane
