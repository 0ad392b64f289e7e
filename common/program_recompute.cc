// Parts of a program under construction that run again for the backward pass.
#include <map>
#include <utility>
#include <variant>
#include <vector>

#include "common/instruction_edits.h"
#include "common/program_builder.h"

namespace shardplane {

void ProgramBuilder::BeginRecompute() {
  CloseSegment();
  GatherTogether();
  recomputed_.push_back(
      {static_cast<int>(program_.instructions.size()), /*end=*/-1});
}

void ProgramBuilder::EndRecompute() {
  CloseSegment();
  GatherTogether();
  recomputed_.back().end = static_cast<int>(program_.instructions.size());
}

// Writes instructions of the forward pass once more, with values of their own.
class ProgramBuilder::Copier {
 public:
  explicit Copier(ProgramBuilder* builder) : builder_(*builder) {}

  void Copy(const Instruction& instruction) {
    if (const auto* run = std::get_if<RunSegment>(&instruction)) {
      CopySegment(run->segment);
    } else if (const auto* step = std::get_if<Redistribute>(&instruction)) {
      Redistribute copy = *step;
      copy.input = Renamed(copy.input);
      copy.output = Anew(copy.output);
      copies_.push_back(copy);
    } else if (const auto* bucket = std::get_if<Bucket>(&instruction)) {
      Bucket copy = *bucket;
      for (ValueId& id : copy.inputs) id = Renamed(id);
      for (ValueId& id : copy.outputs) id = Anew(id);
      copies_.push_back(std::move(copy));
    }
  }

  std::vector<Instruction> TakeCopies() { return std::move(copies_); }
  // Copy of each segment that was copied.
  const std::map<int, int>& segments() const { return segments_; }

 private:
  ValueId Renamed(ValueId id) const {
    const auto found = renamed_.find(id);
    return found == renamed_.end() ? id : found->second;
  }
  ValueId Anew(ValueId id) {
    const Value& value = builder_.value(id);
    const ValueId copy = builder_.NewValue(value.name, value.type, value.spec,
                                           builder_.requires_grad(id));
    renamed_[id] = copy;
    return copy;
  }
  void RenameAll(std::vector<ValueId>* ids) const {
    for (ValueId& id : *ids) id = Renamed(id);
  }
  void Rename(ProgramArgument* argument) const {
    if (auto* ref = std::get_if<ValueRef>(&argument->value)) {
      ref->id = Renamed(ref->id);
    } else if (auto* list =
                   std::get_if<ProgramArgumentList>(&argument->value)) {
      for (ProgramArgument& item : *list) Rename(&item);
    }
  }

  // The copy is recorded in the other one's place.
  void CopySegment(int index) {
    Segment copy = builder_.program_.segments[index];
    RenameAll(&copy.inputs);
    for (Op& op : copy.ops) {
      for (ProgramArgument& argument : op.args) Rename(&argument);
      for (auto& [name, argument] : op.kwargs) Rename(&argument);
      for (ValueId& id : op.results) id = Anew(id);
    }
    std::vector<ValueId> made = builder_.made_[index];
    RenameAll(&made);
    RenameAll(&copy.differentiable_inputs);
    RenameAll(&copy.differentiable_outputs);
    Segment& original = builder_.program_.segments[index];
    original.differentiable_inputs.clear();
    original.differentiable_outputs.clear();
    segments_[index] = static_cast<int>(builder_.program_.segments.size());
    copies_.push_back(RunSegment{segments_[index]});
    builder_.program_.segments.push_back(std::move(copy));
    builder_.made_.push_back(std::move(made));
  }

  ProgramBuilder& builder_;
  std::vector<Instruction> copies_;
  std::map<ValueId, ValueId> renamed_;
  std::map<int, int> segments_;
};

// The first backward of a segment in the range; the program's end: none.
int ProgramBuilder::FirstBackwardOf(const RecomputedRange& range) const {
  const std::vector<Instruction>& all = program_.instructions;
  std::vector<bool> within(program_.segments.size(), false);
  for (int i = range.begin; i < range.end; ++i) {
    const auto* run = std::get_if<RunSegment>(&all[i]);
    if (run != nullptr) within[run->segment] = true;
  }
  int i = program_.backward_begin;
  for (; i < static_cast<int>(all.size()); ++i) {
    const auto* back = std::get_if<RunSegmentBackward>(&all[i]);
    if (back != nullptr && within[back->segment]) break;
  }
  return i;
}

void ProgramBuilder::Recompute() {
  const int size = static_cast<int>(program_.instructions.size());
  InstructionEdits edits;
  std::map<int, int> segments;
  for (const RecomputedRange& range : recomputed_) {
    const int place = FirstBackwardOf(range);
    if (place == size) continue;
    Copier copier(this);
    for (int i = range.begin; i < range.end; ++i) {
      copier.Copy(program_.instructions[i]);
    }
    for (Instruction& copy : copier.TakeCopies()) {
      edits.InsertBefore(place, std::move(copy));
    }
    segments.insert(copier.segments().begin(), copier.segments().end());
  }
  for (Instruction& instruction : program_.instructions) {
    auto* back = std::get_if<RunSegmentBackward>(&instruction);
    if (back == nullptr) continue;
    const auto copy = segments.find(back->segment);
    if (copy != segments.end()) back->segment = copy->second;
  }
  edits.Apply(&program_);
}

}  // namespace shardplane
