#include "common/timeline.h"

#include <utility>
#include <variant>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/fqn.h"

namespace shardplane {
namespace {

std::string ModuleOf(const Segment& segment) {
  std::vector<std::string> fqns;
  for (const Op& op : segment.ops) fqns.push_back(op.fqn);
  return CommonModule(fqns);
}

class Summarizer {
 public:
  Summarizer(const ShardedProgram& program, absl::Span<const int> coordinate)
      : program_(program) {
    for (const Phase phase : {Phase::kForward, Phase::kBackward}) {
      for (const CollectiveRecord& record :
           Collectives(program, phase, coordinate)) {
        bytes_.push_back(CountedBytes(record));
      }
    }
  }

  std::vector<InstructionSummary> Run() {
    std::vector<InstructionSummary> all;
    for (const Instruction& instruction : program_.instructions) {
      index_ = static_cast<int>(all.size());
      all.push_back(
          std::visit([this](const auto& i) { return Of(i); }, instruction));
    }
    return all;
  }

 private:
  InstructionSummary Computes(absl::string_view what, int segment) const {
    return {.kind = SpanKind::kCompute,
            .name = absl::StrCat(what, segment),
            .module = ModuleOf(program_.segments[segment])};
  }
  InstructionSummary Of(const RunSegment& run) {
    return Computes("segment ", run.segment);
  }
  InstructionSummary Of(const RunSegmentBackward& run) {
    return Computes("backward of ", run.segment);
  }
  InstructionSummary Of(const RunWeightGradients& run) {
    return Computes("weight gradients of ", run.segment);
  }

  // A collective; along a mesh dim of one rank, and what is none, is local.
  InstructionSummary Moves(RedistributeKind kind, int mesh_dim, SpanKind as) {
    InstructionSummary summary{
        .name = absl::StrCat(ToString(kind), "[",
                             program_.mesh.dims()[mesh_dim].name, "]")};
    if (!IsCollective(kind) || program_.mesh.dim_size(mesh_dim) == 1) {
      return summary;
    }
    summary.kind = as;
    summary.bytes = bytes_[next_++];
    return summary;
  }
  InstructionSummary Of(const Redistribute& step) {
    return Moves(step.kind, step.mesh_dim, SpanKind::kCollective);
  }
  InstructionSummary Of(const Bucket& bucket) {
    if (bucket.async) started_[bucket.outputs[0]] = index_;
    return Moves(bucket.kind, bucket.mesh_dim,
                 bucket.async ? SpanKind::kStart : SpanKind::kCollective);
  }
  InstructionSummary Of(const Wait& wait) {
    InstructionSummary summary{.kind = SpanKind::kWait, .name = "wait"};
    for (const ValueId id : wait.values) {
      const auto found = started_.find(id);
      if (found != started_.end()) summary.started = found->second;
    }
    return summary;
  }
  InstructionSummary Of(const Reshard&) { return {.name = "reshard"}; }
  InstructionSummary Of(const Accumulate&) { return {.name = "accumulate"}; }
  InstructionSummary Of(const Ones&) { return {.name = "ones"}; }
  InstructionSummary Of(const Free&) { return {.name = "free"}; }

  const ShardedProgram& program_;
  std::vector<int64_t> bytes_;  // of the collectives, in order
  size_t next_ = 0;
  int index_ = 0;
  absl::flat_hash_map<ValueId, int> started_;  // by a bucket's first output
};

}  // namespace

std::vector<InstructionSummary> SummarizeInstructions(
    const ShardedProgram& program, absl::Span<const int> coordinate) {
  return Summarizer(program, coordinate).Run();
}

absl::StatusOr<Timeline> Describe(const RunTimeline& run,
                                  const ShardedProgram& program,
                                  absl::Span<const int> coordinate) {
  const std::vector<InstructionSummary> summaries =
      SummarizeInstructions(program, coordinate);
  Timeline timeline{.begin_unix = run.begin_unix};
  for (const InstructionSpan& span : run.spans) {
    if (span.instruction < 0 ||
        span.instruction >= static_cast<int>(summaries.size())) {
      return absl::InvalidArgumentError(
          absl::StrCat("a timeline: expected instructions below ",
                       summaries.size(), "; got: ", span.instruction));
    }
    timeline.spans.push_back({span, summaries[span.instruction]});
  }
  return timeline;
}

}  // namespace shardplane
