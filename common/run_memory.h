// How much memory a run of a program takes at one time, by playing it through
// on sizes alone.
#ifndef SHARDPLANE_COMMON_RUN_MEMORY_H_
#define SHARDPLANE_COMMON_RUN_MEMORY_H_

#include <cstdint>

#include "absl/types/span.h"
#include "common/sharded_program.h"

namespace shardplane {

// Beyond what is there before the run: parameters, buffers, and what earlier
// runs have left. Bytes that tensors ask for on the host's allocator, at the
// moment when they are most.
struct RunPeak {
  // Inputs, activations, what autograd keeps of them (common/op_memory), and
  // gradients of activations.
  int64_t activations = 0;
  // The same and the gradients of parameters that are made by then: what a
  // worker measures.
  int64_t run = 0;
  friend bool operator==(const RunPeak&, const RunPeak&) = default;
};

// A value lives from the instruction that makes it to the Free that names it,
// inputs to the end of the run; views share their memory; what a recorded
// segment keeps lives until its backward has run. Of collectives, what shared
// memory needs: no staging.
RunPeak PeakOfRun(const ShardedProgram& program,
                  absl::Span<const int> coordinate);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_RUN_MEMORY_H_
