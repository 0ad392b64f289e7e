// In whose memory the values of a forward pass lie. Used by reshard.cc.
#ifndef SHARDPLANE_COMMON_VALUE_MEMORY_H_
#define SHARDPLANE_COMMON_VALUE_MEMORY_H_

#include <vector>

#include "absl/container/inlined_vector.h"
#include "common/sharded_program.h"

namespace shardplane {

// Whether results may lie in the memory of operands. Of operators that the
// table (common/op_memory) lacks nobody knows.
bool MayShareMemory(const Op& op);

// Follows those values alone that may own memory: results of collectives and of
// ops that write new tensors. Values that the table of ops cannot tell about
// lie in all that they may lie in.
class ValueMemory {
 public:
  using Owners = absl::InlinedVector<ValueId, 1>;

  // `may_own`: by value. Of a program that frees nothing yet.
  ValueMemory(const ShardedProgram& program, std::vector<bool> may_own);

  // What a value may lie in: itself, others, or nothing that is followed.
  const Owners& OwnersOf(ValueId id) const { return owners_[id]; }
  // Whether a value that outlives the owner's last use may lie in it: an
  // output of a segment that is a part of it, a result of the program.
  bool IsPinned(ValueId owner) const { return pinned_[owner]; }

 private:
  void Pin(ValueId id);
  void Read(const Redistribute& step);
  void Read(const Bucket& bucket);
  void Read(const Segment& segment);
  void PinResults();

  const ShardedProgram& program_;
  std::vector<bool> may_own_;
  std::vector<Owners> owners_;
  std::vector<bool> pinned_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_VALUE_MEMORY_H_
