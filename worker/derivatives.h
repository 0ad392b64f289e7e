// Gradients of a segment's operators without autograd: for segments of a few
// common ones, whose kernels cost less than recording and walking a graph.
#ifndef SHARDPLANE_WORKER_DERIVATIVES_H_
#define SHARDPLANE_WORKER_DERIVATIVES_H_

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "c10/core/Scalar.h"
#include "common/sharded_program.h"
#include "worker/operators.h"

namespace shardplane {

inline constexpr int kMaxOperands = 3;

// What the forward keeps of one op, as autograd would.
struct KeptOp {
  std::array<at::Tensor, kMaxOperands> operands;  // those its formula reads
  std::array<int64_t, kMaxOperands> versions = {};
  at::Tensor result;  // if its formula reads it
  std::array<at::DimVector, kMaxOperands> sizes;
  bool by_columns = false;  // the first operand lies so
};

// One op whose gradient a formula of the table makes.
struct DerivedOp {
  struct Row;  // of the table
  const Row* row = nullptr;
  c10::Scalar scalar;                            // pow's exponent
  std::array<Slot, kMaxOperands> operands = {};  // kNoSlot: there is none
  std::array<bool, kMaxOperands> wanted = {};    // asks for a gradient
  Slot result = kNoSlot;
};

// The ops of a segment that pass gradients on. Immutable.
class DerivedOps {
 public:
  // `values`: the program's. `late`: inputs whose gradients are not asked for.
  // nullopt: some op's gradient is autograd's to make. The table has linear (of
  // matrices), relu, add and sub (without alpha), mul, pow by a number, mean
  // and sum over all, of one type, f32 or f64.
  static std::optional<DerivedOps> Create(
      const Segment& segment, absl::Span<const Value> values,
      const std::vector<ValueId>& late,
      absl::FunctionRef<Slot(ValueId)> slot_of);

  // Calls op `i` of the segment on its frame; what its gradient needs, if it
  // has one, is added to `kept`. Throws what torch throws, as do all.
  void Call(size_t i, const PreparedOp& op, absl::Span<at::Tensor> frame,
            std::vector<KeptOp>& kept) const;

  // `gradients`, by slot: those of the outputs, then bit for bit what autograd
  // makes of all that asks for one; undefined where nothing reaches. Those of
  // `watched` slots, which are results, stay there. Ends `kept`.
  void Backward(std::vector<KeptOp> kept, absl::Span<const Slot> watched,
                std::vector<at::Tensor>& gradients) const;

 private:
  std::vector<int> index_;  // by op: in derived_, or -1
  std::vector<DerivedOp> derived_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_DERIVATIVES_H_
