#include "worker/segments.h"

#include <set>

#include "ATen/core/Tensor.h"
#include "ATen/core/grad_mode.h"
#include "ATen/ops/zeros.h"
#include "absl/algorithm/container.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/op_values.h"
#include "torch/csrc/autograd/function.h"
#include "torch/csrc/autograd/grad_mode.h"
#include "worker/graph_walk.h"
#include "worker/range_names.h"

namespace shardplane {
namespace {

// For each op the slots that it is the last to touch and nobody keeps.
void FillLastUses(const std::set<Slot>& kept, std::vector<PreparedOp>& ops) {
  std::set<Slot> seen = kept;
  for (auto op = ops.rbegin(); op != ops.rend(); ++op) {
    std::vector<Slot> touched = op->inputs();
    touched.insert(touched.end(), op->results.begin(), op->results.end());
    for (const Slot slot : touched) {
      if (slot != kNoSlot && seen.insert(slot).second) {
        op->last_uses.push_back(slot);
      }
    }
  }
}

// tensor.detach() without the way there: the same memory and version, and no
// history.
at::Tensor Detached(const at::Tensor& tensor) {
  const at::TensorImpl& impl = *tensor.unsafeGetTensorImpl();
  return at::Tensor(
      impl.shallow_copy_and_detach(impl.version_counter(),
                                   /*allow_tensor_metadata_change=*/false));
}

}  // namespace

absl::StatusOr<std::vector<Slot>> PreparedSegment::SlotsOf(
    const std::vector<ValueId>& ids, absl::FunctionRef<Slot(ValueId)> slot_of) {
  std::vector<Slot> slots;
  for (const ValueId id : ids) {
    slots.push_back(slot_of(id));
    if (slots.back() == kNoSlot) {
      return absl::InvalidArgumentError(absl::StrCat(
          "a segment: expected a value that lies in it, got: %", id));
    }
  }
  return slots;
}

// Finds the ops whose weights' gradients are left out.
absl::Status PreparedSegment::FindLateOps(const Segment& segment,
                                          const std::vector<ValueId>& late) {
  int found = 0;
  for (size_t i = 0; i < segment.ops.size() && !late.empty(); ++i) {
    const std::vector<ValueId> read = ValuesReadBy(segment.ops[i]);
    for (const ValueId id : read) found += absl::c_linear_search(late, id);
    if (segment.ops[i].target != "aten.linear.default" || read.size() < 2 ||
        !absl::c_linear_search(late, read[1])) {
      continue;
    }
    late_ops_.push_back({i, read[1], ops_[i].inputs()[0], ops_[i].results[0]});
  }
  if (late_ops_.size() == late.size() &&
      found == static_cast<int>(late.size())) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "a segment: expected that ", late.size(),
      " late weights are each one linear's alone, got: ", late_ops_.size(),
      " linears and ", found, " uses"));
}

absl::StatusOr<PreparedSegment> PreparedSegment::Create(
    const Segment& segment, const OperatorContext& context,
    const std::vector<ValueId>& late, absl::Span<const Value> values) {
  PreparedSegment prepared;
  absl::flat_hash_map<ValueId, Slot> slots;
  const auto add_slot = [&](ValueId id) { slots[id] = prepared.num_slots_++; };
  const auto slot_of = [&](ValueId id) {
    const auto found = slots.find(id);
    return found == slots.end() ? kNoSlot : found->second;
  };
  for (const ValueId id : segment.inputs) {
    add_slot(id);
    prepared.inputs_.push_back(
        {id, absl::c_linear_search(segment.differentiable_inputs, id) &&
                 !absl::c_linear_search(late, id)});
  }
  for (const Op& op : segment.ops) {
    for (const ValueId id : op.results) add_slot(id);
    SP_ASSIGN_OR_RETURN(PreparedOp prepared_op,
                        PreparedOp::Create(op, context, slot_of));
    prepared.ops_.push_back(std::move(prepared_op));
  }
  if (context.nvtx != nullptr) {
    prepared.names_ = NvtxNames(context.nvtx, OperatorNames(segment));
  }
  SP_RETURN_IF_ERROR(prepared.FindLateOps(segment, late));
  SP_ASSIGN_OR_RETURN(const std::vector<Slot> outputs,
                      SlotsOf(segment.outputs, slot_of));
  for (size_t i = 0; i < outputs.size(); ++i) {
    prepared.outputs_.emplace_back(segment.outputs[i], outputs[i]);
  }
  SP_ASSIGN_OR_RETURN(prepared.differentiable_inputs_,
                      SlotsOf(segment.differentiable_inputs, slot_of));
  SP_ASSIGN_OR_RETURN(prepared.differentiable_outputs_,
                      SlotsOf(segment.differentiable_outputs, slot_of));
  std::set<Slot> kept(outputs.begin(), outputs.end());
  kept.insert(prepared.differentiable_inputs_.begin(),
              prepared.differentiable_inputs_.end());
  FillLastUses(kept, prepared.ops_);
  if (!values.empty()) {
    prepared.derived_ = DerivedOps::Create(segment, values, late, slot_of);
  }
  return prepared;
}

SegmentRecording PreparedSegment::Forward(absl::Span<at::Tensor> values,
                                          Recording recording) const {
  const bool record =
      recording == Recording::kOn && !differentiable_outputs_.empty();
  if (record && derived_.has_value()) return ForwardDerived(values);
  const at::AutoGradMode grad_mode(record);
  std::vector<at::Tensor> frame(num_slots_);
  std::vector<torch::autograd::Edge> begins(record ? inputs_.size() : 0);
  for (size_t i = 0; i < inputs_.size(); ++i) {
    frame[i] = values[inputs_[i].value];
    if (!record) continue;
    frame[i] = Detached(frame[i]);
    if (inputs_[i].differentiable) begins[i] = BeginGraph(frame[i]);
  }
  SegmentRecording kept;
  auto late = late_ops_.begin();
  NvtxRuns shown(names_);
  for (size_t i = 0; i < ops_.size(); ++i) {
    shown.At(i);
    ops_[i].Call(absl::MakeSpan(frame));
    if (record && late != late_ops_.end() && late->op == i) {
      at::Tensor& result = frame[late->result];
      kept.late.push_back({.weight = late->weight,
                           .product = {.input = Detached(frame[late->input])},
                           .version = frame[late->input]._version(),
                           .result = result.requires_grad()
                                         ? EdgeOf(result)
                                         : BeginGraph(result)});
      ++late;
    }
    for (const Slot slot : ops_[i].last_uses) frame[slot].reset();
  }
  for (const auto& [id, slot] : outputs_) {
    values[id] = record ? Detached(frame[slot]) : frame[slot];
  }
  if (!record) return kept;
  for (const Slot slot : differentiable_inputs_) {
    kept.inputs.push_back(std::move(begins[slot]));
  }
  for (const Slot slot : differentiable_outputs_) {
    kept.outputs.push_back(EdgeOf(frame[slot]));
  }
  return kept;
}

SegmentRecording PreparedSegment::ForwardDerived(
    absl::Span<at::Tensor> values) const {
  const at::AutoGradMode no_grad(false);
  std::vector<at::Tensor> frame(num_slots_);
  for (size_t i = 0; i < inputs_.size(); ++i) {
    frame[i] = values[inputs_[i].value];
  }
  SegmentRecording kept;
  for (const Slot slot : differentiable_inputs_) {
    kept.input_types.push_back(
        {at::DimVector(frame[slot].sizes()), frame[slot].options()});
  }
  auto late = late_ops_.begin();
  NvtxRuns shown(names_);
  for (size_t i = 0; i < ops_.size(); ++i) {
    shown.At(i);
    derived_->Call(i, ops_[i], absl::MakeSpan(frame), kept.kept);
    if (late != late_ops_.end() && late->op == i) {
      kept.late.push_back({.weight = late->weight,
                           .product = {.input = frame[late->input]},
                           .version = frame[late->input]._version()});
      ++late;
    }
    for (const Slot slot : ops_[i].last_uses) frame[slot].reset();
  }
  for (const auto& [id, slot] : outputs_) values[id] = frame[slot];
  return kept;
}

std::vector<at::Tensor> PreparedSegment::BackwardDerived(
    SegmentRecording& recording,
    absl::Span<const at::Tensor> output_gradients) const {
  const at::AutoGradMode no_grad(false);
  std::vector<at::Tensor> gradients(num_slots_);
  for (size_t i = 0; i < output_gradients.size(); ++i) {
    if (!output_gradients[i].defined()) continue;
    AddGradient(output_gradients[i], gradients[differentiable_outputs_[i]]);
  }
  std::vector<Slot> watched;
  for (const LateOp& late : late_ops_) watched.push_back(late.result);
  derived_->Backward(std::exchange(recording.kept, {}), watched, gradients);
  for (size_t i = 0; i < recording.late.size(); ++i) {
    recording.late[i].product.gradient = gradients[late_ops_[i].result];
  }
  std::vector<at::Tensor> result;
  for (size_t i = 0; i < differentiable_inputs_.size(); ++i) {
    const Slot slot = differentiable_inputs_[i];
    at::Tensor& gradient = result.emplace_back();
    if (!inputs_[slot].differentiable) continue;  // it is late
    gradient = std::move(gradients[slot]);
    if (!gradient.defined()) {
      const auto& [sizes, options] = recording.input_types[i];
      gradient = at::zeros(sizes, options);
    }
  }
  return result;
}

std::vector<at::Tensor> PreparedSegment::Backward(
    SegmentRecording& recording,
    absl::Span<const at::Tensor> output_gradients) const {
  TORCH_CHECK(output_gradients.size() == differentiable_outputs_.size(),
              "a segment's backward: expected gradients of ",
              differentiable_outputs_.size(),
              " differentiable outputs, got: ", output_gradients.size());
  if (derived_.has_value()) return BackwardDerived(recording, output_gradients);
  TORCH_CHECK(output_gradients.size() == recording.outputs.size(),
              "a segment's backward: expected gradients of ",
              recording.outputs.size(),
              " recorded outputs, got: ", output_gradients.size());
  using torch::autograd::Edge;
  std::vector<Edge> outputs;
  std::vector<at::Tensor> gradients;
  for (size_t i = 0; i < output_gradients.size(); ++i) {
    if (!output_gradients[i].defined() || !recording.outputs[i].is_valid()) {
      continue;
    }
    outputs.push_back(recording.outputs[i]);
    gradients.push_back(output_gradients[i]);
  }
  std::vector<Edge> inputs;
  for (const Edge& input : recording.inputs) {
    if (input.is_valid()) inputs.push_back(input);
  }
  const size_t count = inputs.size();
  for (LateProduct& late : recording.late) {
    inputs.push_back(std::move(late.result));
  }
  std::vector<at::Tensor> made(inputs.size());
  if (!outputs.empty() && !inputs.empty()) {
    made = WalkGraph(outputs, gradients, inputs);
  }
  for (size_t i = 0; i < recording.late.size(); ++i) {
    recording.late[i].product.gradient = std::move(made[count + i]);
  }
  std::vector<at::Tensor> result;
  size_t next = 0;
  for (const Edge& input : recording.inputs) {
    at::Tensor& gradient = result.emplace_back();
    if (!input.is_valid()) continue;
    gradient = std::move(made[next++]);
    if (!gradient.defined()) {
      gradient = input.function->input_metadata(input.input_nr).zeros_like();
    }
  }
  recording.inputs.clear();
  recording.outputs.clear();
  return result;
}

absl::flat_hash_map<ValueId, WeightProduct> PreparedSegment::TakeProducts(
    SegmentRecording recording) {
  absl::flat_hash_map<ValueId, WeightProduct> products;
  for (LateProduct& late : recording.late) {
    TORCH_CHECK(late.product.input._version() == late.version,
                "a weight's gradient: its linear's input was written to since");
    if (late.product.gradient.defined()) {
      products[late.weight] = std::move(late.product);
    }
  }
  return products;
}

}  // namespace shardplane
