#include "common/placement.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/errors.h"

namespace shardplane {
namespace {

struct Text {
  std::string operator()(const Replicate&) const { return "R"; }
  std::string operator()(const Shard& shard) const {
    if (shard.blocks.empty()) return absl::StrCat("S(", shard.dim, ")");
    return absl::StrCat("S(", shard.dim, ": ", ToString(shard.blocks), ")");
  }
  std::string operator()(const Partial& partial) const {
    return absl::StrCat("P(", ToString(partial.op), ")");
  }
};

void AppendBlock(std::string* out, const Block& block) {
  if (block.unit == 1) {
    absl::StrAppend(out, block.size);
  } else {
    absl::StrAppend(out, block.size / block.unit, "*", block.unit);
  }
  if (block.replicas > 1) absl::StrAppend(out, "/", block.replicas);
  if (block.partial) absl::StrAppend(out, "+");
}

}  // namespace

Blocks Blocks::Of(std::vector<Block> list) {
  Blocks blocks;
  if (!list.empty()) {
    blocks.list_ = std::make_shared<const std::vector<Block>>(std::move(list));
  }
  return blocks;
}

const std::vector<Block>& Blocks::list() const {
  static const auto& none = *new std::vector<Block>;
  return list_ == nullptr ? none : *list_;
}

int64_t Blocks::size() const {
  int64_t size = 0;
  for (const Block& block : list()) size += block.size;
  return size;
}

bool Blocks::has_replicas() const {
  return !empty() && std::any_of(list().begin(), list().end(),
                                 [](const Block& b) { return b.replicas > 1; });
}

bool Blocks::IsSharedByAll(int ranks) const {
  return !empty() && list().size() == 1 && list()[0].replicas == ranks;
}

bool Blocks::partial() const {
  return !empty() && std::any_of(list().begin(), list().end(),
                                 [](const Block& b) { return b.partial; });
}

Blocks Blocks::WithPartial(bool partial) const {
  if (!has_replicas()) return *this;
  std::vector<Block> blocks = list();
  for (Block& block : blocks) block.partial = partial && block.replicas > 1;
  return Of(std::move(blocks));
}

bool Refines(const Shard& fine, const Shard& coarse) {
  if (fine.dim != coarse.dim || fine.blocks == coarse.blocks ||
      !coarse.blocks.has_replicas() || fine.blocks.has_replicas()) {
    return false;
  }
  const std::vector<Block>& wide = coarse.blocks.list();
  std::vector<Block> narrow = fine.blocks.list();
  if (narrow.empty()) narrow = {{.size = coarse.blocks.size()}};
  return std::equal(wide.begin(), wide.end(), narrow.begin(), narrow.end(),
                    [](const Block& from, const Block& to) {
                      return from.replicas == 1
                                 ? from == to
                                 : from.size == to.size &&
                                       from.unit % (to.unit * from.replicas) ==
                                           0;
                    });
}

std::string ToString(const Blocks& blocks) {
  return absl::StrJoin(blocks.list(), ", ", AppendBlock);
}

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
  return Shard{shard->dim < 0 ? shard->dim + tensor_rank : shard->dim,
               shard->blocks};
}

}  // namespace shardplane
