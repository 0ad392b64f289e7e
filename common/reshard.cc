#include "common/reshard.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "common/fqn.h"
#include "common/instruction_edits.h"
#include "common/kept_values.h"
#include "common/op_values.h"
#include "common/redistribute.h"
#include "common/tensor_spec.h"
#include "common/value_memory.h"

namespace shardplane {
namespace {

// An all_gather as a bucket; of other instructions one without inputs.
Bucket GatherOf(const Instruction& instruction) {
  const std::optional<Bucket> bucket = AsBucket(instruction);
  return bucket && bucket->kind == RedistributeKind::kAllGather ? *bucket
                                                                : Bucket{};
}

class Resharder {
 public:
  Resharder(const ReshardOptions& options, ShardedProgram* program)
      : options_(options),
        program_(*program),
        memory_(*program, FindOwners()),
        uses_(program->values.size()) {}

  void Run() {
    for (int i = 0; i < program_.backward_begin; ++i) ReadForward(i);
    const int size = static_cast<int>(program_.instructions.size());
    for (int i = program_.backward_begin; i < size; ++i) ReadBackward(i);
    for (int i = last_gather_; i >= 0; --i) PlanGather(i);
    // Planned from the last gather on.
    for (auto again = again_.rbegin(); again != again_.rend(); ++again) {
      edits_.InsertBefore(again->first, std::move(again->second));
    }
    for (const ValueId id : activations_) PlanActivation(id);
    for (auto& [place, reshard] : reshards_) {
      if (reshard.outputs.empty()) std::ranges::sort(reshard.values);
      edits_.InsertAfter(std::get<0>(place), std::move(reshard));
    }
    edits_.Apply(&program_);
  }

 private:
  // How a value that owns memory is used.
  struct Use {
    int last = -1;            // forward; by instruction
    int first_backward = -1;  // -1: none needs it
    bool kept = false;        // by autograd, or used in the backward pass
    const ReshardedInputs* inputs = nullptr;
    int made_by = -1;  // the all_gather that makes it; by instruction
  };
  // After which instruction, along which mesh dim to which tensor dim.
  using Place = std::tuple<int, int, int>;

  // Parameters that are gathered along such mesh dims; of activations all.
  std::vector<bool> FindOwners() {
    is_parameter_.resize(program_.values.size(), false);
    std::vector<bool> owners(program_.values.size(), !options_.inputs.empty());
    for (const ParameterBinding& p : program_.parameters) {
      is_parameter_[p.value] = true;
    }
    for (int i = 0; i < program_.backward_begin; ++i) {
      const Instruction& instruction = program_.instructions[i];
      const auto* alias = std::get_if<Redistribute>(&instruction);
      if (alias != nullptr && alias->kind == RedistributeKind::kAlias) {
        is_parameter_[alias->output] = is_parameter_[alias->input];
      }
      const Bucket gather = GatherOf(instruction);
      for (size_t k = 0; k < gather.inputs.size(); ++k) {
        if (!is_parameter_[gather.inputs[k]]) continue;
        is_parameter_[gather.outputs[k]] = true;
        owners[gather.outputs[k]] = options_.parameters[gather.mesh_dim];
        last_gather_ = i;
      }
    }
    return owners;
  }

  template <typename Visit>
  void ForOwners(const std::vector<ValueId>& ids, Visit visit) {
    for (const ValueId id : ids) {
      for (const ValueId owner : memory_.OwnersOf(id)) visit(uses_[owner]);
    }
  }

  void ReadForward(int i) {
    const Instruction& instruction = program_.instructions[i];
    const auto used = [i](Use& use) { use.last = i; };
    ForOwners(ValuesOf(program_, instruction), used);
    const Bucket gather = GatherOf(instruction);
    for (const ValueId id : gather.outputs) uses_[id].made_by = i;
    const auto* run = std::get_if<RunSegment>(&instruction);
    if (run == nullptr || options_.inputs.empty()) return;
    for (const Op& op : program_.segments[run->segment].ops) {
      std::vector<ValueId> ids = ValuesReadBy(op);
      ids.insert(ids.end(), op.results.begin(), op.results.end());
      ForOwners(ids, used);
      const ReshardedInputs* const inputs = InputsOf(op.fqn);
      if (inputs == nullptr) continue;
      for (const ValueId id : ids) {
        for (const ValueId owner : memory_.OwnersOf(id)) {
          if (is_parameter_[owner]) continue;
          if (uses_[owner].inputs == nullptr) activations_.push_back(owner);
          uses_[owner].inputs = inputs;
        }
      }
    }
  }

  // The nearest module's; nullptr: none.
  const ReshardedInputs* InputsOf(const std::string& fqn) const {
    const ReshardedInputs* nearest = nullptr;
    for (const ReshardedInputs& inputs : options_.inputs) {
      if (IsWithin(inputs.fqn, fqn) &&
          (nearest == nullptr || nearest->fqn.size() <= inputs.fqn.size())) {
        nearest = &inputs;
      }
    }
    return nearest;
  }

  void ReadBackward(int i) {
    const Instruction& instruction = program_.instructions[i];
    const auto needed = [i](Use& use) {
      if (use.first_backward < 0) use.first_backward = i;
    };
    const auto kept = [&needed](Use& use) {
      needed(use);
      use.kept = true;
    };
    const auto* back = std::get_if<RunSegmentBackward>(&instruction);
    if (back == nullptr) {
      return ForOwners(ValuesOf(program_, instruction), kept);
    }
    const Segment& segment = program_.segments[back->segment];
    ForOwners(segment.inputs, needed);
    if (!options_.inputs.empty()) ForOwners(KeptValues(segment), kept);
  }

  // From the last one on, as what is gathered of gathered ones needs those.
  void PlanGather(int i) {
    const Bucket gather = GatherOf(program_.instructions[i]);
    Bucket again{.kind = gather.kind, .mesh_dim = gather.mesh_dim};
    int place = -1;
    for (size_t k = 0; k < gather.inputs.size(); ++k) {
      const ValueId id = gather.outputs[k];
      const Use& use = uses_[id];
      if (!is_parameter_[id] || !Owns(id) || use.first_backward < 0 ||
          use.last >= last_gather_) {
        continue;
      }
      if (place < 0 || use.first_backward < place) place = use.first_backward;
      again.inputs.push_back(gather.inputs[k]);
      again.outputs.push_back(id);
      again.dims.push_back(gather.dims[k]);
      reshards_[{use.last, -1, -1}].values.push_back(id);
    }
    if (place < 0) return;
    ForOwners(again.inputs, [place](Use& use) {
      if (use.first_backward < 0 || place < use.first_backward) {
        use.first_backward = place;
      }
    });
    again.again = true;
    again_.emplace_back(place, std::move(again));
  }

  // Whether it can be resharded at all.
  bool Owns(ValueId id) const {
    const ValueMemory::Owners& owners = memory_.OwnersOf(id);
    return owners.size() == 1 && owners[0] == id && !memory_.IsPinned(id);
  }

  void PlanActivation(ValueId id) {
    const Use& use = uses_[id];
    if (!Owns(id) || !use.kept || use.first_backward < 0 ||
        !RunsBetween(use.last, use.first_backward)) {
      return;
    }
    const int mesh_dim = use.inputs->mesh_dim;
    Bucket again{.kind = RedistributeKind::kAllGather,
                 .mesh_dim = mesh_dim,
                 .outputs = {id},
                 .again = true};
    if (const Bucket made = MadeAlong(id, mesh_dim); !made.inputs.empty()) {
      const auto at = std::ranges::find(made.outputs, id);
      const size_t k = at - made.outputs.begin();
      again.inputs = {made.inputs[k]};
      again.dims = {made.dims[k]};
      reshards_[{use.last, -1, -1}].values.push_back(id);
    } else {
      const int dim = CutOf(id, *use.inputs);
      if (dim < 0) return;
      Reshard& reshard = reshards_[{use.last, mesh_dim, dim}];
      reshard.mesh_dim = mesh_dim;
      reshard.to_dim = dim;
      reshard.values.push_back(id);
      Value part = program_.values[id];
      part.spec = WithPlacement(part.spec, mesh_dim, Shard{dim});
      again.inputs = {static_cast<ValueId>(program_.values.size())};
      again.dims = {dim};
      reshard.outputs.push_back(again.inputs[0]);
      program_.values.push_back(std::move(part));
      Keep(id, use.last);
    }
    edits_.InsertBefore(use.first_backward, std::move(again));
  }

  // Whether anything computes between two instructions.
  bool RunsBetween(int begin, int end) const {
    return std::any_of(program_.instructions.begin() + begin + 1,
                       program_.instructions.begin() + end, Computes);
  }

  // The all_gather along a mesh dim that makes a value, if one does.
  Bucket MadeAlong(ValueId id, int mesh_dim) const {
    const int i = uses_[id].made_by;
    if (i < 0) return {};
    Bucket made = GatherOf(program_.instructions[i]);
    return made.mesh_dim == mesh_dim ? made : Bucket{};
  }

  // The tensor dim that a replicated value is cut along; -1: it is not.
  int CutOf(ValueId id, const ReshardedInputs& inputs) const {
    const Value& value = program_.values[id];
    const int ranks = program_.mesh.dim_size(inputs.mesh_dim);
    if (!IsReplicate(value.spec.placements[inputs.mesh_dim]) || ranks == 1) {
      return -1;
    }
    const Shape shape = LocalShape(value.type.shape, value.spec, program_.mesh,
                                   program_.mesh.Coordinate(0));
    const int rank = static_cast<int>(shape.size());
    const int dim =
        inputs.tensor_dim < 0 ? inputs.tensor_dim + rank : inputs.tensor_dim;
    return dim >= 0 && dim < rank && shape[dim] >= ranks ? dim : -1;
  }

  // What only its segment knows is an output of it from here on.
  void Keep(ValueId id, int instruction) {
    const auto* run =
        std::get_if<RunSegment>(&program_.instructions[instruction]);
    if (run == nullptr) return;
    Segment& segment = program_.segments[run->segment];
    const bool makes = std::ranges::any_of(segment.ops, [id](const Op& op) {
      return std::ranges::find(op.results, id) != op.results.end();
    });
    if (makes &&
        std::ranges::find(segment.outputs, id) == segment.outputs.end()) {
      segment.outputs.push_back(id);
    }
  }

  const ReshardOptions& options_;
  ShardedProgram& program_;
  std::vector<bool> is_parameter_;  // or gathered of one; by value
  int last_gather_ = -1;            // of a parameter; by instruction
  ValueMemory memory_;
  std::vector<Use> uses_;             // by value
  std::vector<ValueId> activations_;  // that may be cut, by first sight
  std::map<Place, Reshard> reshards_;
  std::vector<std::pair<int, Bucket>> again_;  // before which instruction
  InstructionEdits edits_;
};

}  // namespace

void ReshardAfterForward(const ReshardOptions& options,
                         ShardedProgram* program) {
  if (program->loss < 0 ||
      (options.inputs.empty() && std::ranges::find(options.parameters, true) ==
                                     options.parameters.end())) {
    return;
  }
  Resharder(options, program).Run();
}

}  // namespace shardplane
