#include "common/reshard.h"

#include <algorithm>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/op_memory.h"
#include "common/op_values.h"

namespace shardplane {
namespace {

// An all_gather as a bucket; of other instructions one without inputs.
Bucket GatherOf(const Instruction& instruction) {
  if (const auto* bucket = std::get_if<Bucket>(&instruction)) {
    if (bucket->kind == RedistributeKind::kAllGather) return *bucket;
  }
  const auto* step = std::get_if<Redistribute>(&instruction);
  if (step == nullptr || step->kind != RedistributeKind::kAllGather) return {};
  return {.kind = step->kind,
          .mesh_dim = step->mesh_dim,
          .inputs = {step->input},
          .outputs = {step->output},
          .dims = {step->from_dim}};
}

// Whether results may lie in the memory of operands. Of operators that the
// table lacks nobody knows.
bool MayShare(const Op& op) {
  const OpMemory& memory = MemoryOf(op.target);
  return memory.name.empty() || memory.result != ResultMemory::kNew;
}

class Resharder {
 public:
  Resharder(const std::vector<bool>& mesh_dims, ShardedProgram* program)
      : mesh_dims_(mesh_dims),
        program_(*program),
        weights_(program->values.size()) {}

  void Run() {
    for (const ParameterBinding& p : program_.parameters) {
      weights_[p.value].is_parameter = true;
    }
    for (int i = 0; i < program_.backward_begin; ++i) ReadForward(i);
    PinResults();
    const int size = static_cast<int>(program_.instructions.size());
    for (int i = program_.backward_begin; i < size; ++i) ReadBackward(i);
    for (int i = last_gather_; i >= 0; --i) PlanGather(i);
    Write();
  }

 private:
  struct Weight {
    bool is_parameter = false;  // or gathered of one
    ValueId memory = -1;        // the gathered parameter that it lies in
    // Of a gathered parameter itself.
    bool pinned = false;
    int last_use = -1;        // forward; by instruction
    int first_backward = -1;  // -1: none needs it
  };

  // The gathered parameter that a value is; nullptr: none.
  Weight* MemoryOfValue(ValueId id) {
    return weights_[id].memory < 0 ? nullptr : &weights_[weights_[id].memory];
  }
  void Pin(ValueId id) {
    if (id < 0) return;
    if (Weight* weight = MemoryOfValue(id)) weight->pinned = true;
  }

  void ReadForward(int i) {
    const Instruction& instruction = program_.instructions[i];
    for (const ValueId id : ValuesOf(program_, instruction)) {
      if (Weight* weight = MemoryOfValue(id)) weight->last_use = i;
    }
    const Bucket gather = GatherOf(instruction);
    for (size_t k = 0; k < gather.inputs.size(); ++k) {
      if (!weights_[gather.inputs[k]].is_parameter) continue;
      Weight& weight = weights_[gather.outputs[k]];
      weight = {.is_parameter = true, .memory = gather.outputs[k]};
      weight.last_use = i;
      weight.pinned = !mesh_dims_[gather.mesh_dim] ||
                      program_.mesh.dim_size(gather.mesh_dim) == 1;
      last_gather_ = i;
    }
    if (const auto* step = std::get_if<Redistribute>(&instruction)) {
      ReadMove(*step);
    } else if (const auto* run = std::get_if<RunSegment>(&instruction)) {
      ReadSegment(program_.segments[run->segment]);
    }
  }

  void ReadMove(const Redistribute& step) {
    if (IsCollective(step.kind)) return;
    if (step.kind == RedistributeKind::kAlias) {
      weights_[step.output] = {
          .is_parameter = weights_[step.input].is_parameter,
          .memory = weights_[step.input].memory};
    } else {
      Pin(step.input);
    }
  }

  void ReadSegment(const Segment& segment) {
    absl::flat_hash_map<ValueId, std::vector<ValueId>> shares;
    for (const ValueId id : segment.inputs) {
      if (weights_[id].memory >= 0) shares[id] = {id};
    }
    if (shares.empty()) return;
    for (const Op& op : segment.ops) {
      if (!MayShare(op)) continue;
      std::vector<ValueId> of;
      for (const ValueId id : ValuesReadBy(op)) {
        const auto found = shares.find(id);
        if (found == shares.end()) continue;
        of.insert(of.end(), found->second.begin(), found->second.end());
      }
      if (of.empty()) continue;
      for (const ValueId id : op.results) shares[id] = of;
    }
    for (const ValueId id : segment.outputs) {
      const auto found = shares.find(id);
      if (found == shares.end()) continue;
      for (const ValueId of : found->second) Pin(of);
    }
  }

  void PinResults() {
    for (const ValueId id : program_.outputs) Pin(id);
    Pin(program_.loss);
    for (const ParameterBinding& p : program_.parameters) Pin(p.update);
  }

  void ReadBackward(int i) {
    const Instruction& instruction = program_.instructions[i];
    std::vector<ValueId> ids = ValuesOf(program_, instruction);
    if (const auto* back = std::get_if<RunSegmentBackward>(&instruction)) {
      const Segment& segment = program_.segments[back->segment];
      ids.insert(ids.end(), segment.inputs.begin(), segment.inputs.end());
    }
    for (const ValueId id : ids) {
      Weight* weight = MemoryOfValue(id);
      if (weight == nullptr || weight->first_backward >= 0) continue;
      weight->first_backward = i;
    }
  }

  // From the last one on, as what is gathered of gathered ones needs those.
  void PlanGather(int i) {
    const Bucket gather = GatherOf(program_.instructions[i]);
    Bucket again{.kind = gather.kind, .mesh_dim = gather.mesh_dim};
    int place = -1;
    for (size_t k = 0; k < gather.inputs.size(); ++k) {
      Weight* weight = MemoryOfValue(gather.outputs[k]);
      if (weight == nullptr || weight->pinned || weight->first_backward < 0 ||
          weight->last_use >= last_gather_) {
        continue;
      }
      if (place < 0 || weight->first_backward < place) {
        place = weight->first_backward;
      }
      again.inputs.push_back(gather.inputs[k]);
      again.outputs.push_back(gather.outputs[k]);
      again.dims.push_back(gather.dims[k]);
      resharded_after_[weight->last_use].push_back(gather.outputs[k]);
    }
    if (place < 0) return;
    for (const ValueId id : again.inputs) {
      Weight* inner = MemoryOfValue(id);
      if (inner == nullptr) continue;
      if (inner->first_backward < 0 || place < inner->first_backward) {
        inner->first_backward = place;
      }
    }
    again.again = true;
    again_before_[place].push_back(std::move(again));
  }

  void Write() {
    std::vector<Instruction> instructions;
    const int size = static_cast<int>(program_.instructions.size());
    int backward_begin = size;
    for (int i = 0; i < size; ++i) {
      if (i == program_.backward_begin) {
        backward_begin = static_cast<int>(instructions.size());
      }
      if (const auto found = again_before_.find(i);
          found != again_before_.end()) {
        // Planned from the last gather on.
        for (auto again = found->second.rbegin(); again != found->second.rend();
             ++again) {
          instructions.push_back(std::move(*again));
        }
      }
      instructions.push_back(std::move(program_.instructions[i]));
      if (const auto found = resharded_after_.find(i);
          found != resharded_after_.end()) {
        std::sort(found->second.begin(), found->second.end());
        instructions.push_back(Reshard{std::move(found->second)});
      }
    }
    program_.instructions = std::move(instructions);
    program_.backward_begin = backward_begin;
  }

  const std::vector<bool>& mesh_dims_;
  ShardedProgram& program_;
  std::vector<Weight> weights_;  // by value
  int last_gather_ = -1;         // of a parameter; by instruction
  absl::flat_hash_map<int, std::vector<ValueId>> resharded_after_;
  absl::flat_hash_map<int, std::vector<Bucket>> again_before_;
};

}  // namespace

void ReshardAfterForward(const std::vector<bool>& mesh_dims,
                         ShardedProgram* program) {
  if (std::find(mesh_dims.begin(), mesh_dims.end(), true) == mesh_dims.end() ||
      program->loss < 0) {
    return;
  }
  Resharder(mesh_dims, program).Run();
}

}  // namespace shardplane
