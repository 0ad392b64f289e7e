#include "common/instruction_edits.h"

#include <algorithm>
#include <utility>
#include <variant>

namespace shardplane {

void InstructionEdits::InsertBefore(int i, Instruction instruction) {
  insertions_.push_back({2 * i, std::move(instruction)});
}

void InstructionEdits::InsertAfter(int i, Instruction instruction) {
  insertions_.push_back({2 * i + 1, std::move(instruction)});
}

void InstructionEdits::Drop(int i) { dropped_.push_back(i); }

void InstructionEdits::Apply(ShardedProgram* program) {
  if (insertions_.empty() && dropped_.empty()) return;
  std::ranges::stable_sort(insertions_, {}, &Insertion::place);
  std::ranges::sort(dropped_);
  const int size = static_cast<int>(program->instructions.size());
  std::vector<Instruction> written;
  written.reserve(size + insertions_.size());
  auto next = insertions_.begin();
  const auto insert_at = [&](int place) {
    for (; next != insertions_.end() && next->place == place; ++next) {
      written.push_back(std::move(next->instruction));
    }
  };
  auto drop = dropped_.begin();
  int backward_begin = -1;
  for (int i = 0; i < size; ++i) {
    if (i == program->backward_begin) {
      backward_begin = static_cast<int>(written.size());
    }
    insert_at(2 * i);
    if (drop != dropped_.end() && *drop == i) {
      ++drop;
    } else {
      written.push_back(std::move(program->instructions[i]));
    }
    insert_at(2 * i + 1);
  }
  insert_at(2 * size);
  program->instructions = std::move(written);
  program->backward_begin = backward_begin < 0
                                ? static_cast<int>(program->instructions.size())
                                : backward_begin;
}

bool Computes(const Instruction& instruction) {
  return std::holds_alternative<RunSegment>(instruction) ||
         std::holds_alternative<RunSegmentBackward>(instruction) ||
         std::holds_alternative<RunWeightGradients>(instruction);
}

std::optional<Bucket> AsBucket(const Instruction& instruction) {
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

}  // namespace shardplane
