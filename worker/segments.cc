#include "worker/segments.h"

#include <algorithm>
#include <set>

#include "ATen/ATen.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "torch/csrc/autograd/grad_mode.h"
#include "worker/graph_walk.h"

namespace shardplane {
namespace {

bool Contains(const std::vector<ValueId>& ids, ValueId id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

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

absl::StatusOr<PreparedSegment> PreparedSegment::Create(
    const Segment& segment, const OperatorContext& context) {
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
        {id, Contains(segment.differentiable_inputs, id)});
  }
  for (const Op& op : segment.ops) {
    for (const ValueId id : op.results) add_slot(id);
    SP_ASSIGN_OR_RETURN(PreparedOp prepared_op,
                        PreparedOp::Create(op, context, slot_of));
    prepared.ops_.push_back(std::move(prepared_op));
  }
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
  return prepared;
}

SegmentRecording PreparedSegment::Forward(absl::Span<at::Tensor> values,
                                          Recording recording) const {
  const bool record =
      recording == Recording::kOn && !differentiable_outputs_.empty();
  const at::AutoGradMode grad_mode(record);
  std::vector<at::Tensor> frame(num_slots_);
  for (size_t i = 0; i < inputs_.size(); ++i) {
    frame[i] = values[inputs_[i].value];
    if (!record) continue;
    frame[i] = Detached(frame[i]);
    if (inputs_[i].differentiable) frame[i].requires_grad_(true);
  }
  for (const PreparedOp& op : ops_) {
    op.Call(absl::MakeSpan(frame));
    for (const Slot slot : op.last_uses) frame[slot].reset();
  }
  for (const auto& [id, slot] : outputs_) {
    values[id] = record ? Detached(frame[slot]) : frame[slot];
  }
  SegmentRecording kept;
  if (!record) return kept;
  for (const Slot slot : differentiable_inputs_) {
    kept.inputs.push_back(frame[slot]);
  }
  for (const Slot slot : differentiable_outputs_) {
    kept.outputs.push_back(frame[slot]);
  }
  return kept;
}

std::vector<at::Tensor> PreparedSegment::Backward(
    SegmentRecording recording, absl::Span<const at::Tensor> output_gradients) {
  TORCH_CHECK(output_gradients.size() == recording.outputs.size(),
              "a segment's backward: expected gradients of ",
              recording.outputs.size(),
              " recorded outputs, got: ", output_gradients.size());
  std::vector<at::Tensor> outputs;
  std::vector<at::Tensor> gradients;
  for (size_t i = 0; i < output_gradients.size(); ++i) {
    if (!output_gradients[i].defined() ||
        !recording.outputs[i].requires_grad()) {
      continue;
    }
    outputs.push_back(recording.outputs[i]);
    gradients.push_back(output_gradients[i]);
  }
  std::vector<at::Tensor> result(recording.inputs.size());
  if (!outputs.empty() && !recording.inputs.empty()) {
    result = WalkGraph(outputs, gradients, recording.inputs);
  }
  for (size_t i = 0; i < result.size(); ++i) {
    if (!result[i].defined()) result[i] = at::zeros_like(recording.inputs[i]);
  }
  return result;
}

}  // namespace shardplane
