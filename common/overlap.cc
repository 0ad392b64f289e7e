#include "common/overlap.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "common/instruction_edits.h"

namespace shardplane {
namespace {

// Without a look at its values.
std::optional<RedistributeKind> KindOf(const Instruction& instruction,
                                       const DeviceMesh& mesh) {
  const auto of = [&mesh](const auto& step) {
    return mesh.dim_size(step.mesh_dim) > 1 ? std::optional(step.kind)
                                            : std::nullopt;
  };
  if (const auto* step = std::get_if<Redistribute>(&instruction)) {
    return of(*step);
  }
  if (const auto* bucket = std::get_if<Bucket>(&instruction)) {
    return of(*bucket);
  }
  return std::nullopt;
}

class Overlapper {
 public:
  Overlapper(const OverlapOptions& options, ShardedProgram* program)
      : options_(options),
        program_(*program),
        is_parameter_(program->values.size(), false) {
    for (const ParameterBinding& p : program->parameters) {
      is_parameter_[p.value] = true;
    }
  }

  void Run() {
    const int begin = program_.backward_begin;
    const int end = static_cast<int>(program_.instructions.size());
    if (options_.prefetch) {
      Prefetch(0, begin, /*backward=*/false);
      Prefetch(begin, end, /*backward=*/true);
    }
    if (options_.gradients) Gradients(begin, end);
    edits_.Apply(&program_);
  }

 private:
  // Instruction `i` begins at `begin` and is waited for at `end`.
  void Move(int i, int begin, int end, Bucket bucket) {
    edits_.Drop(i);
    edits_.InsertBefore(end, Wait{bucket.outputs});
    bucket.async = true;
    edits_.InsertBefore(begin, std::move(bucket));
  }

  // Whether this gathers parameters as they are stored, which can happen at any
  // time.
  bool CanBeAhead(int i) const {
    const Instruction& instruction = program_.instructions[i];
    if (KindOf(instruction, program_.mesh) != RedistributeKind::kAllGather) {
      return false;
    }
    return std::ranges::all_of(
        AsBucket(instruction)->inputs,
        [this](ValueId id) { return is_parameter_[id]; });
  }

  // A unit's gathers stand together, nothing computes between them. They begin
  // after those of the unit before; backward, the first ones at once.
  void Prefetch(int begin, int end, bool backward) {
    int unit_before = backward ? begin : -1;  // where its gathers end
    int unit = -1;                            // where this one's begin
    bool computed = false;  // since the unit before was gathered
    for (int i = begin; i < end; ++i) {
      if (Computes(program_.instructions[i])) {
        if (unit >= 0) unit_before = i;
        unit = -1;
        computed = true;
        continue;
      }
      if (!CanBeAhead(i)) continue;
      if (unit < 0) unit = i;
      if (unit_before < 0 || !computed) continue;
      Move(i, unit_before, i, *AsBucket(program_.instructions[i]));
    }
  }

  // A reduction ends where its results are used, the next one begins or the
  // phase ends. Where nothing computes until then it stays as it is.
  void Gradients(int begin, int end) {
    for (int i = begin; i < end; ++i) {
      if (!Reduces(i)) continue;
      const Bucket bucket = *AsBucket(program_.instructions[i]);
      bool computed = false;
      int until = i + 1;
      for (; until < end && !Reduces(until) && !Touches(until, bucket.outputs);
           ++until) {
        computed |= Computes(program_.instructions[until]);
      }
      if (computed) Move(i, i, until, bucket);
    }
  }
  bool Reduces(int i) const {
    const auto kind = KindOf(program_.instructions[i], program_.mesh);
    return kind == RedistributeKind::kAllReduce ||
           kind == RedistributeKind::kReduceScatter;
  }
  bool Touches(int i, const std::vector<ValueId>& ids) const {
    const std::vector<ValueId> touched =
        ValuesOf(program_, program_.instructions[i]);
    return std::any_of(ids.begin(), ids.end(), [&touched](ValueId id) {
      return std::find(touched.begin(), touched.end(), id) != touched.end();
    });
  }

  const OverlapOptions options_;
  ShardedProgram& program_;
  std::vector<bool> is_parameter_;
  InstructionEdits edits_;
};

}  // namespace

void Overlap(const OverlapOptions& options, ShardedProgram* program) {
  Overlapper(options, program).Run();
}

}  // namespace shardplane
