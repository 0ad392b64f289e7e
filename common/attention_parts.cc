// Attention, taken apart where it has dropout, or key heads that ranks share.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/call_arguments.h"
#include "common/errors.h"
#include "common/op_decompositions.h"

namespace shardplane {
namespace {

class Emission {
 public:
  Emission(const ValueCall& call, const OpCall& plain,
           const std::vector<ValueId>& ids, OpEmitter* emitter)
      : call_(call), plain_(plain), ids_(ids), emitter_(emitter) {}

  // With keys and values once for each query head, of which each rank then
  // takes those of its own queries.
  absl::StatusOr<ValueId> EmitUngrouped() {
    SP_ASSIGN_OR_RETURN(const ValueId key, ForEachQueryHead(ids_[1]));
    SP_ASSIGN_OR_RETURN(const ValueId value, ForEachQueryHead(ids_[2]));
    ValueCall call = call_;
    call.args[1] = RefTo(key);
    call.args[2] = RefTo(value);
    call.kwargs.erase("enable_gqa");
    SP_ASSIGN_OR_RETURN(const std::vector<ValueId> ids, emitter_->Emit(call));
    return ids[0];
  }

  absl::StatusOr<ValueId> Emit(double rate) {
    const Shape query = ShapeOf(ids_[0]);
    const double scale =
        DoubleArgument(plain_, kKeywordOnly, "scale")
            .value_or(1 / std::sqrt(static_cast<double>(query.back())));
    SP_ASSIGN_OR_RETURN(const ValueId key, ForEachQueryHead(ids_[1]));
    SP_ASSIGN_OR_RETURN(const ValueId value, ForEachQueryHead(ids_[2]));
    SP_ASSIGN_OR_RETURN(
        const ValueId scaled,
        Call("aten.mul.Scalar", {RefTo(ids_[0]), Argument{scale}}));
    SP_ASSIGN_OR_RETURN(
        const ValueId turned,
        Call("aten.transpose.int", {RefTo(key), {int64_t{-2}}, {int64_t{-1}}}));
    SP_ASSIGN_OR_RETURN(ValueId scores, Call("aten.matmul.default",
                                             {RefTo(scaled), RefTo(turned)}));
    SP_ASSIGN_OR_RETURN(scores, Masked(scores));
    SP_ASSIGN_OR_RETURN(ValueId weights, Call("aten._safe_softmax.default",
                                              {RefTo(scores), {int64_t{-1}}}));
    SP_ASSIGN_OR_RETURN(weights, Call("aten.dropout.default",
                                      {RefTo(weights), {rate}, {true}}));
    return Call("aten.matmul.default", {RefTo(weights), RefTo(value)});
  }

 private:
  Shape ShapeOf(ValueId id) const {
    return emitter_->builder().value(id).type.shape;
  }

  absl::StatusOr<ValueId> Call(const std::string& target,
                               std::vector<Argument> args) {
    ValueCall call{target, std::move(args), {}, {}, call_.fqn, call_.name};
    SP_ASSIGN_OR_RETURN(const std::vector<ValueId> ids, emitter_->Emit(call));
    return ids[0];
  }

  // Keys or values of grouped queries, once for each query head.
  absl::StatusOr<ValueId> ForEachQueryHead(ValueId id) {
    const Shape shape = ShapeOf(id);
    const size_t rank = shape.size();
    if (!BoolArgument(plain_, kKeywordOnly, "enable_gqa") || rank < 3)
      return id;
    const int64_t query_heads = ShapeOf(ids_[0])[rank - 3];
    const int64_t heads = shape[rank - 3];
    if (heads == query_heads || heads == 0) return id;
    return Call("aten.repeat_interleave.self_int",
                {RefTo(id), Argument{query_heads / heads}, {int64_t{-3}}});
  }

  // -inf where the mask is false.
  absl::StatusOr<ValueId> Fill(ValueId scores, ValueId mask) {
    SP_ASSIGN_OR_RETURN(const ValueId out,
                        Call("aten.logical_not.default", {RefTo(mask)}));
    return Call("aten.masked_fill.Scalar",
                {RefTo(scores),
                 RefTo(out),
                 {-std::numeric_limits<double>::infinity()}});
  }

  absl::StatusOr<ValueId> Masked(ValueId scores) {
    if (BoolArgument(plain_, 5, "is_causal")) {
      const Shape shape = ShapeOf(scores);
      ValueCall ones{"aten.ones.default",
                     {{ArgumentList{{shape[shape.size() - 2]},
                                    {shape[shape.size() - 1]}}}},
                     {{"dtype", {DType::kBool}}},
                     {},
                     call_.fqn,
                     call_.name};
      SP_ASSIGN_OR_RETURN(const std::vector<ValueId> all, emitter_->Emit(ones));
      SP_ASSIGN_OR_RETURN(const ValueId causal,
                          Call("aten.tril.default", {RefTo(all[0])}));
      SP_ASSIGN_OR_RETURN(scores, Fill(scores, causal));
    }
    if (ids_.size() < 4) return scores;
    const bool keeps =
        emitter_->builder().value(ids_[3]).type.dtype == DType::kBool;
    return keeps ? Fill(scores, ids_[3])
                 : Call("aten.add.Tensor", {RefTo(scores), RefTo(ids_[3])});
  }

  const ValueCall& call_;
  const OpCall& plain_;
  const std::vector<ValueId>& ids_;
  OpEmitter* emitter_;
};

// Whether groups of ranks share keys of grouped queries.
bool SharesKeys(const OpCall& plain, const DTensorSpec& keys) {
  return BoolArgument(plain, kKeywordOnly, "enable_gqa") &&
         std::any_of(
             keys.placements.begin(), keys.placements.end(),
             [](const Placement& p) { return BlocksOf(p).has_replicas(); });
}

}  // namespace

absl::StatusOr<std::optional<std::vector<ValueId>>> EmitAttention(
    const ValueCall& call, OpEmitter* emitter) {
  OpCall plain{call.target, call.args, call.kwargs, {}, call.results};
  const double rate = DoubleArgument(plain, 4, "dropout_p").value_or(0);
  SP_ASSIGN_OR_RETURN(const std::vector<ValueId> ids, ValuesOf(call));
  if (ids.size() < 3 || call.args.size() < 3) return std::nullopt;
  const bool shared = SharesKeys(plain, emitter->builder().value(ids[1]).spec);
  if (rate == 0 && !shared) return std::nullopt;
  for (const ValueId id : ids) {
    plain.operands.push_back(emitter->builder().value(id).type);
  }
  // The row knows what fits.
  SP_RETURN_IF_ERROR(MakeOpInstance(plain).status());
  Emission emission(call, plain, ids, emitter);
  SP_ASSIGN_OR_RETURN(const ValueId result, rate == 0 ? emission.EmitUngrouped()
                                                      : emission.Emit(rate));
  return std::vector<ValueId>{result};
}

}  // namespace shardplane
