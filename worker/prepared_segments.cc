// Operators of a prepared program, and gradients.
#include <utility>

#include "ATen/core/Tensor.h"
#include "ATen/ops/zeros_like.h"
#include "absl/container/flat_hash_set.h"
#include "common/errors.h"
#include "worker/prepared_program.h"
#include "worker/program_state.h"

namespace shardplane {

absl::Status PreparedProgram::PrepareSegments(const ShardedProgram& program) {
  for (const WeightProductRow& row :
       FindWeightProducts(program, context_.coordinate)) {
    products_[row.segment].push_back(row);
  }
  for (const Instruction& step : program.instructions) {
    if (const auto* run = std::get_if<RunWeightGradients>(&step)) {
      late_[run->segment] = run->weights;
    } else if (const auto* back = std::get_if<RunSegmentBackward>(&step)) {
      has_backward_[back->segment] = true;
    }
  }
  for (size_t i = 0; i < program.segments.size(); ++i) {
    std::vector<ValueId> late = late_[i];
    SP_ASSIGN_OR_RETURN(PreparedSegment ready,
                        PreparedSegment::Create(program_.segments[i], context_,
                                                late, program_.values));
    segments_.push_back(std::move(ready));
    product_segments_.emplace_back();
    if (products_[i].empty()) continue;
    for (const WeightProductRow& row : products_[i]) {
      if (!absl::c_linear_search(late, row.weight)) late.push_back(row.weight);
    }
    SP_ASSIGN_OR_RETURN(product_segments_[i],
                        PreparedSegment::Create(program_.segments[i], context_,
                                                late, program_.values));
  }
  return absl::OkStatus();
}

const PreparedSegment& PreparedProgram::SegmentOf(int segment,
                                                  const State& state) const {
  const std::optional<PreparedSegment>& keeping = product_segments_[segment];
  return state.keep_products && keeping.has_value() ? *keeping
                                                    : segments_[segment];
}

absl::Status PreparedProgram::Execute(const RunSegment& step,
                                      State& state) const {
  const Recording recording =
      has_backward_[step.segment] ? state.recording : Recording::kOff;
  state.recordings[step.segment] =
      SegmentOf(step.segment, state)
          .Forward(absl::MakeSpan(state.values), recording);
  for (const ValueId id : program_.segments[step.segment].outputs) {
    SP_RETURN_IF_ERROR(CheckShape(id, state.values[id]));
  }
  return absl::OkStatus();
}

bool PreparedProgram::IsKeptProduct(int segment, ValueId gradient,
                                    const State& state) const {
  return state.keep_products &&
         absl::c_any_of(products_[segment], [&](const WeightProductRow& row) {
           return row.gradient == gradient;
         });
}

absl::Status PreparedProgram::Execute(const RunSegmentBackward& step,
                                      State& state) const {
  std::vector<at::Tensor> gradients;
  for (const ValueId id : step.output_gradients) {
    gradients.push_back(id < 0 ? at::Tensor() : state.values[id]);
  }
  const std::vector<at::Tensor> result =
      SegmentOf(step.segment, state)
          .Backward(state.recordings[step.segment], gradients);
  for (size_t i = 0; i < step.input_gradients.size(); ++i) {
    const ValueId id = step.input_gradients[i];
    if (id < 0 || IsKeptProduct(step.segment, id, state)) continue;
    SP_RETURN_IF_ERROR(CheckShape(id, result[i]));
    state.values[id] = result[i];
  }
  // Else the RunWeightGradients that follows takes them.
  if (late_[step.segment].empty()) TakeProducts(step.segment, state);
  return absl::OkStatus();
}

absl::Status PreparedProgram::Execute(const RunWeightGradients& step,
                                      State& state) const {
  auto products = TakeProducts(step.segment, state);
  for (size_t i = 0; i < step.weights.size(); ++i) {
    const ValueId id = step.gradients[i];
    if (IsKeptProduct(step.segment, id, state)) continue;
    const auto product = products.find(step.weights[i]);
    state.values[id] = product == products.end()
                           ? at::zeros_like(state.values[step.weights[i]])
                           : product->second.Made();
    products.erase(step.weights[i]);  // its memory
    SP_RETURN_IF_ERROR(CheckShape(id, state.values[id]));
  }
  return absl::OkStatus();
}

absl::flat_hash_map<ValueId, WeightProduct> PreparedProgram::TakeProducts(
    int segment, State& state) const {
  auto products = PreparedSegment::TakeProducts(
      std::exchange(state.recordings[segment], {}));
  if (!state.keep_products) return products;
  for (const WeightProductRow& row : products_[segment]) {
    const auto product = products.find(row.weight);
    if (product == products.end()) {
      state.values[row.gradient] = at::zeros_like(state.values[row.weight]);
    } else {
      state.products[row.gradient] = std::move(product->second);
      products.erase(product);
    }
  }
  return products;
}

NamedProducts PreparedProgram::CollectProducts(State& state) const {
  NamedProducts named;
  absl::flat_hash_set<const c10::StorageImpl*> changing;
  for (const ParameterBinding& binding : program_.parameters) {
    const at::Tensor& value = state.values[binding.value];
    if (value.defined()) {
      changing.insert(value.storage().unsafeGetStorageImpl());
    }
  }
  const auto changes = [&](const at::Tensor& tensor) {
    return changing.contains(tensor.storage().unsafeGetStorageImpl());
  };
  for (const ParameterBinding& binding : program_.parameters) {
    const auto product = state.products.find(binding.gradient);
    if (product == state.products.end()) continue;
    const auto& [input, gradient] = product->second;
    if (changes(input) || changes(gradient)) {
      state.values[binding.gradient] = product->second.Made();
    } else {
      named[binding.fqn] = std::move(product->second);
    }
  }
  return named;
}

}  // namespace shardplane
