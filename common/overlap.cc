#include "common/overlap.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

namespace shardplane {
namespace {

bool Computes(const Instruction& instruction) {
  return std::holds_alternative<RunSegment>(instruction) ||
         std::holds_alternative<RunSegmentBackward>(instruction);
}

// A collective as a bucket.
std::optional<Bucket> BucketOf(const Instruction& instruction) {
  if (const auto* bucket = std::get_if<Bucket>(&instruction)) return *bucket;
  const auto* step = std::get_if<Redistribute>(&instruction);
  if (step == nullptr || step->kind > RedistributeKind::kReduceScatter) {
    return std::nullopt;
  }
  Bucket bucket{.kind = step->kind,
                .mesh_dim = step->mesh_dim,
                .op = step->op,
                .inputs = {step->input},
                .outputs = {step->output}};
  if (step->from_dim >= 0) bucket.dims = {step->from_dim};
  if (step->to_dim >= 0) bucket.dims = {step->to_dim};
  return bucket;
}

// Instructions of one phase, with what comes before each.
class Schedule {
 public:
  Schedule(int begin, int end) : begin_(begin), before_(end - begin + 1) {}

  void InsertBefore(int i, Instruction instruction) {
    before_[i - begin_].push_back(std::move(instruction));
  }
  std::vector<Instruction>& before(int i) { return before_[i - begin_]; }

 private:
  int begin_;
  std::vector<std::vector<Instruction>> before_;
};

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
    const int size = static_cast<int>(program_.instructions.size());
    Phase(0, program_.backward_begin, /*backward=*/false);
    const int backward_begin = static_cast<int>(written_.size());
    Phase(program_.backward_begin, size, /*backward=*/true);
    program_.instructions = std::move(written_);
    program_.backward_begin = backward_begin;
  }

 private:
  void Phase(int begin, int end, bool backward) {
    Schedule schedule(begin, end);
    if (options_.prefetch) Prefetch(begin, end, backward, &schedule);
    if (options_.gradients && backward) Gradients(begin, end, &schedule);
    for (int i = begin; i <= end; ++i) {
      for (Instruction& instruction : schedule.before(i)) {
        written_.push_back(std::move(instruction));
      }
      if (i < end && !IsMoved(program_.instructions[i])) {
        written_.push_back(std::move(program_.instructions[i]));
      }
    }
  }

  // Its place is taken by its beginning and its end.
  static bool IsMoved(const Instruction& instruction) {
    const auto* bucket = std::get_if<Bucket>(&instruction);
    return bucket != nullptr && bucket->inputs.empty();
  }
  Bucket Take(int i) {
    Bucket bucket = *BucketOf(program_.instructions[i]);
    bucket.async = true;
    program_.instructions[i] = Bucket{};
    return bucket;
  }
  bool IsAlone(const Bucket& bucket) const {
    return program_.mesh.dim_size(bucket.mesh_dim) == 1;
  }

  // Whether this gathers parameters as they are stored, which can happen at any
  // time.
  bool CanBeAhead(const Bucket& bucket) const {
    return bucket.kind == RedistributeKind::kAllGather && !IsAlone(bucket) &&
           std::all_of(bucket.inputs.begin(), bucket.inputs.end(),
                       [this](ValueId id) { return is_parameter_[id]; });
  }

  // A unit's gathers stand together, nothing computes between them. They begin
  // after those of the unit before; backward, the first ones at once.
  void Prefetch(int begin, int end, bool backward, Schedule* schedule) {
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
      const std::optional<Bucket> bucket = BucketOf(program_.instructions[i]);
      if (!bucket.has_value() || !CanBeAhead(*bucket)) continue;
      if (unit < 0) unit = i;
      if (unit_before < 0 || !computed) continue;
      const std::vector<ValueId> outputs = bucket->outputs;
      schedule->InsertBefore(unit_before, Take(i));
      schedule->InsertBefore(i, Wait{outputs});
    }
  }

  // A reduction ends where its results are used, the next one begins or the
  // phase ends. Where nothing computes until then it stays as it is.
  void Gradients(int begin, int end, Schedule* schedule) {
    for (int i = begin; i < end; ++i) {
      if (!Reduces(i)) continue;
      const std::vector<ValueId> outputs =
          BucketOf(program_.instructions[i])->outputs;
      bool computed = false;
      int until = i + 1;
      for (; until < end && !Reduces(until) && !Touches(until, outputs);
           ++until) {
        computed |= Computes(program_.instructions[until]);
      }
      if (!computed) continue;
      schedule->InsertBefore(i, Take(i));
      schedule->InsertBefore(until, Wait{outputs});
    }
  }
  bool Reduces(int i) const {
    const std::optional<Bucket> bucket = BucketOf(program_.instructions[i]);
    return bucket.has_value() && !bucket->inputs.empty() && !IsAlone(*bucket) &&
           bucket->kind != RedistributeKind::kAllGather;
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
  std::vector<Instruction> written_;
};

}  // namespace

void Overlap(const OverlapOptions& options, ShardedProgram* program) {
  Overlapper(options, program).Run();
}

}  // namespace shardplane
