// Where the values of a program come from and go to. Used by
// collective_causes.cc.
#ifndef SHARDPLANE_COMMON_VALUE_FLOW_H_
#define SHARDPLANE_COMMON_VALUE_FLOW_H_

#include <deque>
#include <string>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "common/sharded_program.h"

namespace shardplane {

// Of the forward pass; borrows the program.
class ValueFlow {
 public:
  explicit ValueFlow(const ShardedProgram& program);
  ValueFlow(const ValueFlow&) = delete;
  ValueFlow& operator=(const ValueFlow&) = delete;

  const ShardedProgram& program() const { return program_; }

  // The op or the redistribution that makes a value; nullptr: neither does.
  const Op* MadeBy(ValueId id) const { return values_[id].op; }
  const Redistribute* MovedBy(ValueId id) const { return values_[id].move; }
  // What a value is before all redistributions.
  ValueId Origin(ValueId id) const;
  // The parameter that a value is, redistributed or not; nullptr: none.
  const ParameterBinding* ParameterOf(ValueId id) const;
  // The ops that use a value, redistributed or not, in program order.
  std::vector<const Op*> Users(ValueId id) const;

  // Whether a value is of the forward pass, or made anew of such.
  bool IsForward(ValueId id) const { return values_[id].forward; }
  // The forward value that a gradient is of; -1: no gradient.
  ValueId GradientOf(ValueId gradient) const {
    return values_[gradient].gradient_of;
  }
  // The forward redistribution whose way back `step` is; nullptr where there
  // is none. `step` is of the backward pass.
  const Redistribute* TransposeOf(const Redistribute& step) const;

 private:
  struct Facts {
    bool forward = false;  // or made anew of such
    const Op* op = nullptr;
    const Redistribute* move = nullptr;
    int parameter = -1;
    ValueId gradient_of = -1;
    absl::InlinedVector<const Op*, 1> users;
    absl::InlinedVector<ValueId, 2> moved_to;
  };

  void ReadForward(const Instruction& instruction);
  void ReadMove(const Redistribute& move);  // which stays where it is
  bool IsRecomputed(const Instruction& instruction) const;
  void ReadBackward(const Instruction& instruction);
  ValueId GradientTarget(const Redistribute& step) const;

  const ShardedProgram& program_;
  std::vector<Facts> values_;
  std::deque<Redistribute> of_buckets_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_VALUE_FLOW_H_
