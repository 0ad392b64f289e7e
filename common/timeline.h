// What a rank did when.
#ifndef SHARDPLANE_COMMON_TIMELINE_H_
#define SHARDPLANE_COMMON_TIMELINE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/sharded_program.h"

namespace shardplane {

// One instruction of a program, as a rank has run it. In nanoseconds.
struct InstructionSpan {
  int instruction = 0;
  int64_t begin = 0;  // since the run began
  int64_t duration = 0;
  friend bool operator==(const InstructionSpan&,
                         const InstructionSpan&) = default;
};
struct RunTimeline {
  int64_t begin_unix = 0;  // by the clock of the rank's host
  std::vector<InstructionSpan> spans;
  friend bool operator==(const RunTimeline&, const RunTimeline&) = default;
};

enum class SpanKind {
  kCompute = 1,  // operators, or their backward
  kCollective,   // from its start to its end
  kStart,        // of a collective that goes on beside what follows
  kWait,         // until such a one has ended
  kLocal,        // slices, sums of gradients, freed memory
};

// What an instruction is, for readers.
struct InstructionSummary {
  SpanKind kind = SpanKind::kLocal;
  std::string name;    // "segment 3", "all_reduce[tp]"
  std::string module;  // the nearest that holds its operators
  int64_t bytes = 0;   // of a collective, as it is counted
  int started = -1;    // of a wait: the instruction that it waits for
  friend bool operator==(const InstructionSummary&,
                         const InstructionSummary&) = default;
};

// By instruction, for the rank at `coordinate`.
std::vector<InstructionSummary> SummarizeInstructions(
    const ShardedProgram& program, absl::Span<const int> coordinate);

// A timeline that tells what ran.
struct TimelineSpan {
  InstructionSpan when;
  InstructionSummary what;
  friend bool operator==(const TimelineSpan&, const TimelineSpan&) = default;
};
struct Timeline {
  int64_t begin_unix = 0;
  std::vector<TimelineSpan> spans;
  friend bool operator==(const Timeline&, const Timeline&) = default;
};

// InvalidArgument: a span of an instruction that the program does not have.
absl::StatusOr<Timeline> Describe(const RunTimeline& run,
                                  const ShardedProgram& program,
                                  absl::Span<const int> coordinate);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_TIMELINE_H_
