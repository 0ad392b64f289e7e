#include "common/weight_products.h"

#include <algorithm>
#include <variant>

#include "absl/container/flat_hash_map.h"
#include "common/op_values.h"
#include "common/tensor_spec.h"

namespace shardplane {
namespace {

class Finder {
 public:
  Finder(const ShardedProgram& program, absl::Span<const int> coordinate,
         int64_t min_bytes)
      : program_(program), coordinate_(coordinate), min_bytes_(min_bytes) {}

  std::vector<WeightProductRow> Find() {
    for (const ParameterBinding& binding : program_.parameters) {
      if (binding.gradient >= 0) weight_of_[binding.gradient] = binding.value;
    }
    for (const Instruction& step : program_.instructions) {
      if (std::holds_alternative<Reshard>(step)) return {};
      if (std::holds_alternative<Free>(step)) continue;
      for (const ValueId id : ValuesOf(program_, step)) ++uses_[id];
    }
    for (const Instruction& step : program_.instructions) {
      if (const auto* back = std::get_if<RunSegmentBackward>(&step)) {
        Add(back->segment,
            program_.segments[back->segment].differentiable_inputs,
            back->input_gradients);
      } else if (const auto* late = std::get_if<RunWeightGradients>(&step)) {
        Add(late->segment, late->weights, late->gradients);
      }
    }
    return std::move(rows_);
  }

 private:
  void Add(int segment, absl::Span<const ValueId> inputs,
           absl::Span<const ValueId> gradients) {
    for (size_t i = 0; i < inputs.size(); ++i) {
      const auto weight = weight_of_.find(gradients[i]);
      if (weight == weight_of_.end() || weight->second != inputs[i] ||
          uses_[gradients[i]] != 1) {
        continue;
      }
      const Op* op = OnlyLinearOf(segment, inputs[i]);
      if (op != nullptr && Pays(*op, inputs[i])) {
        rows_.push_back({segment, inputs[i], gradients[i]});
      }
    }
  }

  // The op whose weight it is, and which alone reads it; else null.
  const Op* OnlyLinearOf(int segment, ValueId weight) const {
    const Op* found = nullptr;
    int reads = 0;
    for (const Op& op : program_.segments[segment].ops) {
      const std::vector<ValueId> read = ValuesReadBy(op);
      reads += static_cast<int>(std::ranges::count(read, weight));
      if (op.target == "aten.linear.default" && read[1] == weight) found = &op;
    }
    return reads == 1 ? found : nullptr;
  }

  int64_t LocalElements(ValueId id) const {
    const Value& value = program_.values[id];
    return NumElements(
        LocalShape(value.type.shape, value.spec, program_.mesh, coordinate_));
  }

  bool Pays(const Op& op, ValueId weight) const {
    const DType dtype = program_.values[weight].type.dtype;
    if (dtype != DType::kFloat32 && dtype != DType::kFloat64) return false;
    const int64_t made = LocalElements(weight);
    const int64_t factors =
        LocalElements(ValuesReadBy(op)[0]) + LocalElements(op.results[0]);
    return made * ByteSize(dtype) >= min_bytes_ && 2 * factors <= made;
  }

  const ShardedProgram& program_;
  const absl::Span<const int> coordinate_;
  const int64_t min_bytes_;
  absl::flat_hash_map<ValueId, ValueId> weight_of_;  // by gradient
  absl::flat_hash_map<ValueId, int> uses_;           // instructions
  std::vector<WeightProductRow> rows_;
};

}  // namespace

std::vector<WeightProductRow> FindWeightProducts(
    const ShardedProgram& program, absl::Span<const int> coordinate,
    int64_t min_bytes) {
  return Finder(program, coordinate, min_bytes).Find();
}

}  // namespace shardplane
