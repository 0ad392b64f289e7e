#include "common/piece_ops.h"

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/tensor_spec.h"

namespace shardplane {
namespace {

// Dim `dim`, which is whole, as `ranks` parts: one dim for these, one in them.
Value Unfolded(Value value, int dim, int ranks) {
  Shape& shape = value.type.shape;
  shape[dim] /= ranks;
  shape.insert(shape.begin() + dim, ranks);
  for (Placement& placement : value.spec.placements) {
    auto* shard = std::get_if<Shard>(&placement);
    if (shard != nullptr && shard->dim > dim) ++shard->dim;
  }
  return value;
}

}  // namespace

Value PieceOf(Value value, int dim, int count) {
  value.type.shape[dim] /= count;
  return value;
}

Op PieceOps::Call(const std::string& target, std::vector<ProgramArgument> args,
                  std::vector<ValueId> results) const {
  return {.target = target,
          .args = std::move(args),
          .results = std::move(results),
          .fqn = fqn_};
}

Op PieceOps::Cut(ValueId id, const Value& value, int dim, int count,
                 std::vector<ValueId>* pieces) const {
  const Value piece = PieceOf(value, dim, count);
  for (int i = 0; i < count; ++i) pieces->push_back(new_value_(piece));
  const LocalSize size{{CutsOfDim(piece.type.shape, value.spec, dim)}};
  return Call("aten.split.Tensor",
              {{ValueRef{id}}, {size}, {static_cast<int64_t>(dim)}}, *pieces);
}

Op PieceOps::Reshape(ValueId from, ValueId to, const Value& value) const {
  ProgramArgumentList sizes;
  for (int d = 0; d < static_cast<int>(value.type.shape.size()); ++d) {
    sizes.push_back({LocalSize{{CutsOfDim(value.type.shape, value.spec, d)}}});
  }
  return Call("aten.reshape.default", {{ValueRef{from}}, {std::move(sizes)}},
              {to});
}

PieceOps::Parts PieceOps::Split(ValueId id, const Value& value,
                                const Pieces& pieces) const {
  const auto& [dim, count, ranks] = pieces;
  Parts parts;
  if (ranks == 1) {
    parts.ops.push_back(Cut(id, value, dim, count, &parts.pieces));
    return parts;
  }
  const Value unfolded = Unfolded(value, dim, ranks);
  const ValueId by_rank = new_value_(unfolded);
  parts.ops.push_back(Reshape(id, by_rank, unfolded));
  std::vector<ValueId> cut;
  parts.ops.push_back(Cut(by_rank, unfolded, dim + 1, count, &cut));
  const Value piece = PieceOf(value, dim, count);
  for (const ValueId from : cut) {
    parts.pieces.push_back(new_value_(piece));
    parts.ops.push_back(Reshape(from, parts.pieces.back(), piece));
  }
  return parts;
}

std::vector<Op> PieceOps::Join(const std::vector<ValueId>& parts, ValueId id,
                               const Value& value, const Pieces& pieces) const {
  const auto& [dim, count, ranks] = pieces;
  std::vector<Op> ops;
  ProgramArgumentList list;
  const Value unfolded = Unfolded(value, dim, ranks);
  for (ValueId part : parts) {
    if (ranks > 1) {
      const Value of_piece = PieceOf(unfolded, dim + 1, count);
      const ValueId by_rank = new_value_(of_piece);
      ops.push_back(Reshape(part, by_rank, of_piece));
      part = by_rank;
    }
    list.push_back({ValueRef{part}});
  }
  const ValueId joined = ranks > 1 ? new_value_(unfolded) : id;
  ops.push_back(Call(
      "aten.cat.default",
      {{std::move(list)}, {static_cast<int64_t>(ranks > 1 ? dim + 1 : dim)}},
      {joined}));
  if (ranks > 1) ops.push_back(Reshape(joined, id, value));
  return ops;
}

}  // namespace shardplane
