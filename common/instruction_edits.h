// How a pass reads and changes the instructions of a program.
#ifndef SHARDPLANE_COMMON_INSTRUCTION_EDITS_H_
#define SHARDPLANE_COMMON_INSTRUCTION_EDITS_H_

#include <optional>
#include <vector>

#include "common/sharded_program.h"

namespace shardplane {

// Collected first, by the places of the instructions as they are, and applied
// together. What is inserted belongs to the phase of the instruction that it
// stands beside; before the end, to the last phase. At one place the first that
// was asked for comes first.
class InstructionEdits {
 public:
  void InsertBefore(int i, Instruction instruction);
  void InsertAfter(int i, Instruction instruction);
  void Drop(int i);

  // Call once, last.
  void Apply(ShardedProgram* program);

 private:
  struct Insertion {
    int place = 0;  // 2 i before instruction i, 2 i + 1 after it
    Instruction instruction;
  };
  std::vector<Insertion> insertions_;
  std::vector<int> dropped_;
};

// Whether operators run in it, or their backward.
bool Computes(const Instruction& instruction);

// A collective of a kind that buckets have, as a bucket, if need be of one;
// nullopt: another instruction.
std::optional<Bucket> AsBucket(const Instruction& instruction);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_INSTRUCTION_EDITS_H_
