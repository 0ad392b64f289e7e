// Ops that take a value apart and put it together again. Used by
// program_chunks.cc.
#ifndef SHARDPLANE_COMMON_PIECE_OPS_H_
#define SHARDPLANE_COMMON_PIECE_OPS_H_

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "common/product_chunks.h"
#include "common/sharded_program.h"

namespace shardplane {

// One of `count` equal pieces along `dim`, as a value that lies as the whole.
Value PieceOf(Value value, int dim, int count);

class PieceOps {
 public:
  // Adds a value, which is differentiable if it is to be.
  using NewValue = std::function<ValueId(const Value&)>;
  PieceOps(NewValue new_value, std::string fqn)
      : new_value_(std::move(new_value)), fqn_(std::move(fqn)) {}

  struct Parts {
    std::vector<Op> ops;
    std::vector<ValueId> pieces;
  };
  // Of `value`, whose id is `id`. With pieces.ranks above 1 the dim is taken
  // for as many parts, and each piece has a piece of each part:
  //   rows 0 to 7, 2 pieces, 1 rank:  0 1 2 3 | 4 5 6 7
  //   rows 0 to 7, 2 pieces, 2 ranks: 0 1 4 5 | 2 3 6 7
  Parts Split(ValueId id, const Value& value, const Pieces& pieces) const;

  // The way back, to `value`, whose id is `id`.
  std::vector<Op> Join(const std::vector<ValueId>& parts, ValueId id,
                       const Value& value, const Pieces& pieces) const;

 private:
  Op Call(const std::string& target, std::vector<ProgramArgument> args,
          std::vector<ValueId> results) const;
  Op Cut(ValueId id, const Value& value, int dim, int count,
         std::vector<ValueId>* pieces) const;
  Op Reshape(ValueId from, ValueId to, const Value& value) const;

  NewValue new_value_;
  std::string fqn_;  // of all ops
};

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_PIECE_OPS_H_
