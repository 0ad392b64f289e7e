// The memory of one segment, forward and backward, op by op. Used by
// run_memory.cc.
#ifndef SHARDPLANE_COMMON_SEGMENT_MEMORY_H_
#define SHARDPLANE_COMMON_SEGMENT_MEMORY_H_

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
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
  // By value: local shapes, and whether its gradient is a parameter's. All
  // borrowed.
  SegmentMemory(const ShardedProgram& program, const Segment& segment,
                const std::vector<Shape>& shapes,
                const std::vector<bool>& is_parameter, MemoryLedger* ledger)
      : program_(program),
        segment_(segment),
        shapes_(shapes),
        is_parameter_(is_parameter),
        ledger_(ledger) {}

  // Reads inputs from `held`, by value, and puts outputs there. With `record`
  // what the backward needs stays until Backward.
  void Forward(bool record, std::vector<HeldValue>* held);
  // Blocks of the input gradients, one for each differentiable input, held for
  // the caller; from those of the output gradients (kNone: none reaches it).
  std::vector<MemoryLedger::Block> Backward(
      absl::Span<const MemoryLedger::Block> output_gradients);

 private:
  using Block = MemoryLedger::Block;
  struct Node {  // an op that is recorded
    const Op* op = nullptr;
    const OpMemory* memory = nullptr;
    std::vector<ValueId> operands;
    std::vector<Block> kept;
  };

  int64_t Bytes(ValueId id) const;
  int64_t Scaled(double factor, ValueId id) const;
  bool Asks(ValueId id) const { return asking_.contains(id); }
  void Run(const Op& op, bool record);
  HeldValue ResultOf(const Op& op, const OpMemory& memory,
                     absl::Span<const ValueId> operands, ValueId result);
  bool AsksForGradient(const Op& op, absl::Span<const ValueId> operands);
  void RunOps(bool record);
  bool AnotherAsks(const Node& node, size_t index) const;
  bool Keeps(const Node& node, size_t index) const;
  void KeepFor(Node* node);
  Block KeptOperand(const Node& node, size_t index);
  Block MakeGradient(ValueId id);
  Block GradientOf(const Node& node, ValueId id, Block reached);
  void RunBack(Node* node);
  void AddGradient(ValueId id, Block block);

  const ShardedProgram& program_;
  const Segment& segment_;
  const std::vector<Shape>& shapes_;
  const std::vector<bool>& is_parameter_;
  MemoryLedger* ledger_;
  absl::flat_hash_map<ValueId, HeldValue> frame_;
  absl::flat_hash_set<ValueId> asking_;  // for a gradient
  std::vector<Node> nodes_;
  std::vector<Block> recording_;
  absl::flat_hash_map<ValueId, Block> gradients_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_SEGMENT_MEMORY_H_
