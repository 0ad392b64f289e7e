#include "common/placement.h"

#include <string>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {
namespace {

struct Text {
  std::string operator()(const Replicate&) const { return "R"; }
  std::string operator()(const Shard& shard) const {
    return absl::StrCat("S(", shard.dim, ")");
  }
  std::string operator()(const Partial& partial) const {
    return absl::StrCat("P(", ToString(partial.op), ")");
  }
};

}  // namespace

std::string ToString(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return "sum";
    case ReduceOp::kMax:
      return "max";
    case ReduceOp::kMin:
      return "min";
  }
  return "?";
}

std::string ToString(const Placement& placement) {
  return std::visit(Text{}, placement);
}

absl::StatusOr<Placement> Normalize(const Placement& placement,
                                    int tensor_rank) {
  const Shard* shard = std::get_if<Shard>(&placement);
  if (shard == nullptr) return placement;
  if (shard->dim >= tensor_rank || shard->dim < -tensor_rank) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        absl::StrCat("a Shard of a tensor with ", tensor_rank,
                     " dims must name a dim from ", -tensor_rank, " to ",
                     tensor_rank - 1, "; got: ", ToString(placement)),
        {.reason = "SHARD_DIM_OUT_OF_RANGE",
         .metadata = {{"placement", ToString(placement)}}});
  }
  return Shard{shard->dim < 0 ? shard->dim + tensor_rank : shard->dim};
}

}  // namespace shardplane
