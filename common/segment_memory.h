// The memory of one segment, forward and backward, op by op. Used by
// run_memory.cc.
#ifndef SHARDPLANE_COMMON_SEGMENT_MEMORY_H_
#define SHARDPLANE_COMMON_SEGMENT_MEMORY_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/types/span.h"
#include "common/memory_ledger.h"
#include "common/op_memory.h"
#include "common/sharded_program.h"

namespace shardplane {

// A tensor's memory, and in which order its dims lie in it.
struct HeldValue {
  MemoryLedger::Block block = MemoryLedger::kNone;
  std::vector<int> order = {};  // dims, outermost first; empty: as they stand
};

// What a segment that was recorded keeps until its backward.
class SegmentMemory {
 public:
  // By value: local shapes, whether its gradient is a parameter's, and room for
  // a number, which segments may share. All borrowed.
  SegmentMemory(const ShardedProgram& program, const Segment& segment,
                const std::vector<Shape>& shapes,
                const std::vector<bool>& is_parameter, std::vector<int>* places,
                MemoryLedger* ledger)
      : program_(program),
        segment_(segment),
        shapes_(shapes),
        is_parameter_(is_parameter),
        places_(*places),
        ledger_(ledger) {}

  // Reads inputs from `held`, by value, and puts outputs there. With `record`
  // what the backward needs stays until Backward.
  void Forward(bool record, std::vector<HeldValue>* held);
  // Blocks of the input gradients, one for each differentiable input, held for
  // the caller; from those of the output gradients (kNone: none reaches it).
  std::vector<MemoryLedger::Block> Backward(
      absl::Span<const MemoryLedger::Block> output_gradients);

  // Before the first Forward: weights whose gradients Backward leaves out
  // (kNone) and WeightGradients makes, one each, held for the caller.
  void SetLate(absl::Span<const ValueId> weights) {
    late_.insert(weights.begin(), weights.end());
  }
  std::vector<MemoryLedger::Block> WeightGradients(
      absl::Span<const ValueId> weights);

 private:
  using Block = MemoryLedger::Block;
  // A value of this segment, by its index in `ids_`.
  using Place = int;
  struct Node {
    const Op* op = nullptr;
    const OpMemory* memory = nullptr;
    std::vector<Place> operands;
    std::vector<Place> results;
    std::vector<Block> kept;
  };

  ValueId IdOf(Place place) const { return ids_[place]; }
  Place PlaceOf(ValueId id) const { return places_[id]; }
  const Shape& ShapeOf(Place place) const { return shapes_[IdOf(place)]; }
  void FindPlaces();
  int64_t Bytes(Place place) const;
  int64_t Scaled(double factor, Place place) const;
  bool Asks(Place place) const { return asking_[place]; }
  void Run(Node* node, bool record);
  HeldValue ResultOf(const Node& node, Place result);
  bool AsksForGradient(const Node& node) const;
  void RunOps(bool record);
  bool IsLate(const Node& node) const;
  void KeepFor(Node* node);
  Block KeptOperand(const Node& node, size_t index);
  Block MakeGradient(Place place);
  Block GradientOf(const Node& node, Place operand, Block reached);
  void RunBack(Node* node);
  void AddGradient(Place place, Block block);

  const ShardedProgram& program_;
  const Segment& segment_;
  const std::vector<Shape>& shapes_;
  const std::vector<bool>& is_parameter_;
  std::vector<int>& places_;  // by value; ours while a call runs
  MemoryLedger* ledger_;
  std::vector<ValueId> ids_;      // inputs, then results of ops
  std::vector<HeldValue> frame_;  // by place, like those that follow
  std::vector<bool> asking_;      // for a gradient
  std::vector<std::optional<Block>> gradients_;
  std::vector<Node> nodes_;  // the ops that are recorded
  absl::flat_hash_set<ValueId> late_;
  std::vector<Block> late_inputs_;     // of their ops
  std::vector<Block> late_gradients_;  // of their ops' results
};

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_SEGMENT_MEMORY_H_
