// Operators between collectives, and their backward.
#ifndef SHARDPLANE_WORKER_SEGMENTS_H_
#define SHARDPLANE_WORKER_SEGMENTS_H_

#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/sharded_program.h"
#include "worker/operators.h"

namespace shardplane {

// What a recorded run keeps for its backward: the detached inputs that ask for
// a gradient, and the outputs that have one, in the segment's order.
struct SegmentRecording {
  std::vector<at::Tensor> inputs;
  std::vector<at::Tensor> outputs;
  bool empty() const { return inputs.empty() && outputs.empty(); }
};

enum class Recording { kOff, kOn };

// Immutable once created. Both calls throw what torch throws.
class PreparedSegment {
 public:
  // NotFound, InvalidArgument: as PreparedOp.
  static absl::StatusOr<PreparedSegment> Create(const Segment& segment,
                                                const OperatorContext& context);

  // Reads its inputs from `values` (by value id) and stores its outputs there,
  // detached. With kOn the operators run on detached inputs that ask for a
  // gradient, and what the backward needs is returned.
  SegmentRecording Forward(absl::Span<at::Tensor> values,
                           Recording recording) const;

  // One gradient for each differentiable input, from those of the
  // differentiable outputs (undefined: none reaches it). Zeros where nothing
  // reaches an input. Ends the recording.
  static std::vector<at::Tensor> Backward(
      SegmentRecording recording,
      absl::Span<const at::Tensor> output_gradients);

 private:
  PreparedSegment() = default;

  static absl::StatusOr<std::vector<Slot>> SlotsOf(
      const std::vector<ValueId>& ids,
      absl::FunctionRef<Slot(ValueId)> slot_of);

  struct Input {
    ValueId value = 0;
    bool differentiable = false;
  };
  std::vector<Input> inputs_;  // slot i holds input i
  std::vector<PreparedOp> ops_;
  std::vector<std::pair<ValueId, Slot>> outputs_;
  std::vector<Slot> differentiable_inputs_;
  std::vector<Slot> differentiable_outputs_;
  int num_slots_ = 0;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SEGMENTS_H_
