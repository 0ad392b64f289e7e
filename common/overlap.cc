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
        is_parameter_(program->values.size(), false),
        touched_(program->values.size(), 0) {
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
    if (options_.chunks) Reductions(0, begin);
    if (options_.gradients) Reductions(begin, end);
    if (options_.chunks) {
      GatherAhead(0, begin);
      GatherAhead(begin, end);
    }
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
  void Reductions(int begin, int end) {
    for (int i = begin; i < end; ++i) {
      if (!Reduces(i)) continue;
      const Bucket bucket = *AsBucket(program_.instructions[i]);
      bool computed = false;
      int until = i + 1;
      for (; until < end && !Reduces(until) && !Touches(until, bucket.outputs);
           ++until) {
        computed |= Computes(program_.instructions[until]);
      }
      if (!computed) continue;
      Move(i, i, until, bucket);
      waited_for_.push_back({until, bucket.outputs});
    }
  }

  // Other tensors are gathered while that runs which comes before, if nothing
  // has touched them since.
  void GatherAhead(int begin, int end) {
    int before = -1;  // the last one that computes
    auto waited_for = waited_for_.begin();
    for (int i = begin; i < end; ++i) {
      for (; waited_for != waited_for_.end() && waited_for->first <= i;
           ++waited_for) {
        Touch(waited_for->second, waited_for->first);
      }
      const Instruction& instruction = program_.instructions[i];
      if (before >= 0 && GathersOthers(i)) {
        const auto lies = [&](ValueId id) { return touched_[id] <= before; };
        Bucket bucket = *AsBucket(instruction);
        if (std::ranges::all_of(bucket.inputs, lies) &&
            std::ranges::all_of(bucket.outputs, lies)) {
          Move(i, before, i, std::move(bucket));
        }
      }
      Touch(ValuesOf(program_, instruction), i + 1);
      if (Computes(instruction)) before = i;
    }
  }
  bool GathersOthers(int i) const {
    return KindOf(program_.instructions[i], program_.mesh) ==
               RedistributeKind::kAllGather &&
           !CanBeAhead(i);
  }
  void Touch(const std::vector<ValueId>& ids, int place) {
    for (const ValueId id : ids) {
      if (id >= 0) touched_[id] = std::max(touched_[id], place);
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
  // Before which instruction it is as it was left, by value: after the last one
  // that touched it, or where it is waited for.
  std::vector<int> touched_;
  std::vector<std::pair<int, std::vector<ValueId>>> waited_for_;  // in order
  InstructionEdits edits_;
};

}  // namespace

void Overlap(const OverlapOptions& options, ShardedProgram* program) {
  Overlapper(options, program).Run();
}

}  // namespace shardplane
