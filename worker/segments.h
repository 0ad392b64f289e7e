// Operators between collectives, and their backward.
#ifndef SHARDPLANE_WORKER_SEGMENTS_H_
#define SHARDPLANE_WORKER_SEGMENTS_H_

#include <optional>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/sharded_program.h"
#include "torch/csrc/autograd/edge.h"
#include "worker/derivatives.h"
#include "worker/gradients.h"
#include "worker/nvtx_range.h"
#include "worker/operators.h"

namespace shardplane {

// A weight's gradient that the backward leaves out.
struct LateProduct {
  ValueId weight = 0;
  WeightProduct product;         // its gradient: from the backward on
  int64_t version = 0;           // of the op's input, when the op ran
  torch::autograd::Edge result;  // of the op; until the backward
};

// What a recorded run keeps for its backward: where the inputs that ask for a
// gradient, and the outputs that have one, stand in the graph, in the segment's
// order. Their memory is there only where an operator has kept it.
// Or, of a segment whose gradients the table of derivatives makes, what its
// formulas read.
struct SegmentRecording {
  std::vector<torch::autograd::Edge> inputs;   // invalid: comes with `late`
  std::vector<torch::autograd::Edge> outputs;  // invalid: asks for none
  std::vector<LateProduct> late;
  struct Input {
    at::DimVector sizes;
    at::TensorOptions options;
  };
  std::vector<Input> input_types;  // of those that ask for a gradient
  std::vector<KeptOp> kept;
};

enum class Recording { kOff, kOn };

// Immutable once created. Both calls throw what torch throws.
class PreparedSegment {
 public:
  // `late`: weights whose gradients TakeProducts tells. With `values`, the
  // program's, autograd is left out where it can be (worker/derivatives): the
  // same bits. NotFound,
  // InvalidArgument: as PreparedOp, and a late weight that is not the weight of
  // one aten.linear.default alone.
  static absl::StatusOr<PreparedSegment> Create(
      const Segment& segment, const OperatorContext& context,
      const std::vector<ValueId>& late = {},
      absl::Span<const Value> values = {});

  // Whether autograd is left out.
  bool is_derived() const { return derived_.has_value(); }

  // Reads its inputs from `values` (by value id) and stores its outputs there,
  // detached. With kOn the operators run on detached inputs that ask for a
  // gradient, and what the backward needs is returned.
  SegmentRecording Forward(absl::Span<at::Tensor> values,
                           Recording recording) const;

  // One gradient for each differentiable input, from those of the
  // differentiable outputs (undefined: none reaches it). Zeros where nothing
  // reaches an input; undefined where it is late. Of the recording, one of this
  // segment, only late products are left.
  std::vector<at::Tensor> Backward(
      SegmentRecording& recording,
      absl::Span<const at::Tensor> output_gradients) const;

  // After Backward: the gradients of late weights, of those that any reaches.
  // Ends the recording.
  static absl::flat_hash_map<ValueId, WeightProduct> TakeProducts(
      SegmentRecording recording);

 private:
  PreparedSegment() = default;

  static absl::StatusOr<std::vector<Slot>> SlotsOf(
      const std::vector<ValueId>& ids,
      absl::FunctionRef<Slot(ValueId)> slot_of);

  struct Input {
    ValueId value = 0;
    bool differentiable = false;
  };
  struct LateOp {
    size_t op = 0;
    ValueId weight = 0;
    Slot input = kNoSlot;
    Slot result = kNoSlot;
  };
  absl::Status FindLateOps(const Segment& segment,
                           const std::vector<ValueId>& late);
  SegmentRecording ForwardDerived(absl::Span<at::Tensor> values) const;
  std::vector<at::Tensor> BackwardDerived(
      SegmentRecording& recording,
      absl::Span<const at::Tensor> output_gradients) const;
  std::vector<Input> inputs_;  // slot i holds input i
  std::vector<PreparedOp> ops_;
  NvtxNames names_;               // by op
  std::vector<LateOp> late_ops_;  // in the order of the ops
  std::vector<std::pair<ValueId, Slot>> outputs_;
  std::vector<Slot> differentiable_inputs_;
  std::vector<Slot> differentiable_outputs_;
  int num_slots_ = 0;
  std::optional<DerivedOps> derived_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SEGMENTS_H_
