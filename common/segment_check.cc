#include "common/segment_check.h"

#include <algorithm>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {

absl::Status ProgramError(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat("program: ", message), {"PROGRAM_INVALID", {}});
}

absl::Status CheckMeshDim(const ShardedProgram& program, int mesh_dim) {
  if (mesh_dim >= 0 && mesh_dim < program.mesh.ndim()) return absl::OkStatus();
  return ProgramError(absl::StrCat("mesh dims are below ", program.mesh.ndim(),
                                   "; got: ", mesh_dim));
}

namespace {

class SegmentChecker {
 public:
  SegmentChecker(const ShardedProgram& program, const Segment& segment)
      : program_(program),
        segment_(segment),
        known_(segment.inputs.begin(), segment.inputs.end()) {}

  absl::Status Check() {
    for (const Op& op : segment_.ops) {
      for (const ProgramArgument& arg : op.args) {
        SP_RETURN_IF_ERROR(CheckArgument(arg, op));
      }
      for (const auto& [name, arg] : op.kwargs) {
        SP_RETURN_IF_ERROR(CheckArgument(arg, op));
      }
      for (const ValueId id : op.results) {
        if (id < 0 || id >= static_cast<int>(program_.values.size())) {
          return ProgramError(absl::StrCat(
              "ids are below ", program_.values.size(), "; got: ", id));
        }
        known_.insert(id);
      }
    }
    for (const auto* ids : {&segment_.outputs, &segment_.differentiable_inputs,
                            &segment_.differentiable_outputs}) {
      if (!std::all_of(ids->begin(), ids->end(),
                       [this](ValueId id) { return known_.contains(id); })) {
        return ProgramError("a segment names a value that it does not have");
      }
    }
    return absl::OkStatus();
  }

 private:
  absl::Status CheckCuts(const DimCuts& dim) const {
    for (const int cut : dim.cuts) {
      SP_RETURN_IF_ERROR(CheckMeshDim(program_, cut));
    }
    if (dim.cuts.empty()) return absl::OkStatus();
    return CheckBlocks(dim.blocks, dim.extent,
                       program_.mesh.dim_size(dim.cuts[0]));
  }

  absl::Status CheckArgument(const ProgramArgument& argument,
                             const Op& op) const {
    if (const auto* ref = std::get_if<ValueRef>(&argument.value)) {
      if (known_.contains(ref->id)) return absl::OkStatus();
      return ProgramError(absl::StrCat(
          op.target, " uses a value that its segment does not have; got: %",
          ref->id));
    }
    if (const auto* size = std::get_if<LocalSize>(&argument.value)) {
      for (const DimCuts& factor : size->factors) {
        SP_RETURN_IF_ERROR(CheckCuts(factor));
      }
    }
    if (const auto* offset = std::get_if<LocalOffset>(&argument.value)) {
      SP_RETURN_IF_ERROR(CheckCuts(offset->dim));
    }
    if (const auto* list = std::get_if<ProgramArgumentList>(&argument.value)) {
      for (const ProgramArgument& item : *list) {
        SP_RETURN_IF_ERROR(CheckArgument(item, op));
      }
    }
    return absl::OkStatus();
  }

  const ShardedProgram& program_;
  const Segment& segment_;
  absl::flat_hash_set<ValueId> known_;
};

}  // namespace

absl::Status CheckSegment(const ShardedProgram& program,
                          const Segment& segment) {
  return SegmentChecker(program, segment).Check();
}

}  // namespace shardplane
