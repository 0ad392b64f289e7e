#include "common/run_memory.h"

#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/memory_ledger.h"
#include "common/segment_memory.h"
#include "common/tensor_spec.h"

namespace shardplane {
namespace {

using Block = MemoryLedger::Block;

// Runs a program's instructions on sizes alone.
class Player {
 public:
  Player(const ShardedProgram& program, absl::Span<const int> coordinate)
      : program_(program),
        coordinate_(coordinate),
        held_(program.values.size()),
        is_gradient_(program.values.size()),
        is_parameter_(program.values.size()),
        has_backward_(program.segments.size()),
        places_(program.values.size()) {
    shapes_.reserve(program.values.size());
    for (const Value& value : program.values) {
      shapes_.push_back(
          LocalShape(value.type.shape, value.spec, program.mesh, coordinate));
    }
    for (const ParameterBinding& parameter : program.parameters) {
      if (parameter.gradient < 0) continue;
      is_gradient_[parameter.gradient] = true;
      is_parameter_[parameter.value] = true;
    }
    for (const Instruction& instruction : program.instructions) {
      if (const auto* run = std::get_if<RunSegmentBackward>(&instruction)) {
        has_backward_[run->segment] = true;
      }
    }
    segments_.reserve(program.segments.size());
    for (const Segment& segment : program.segments) {
      segments_.emplace_back(program, segment, shapes_, is_parameter_, &places_,
                             &ledger_);
    }
    for (const Instruction& instruction : program.instructions) {
      if (const auto* run = std::get_if<RunWeightGradients>(&instruction)) {
        segments_[run->segment].SetLate(run->weights);
      }
    }
  }

  RunPeak Play() {
    for (const InputBinding& input : program_.inputs) {
      Make(input.value);
      ledger_.Hold(held_[input.value].block);  // who calls keeps them, too
    }
    for (const Instruction& instruction : program_.instructions) {
      std::visit([this](const auto& i) { Run(i); }, instruction);
    }
    return {ledger_.most_activations(), ledger_.most()};
  }

 private:
  // A collective of several tensors: all that is sent, all that comes.
  struct Begun {
    const Bucket* bucket = nullptr;
    Block joined = MemoryLedger::kNone;
    Block result = MemoryLedger::kNone;
  };

  int64_t Bytes(ValueId id) const {
    return NumElements(shapes_[id]) * ByteSize(program_.values[id].type.dtype);
  }
  bool IsAlone(int mesh_dim) const {
    return program_.mesh.dim_size(mesh_dim) == 1;
  }

  void Put(ValueId id, HeldValue value) {
    if (is_gradient_[id]) {
      ledger_.Reassign(value.block, MemoryLedger::Kind::kParameterGradient);
    }
    held_[id] = std::move(value);
  }
  void Make(ValueId id) {
    Put(id,
        {ledger_.Make(Bytes(id), is_gradient_[id]
                                     ? MemoryLedger::Kind::kParameterGradient
                                     : MemoryLedger::Kind::kActivation)});
  }
  void Share(ValueId from, ValueId to) {
    Put(to, {ledger_.Hold(held_[from].block), held_[from].order});
  }

  void Run(const RunSegment& run) {
    segments_[run.segment].Forward(
        has_backward_[run.segment] &&
            !program_.segments[run.segment].differentiable_outputs.empty(),
        &held_);
  }

  void Run(const RunSegmentBackward& run) {
    std::vector<Block> gradients;
    for (const ValueId id : run.output_gradients) {
      gradients.push_back(id < 0 ? MemoryLedger::kNone : held_[id].block);
    }
    const std::vector<Block> made = segments_[run.segment].Backward(gradients);
    for (size_t i = 0; i < run.input_gradients.size(); ++i) {
      if (run.input_gradients[i] < 0) {
        ledger_.Drop(made[i]);
      } else {
        Put(run.input_gradients[i], {made[i]});
      }
    }
  }

  void Run(const RunWeightGradients& run) {
    const std::vector<Block> made =
        segments_[run.segment].WeightGradients(run.weights);
    for (size_t i = 0; i < made.size(); ++i) Put(run.gradients[i], {made[i]});
  }

  // Whether narrowing along `dim` leaves one run of memory.
  bool IsOneRun(ValueId id, int dim) const {
    for (int d = 0; d < dim; ++d) {
      if (shapes_[id][d] != 1) return false;
    }
    return true;
  }

  // Whether what this rank cuts out lies together; of what is shared it keeps
  // what it was shared in.
  bool IsOneStretch(const Redistribute& step) const {
    const Blocks blocks =
        BlocksOf(program_.values[step.output].spec.placements[step.mesh_dim]);
    return blocks.empty() || PartOf(shapes_[step.input][step.to_dim], blocks,
                                    program_.mesh.dim_size(step.mesh_dim),
                                    coordinate_[step.mesh_dim])
                                     .size() <= 1;
  }

  void Run(const Redistribute& step) {
    const bool same = step.kind == RedistributeKind::kAlias ||
                      IsAlone(step.mesh_dim) ||
                      (step.kind == RedistributeKind::kMask &&
                       coordinate_[step.mesh_dim] == 0) ||
                      (step.kind == RedistributeKind::kSlice &&
                       IsOneRun(step.input, step.to_dim) && IsOneStretch(step));
    if (same) {
      Share(step.input, step.output);
    } else {
      Make(step.output);
    }
  }

  void Run(const Bucket& bucket) {
    if (IsAlone(bucket.mesh_dim)) {
      for (size_t i = 0; i < bucket.inputs.size(); ++i) {
        Share(bucket.inputs[i], bucket.outputs[i]);
      }
      return;
    }
    int64_t sent = 0;
    int64_t received = 0;
    for (size_t i = 0; i < bucket.inputs.size(); ++i) {
      sent += Bytes(bucket.inputs[i]);
      received += Bytes(bucket.outputs[i]);
    }
    const Begun begun{&bucket, ledger_.Make(sent), ledger_.Make(received)};
    if (!bucket.async) return End(begun);
    for (const ValueId id : bucket.outputs) begun_[id] = begun;
  }

  void Run(const Wait& wait) {
    for (const ValueId id : wait.values) {
      const auto found = begun_.find(id);
      if (found == begun_.end()) continue;
      const Begun begun = found->second;
      for (const ValueId output : begun.bucket->outputs) begun_.erase(output);
      End(begun);
    }
  }

  void End(const Begun& begun) {
    const Bucket& bucket = *begun.bucket;
    ledger_.Drop(begun.joined);
    for (const ValueId id : bucket.outputs) {
      if (bucket.again) {
        ledger_.Resume(held_[id].block);
      } else if (bucket.kind == RedistributeKind::kAllReduce) {
        Put(id, {ledger_.Hold(begun.result)});
      } else {
        Make(id);
      }
    }
    ledger_.Drop(begun.result);
  }

  void Run(const Reshard& reshard) {
    for (size_t i = 0; i < reshard.values.size(); ++i) {
      if (!reshard.outputs.empty()) Make(reshard.outputs[i]);
      ledger_.Suspend(held_[reshard.values[i]].block);
    }
  }

  void Run(const Accumulate& sum) {
    if (sum.inputs.size() == 1) return Share(sum.inputs[0], sum.output);
    Block block = MemoryLedger::kNone;
    for (size_t i = 1; i < sum.inputs.size(); ++i) {
      const Block next = ledger_.Make(Bytes(sum.output));
      ledger_.Drop(block);
      block = next;
    }
    Put(sum.output, {block});
  }

  void Run(const Ones&) {}  // made when the program is loaded

  void Run(const Free& free) {
    for (const ValueId id : free.values) {
      ledger_.Drop(std::exchange(held_[id], {}).block);
    }
  }

  const ShardedProgram& program_;
  absl::Span<const int> coordinate_;
  MemoryLedger ledger_;
  std::vector<Shape> shapes_;
  std::vector<HeldValue> held_;     // by value
  std::vector<bool> is_gradient_;   // of a parameter
  std::vector<bool> is_parameter_;  // that gets a gradient
  std::vector<bool> has_backward_;  // by segment
  std::vector<int> places_;
  std::vector<SegmentMemory> segments_;
  absl::flat_hash_map<ValueId, Begun> begun_;  // by output
};

}  // namespace

RunPeak PeakOfRun(const ShardedProgram& program,
                  absl::Span<const int> coordinate) {
  return Player(program, coordinate).Play();
}

}  // namespace shardplane
