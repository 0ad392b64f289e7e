#include "common/value_memory.h"

#include <algorithm>
#include <utility>
#include <variant>
#include <vector>

#include "common/op_memory.h"
#include "common/op_values.h"

namespace shardplane {

bool MayShareMemory(const Op& op) {
  const OpMemory& memory = MemoryOf(op.target);
  return memory.name.empty() || memory.result != ResultMemory::kNew ||
         memory.may_return_operand;
}

ValueMemory::ValueMemory(const ShardedProgram& program,
                         std::vector<bool> may_own)
    : program_(program),
      may_own_(std::move(may_own)),
      owners_(program.values.size()),
      pinned_(program.values.size(), false) {
  for (int i = 0; i < program.backward_begin; ++i) {
    const Instruction& instruction = program.instructions[i];
    if (const auto* step = std::get_if<Redistribute>(&instruction)) {
      Read(*step);
    } else if (const auto* bucket = std::get_if<Bucket>(&instruction)) {
      Read(*bucket);
    } else if (const auto* run = std::get_if<RunSegment>(&instruction)) {
      Read(program.segments[run->segment]);
    }
  }
  PinResults();
}

void ValueMemory::Pin(ValueId id) {
  if (id < 0) return;
  for (const ValueId owner : owners_[id]) pinned_[owner] = true;
}

void ValueMemory::Read(const Redistribute& step) {
  if (step.kind == RedistributeKind::kAlias) {
    owners_[step.output] = owners_[step.input];
  } else if (!IsCollective(step.kind) ||
             program_.mesh.dim_size(step.mesh_dim) == 1) {
    Pin(step.input);
  } else if (may_own_[step.output]) {
    owners_[step.output] = {step.output};
  }
}

// What shares a block with others owns nothing.
void ValueMemory::Read(const Bucket& bucket) {
  if (SharesBlock(bucket) && program_.mesh.dim_size(bucket.mesh_dim) > 1) {
    return;
  }
  for (size_t k = 0; k < bucket.inputs.size(); ++k) Read(StepOf(bucket, k));
}

void ValueMemory::Read(const Segment& segment) {
  for (const Op& op : segment.ops) {
    if (!MayShareMemory(op)) {
      for (const ValueId id : op.results) {
        if (may_own_[id]) owners_[id] = {id};
      }
      continue;
    }
    Owners shared;
    for (const ValueId id : ValuesReadBy(op)) {
      for (const ValueId owner : owners_[id]) {
        if (std::ranges::find(shared, owner) == shared.end()) {
          shared.push_back(owner);
        }
      }
    }
    if (shared.empty()) continue;
    for (const ValueId id : op.results) owners_[id] = shared;
  }
  for (const ValueId id : segment.outputs) {
    const Owners& owners = owners_[id];
    if (owners.size() != 1 || owners[0] != id) Pin(id);
  }
}

void ValueMemory::PinResults() {
  for (const ValueId id : program_.outputs) Pin(id);
  Pin(program_.loss);
  for (const ParameterBinding& p : program_.parameters) Pin(p.update);
}

}  // namespace shardplane
