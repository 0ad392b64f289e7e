// Cross-entropy over cut logits.
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/call_arguments.h"
#include "common/errors.h"
#include "common/op_decompositions.h"
#include "common/redistribute.h"

namespace shardplane {
namespace {

enum Reduction : int64_t { kNoReduction = 0, kMeanReduction = 1 };

// The arguments of one call, read.
struct CrossEntropyCall {
  ValueId logits = -1;
  ValueId target = -1;
  ValueId weight = -1;  // -1: none
  int64_t reduction = kMeanReduction;
  int64_t ignore_index = -100;
  double label_smoothing = 0;
};

absl::Status Bad(const std::string& expected, const std::string& got) {
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat("cross_entropy expects ", expected, "; got: ", got),
      {"OP_CALL_INVALID", {{"op", "aten.cross_entropy_loss.default"}}});
}

absl::StatusOr<CrossEntropyCall> Read(const ValueCall& call) {
  SP_ASSIGN_OR_RETURN(const std::vector<ValueId> ids, ValuesOf(call));
  if (ids.size() < 2 || ids.size() > 3) {
    return Bad("logits, a target and perhaps weights",
               absl::StrCat(ids.size(), " tensors"));
  }
  const OpCall plain{call.target, call.args, call.kwargs, {}, {}};
  CrossEntropyCall read{ids[0], ids[1], ids.size() == 3 ? ids[2] : -1};
  read.reduction = IntArgument(plain, 3, "reduction").value_or(kMeanReduction);
  read.ignore_index = IntArgument(plain, 4, "ignore_index").value_or(-100);
  read.label_smoothing =
      DoubleArgument(plain, 5, "label_smoothing").value_or(0);
  return read;
}

class Emission {
 public:
  Emission(const ValueCall& call, const CrossEntropyCall& read,
           OpEmitter* emitter)
      : call_(call),
        read_(read),
        emitter_(emitter),
        builder_(emitter->builder()),
        logits_(builder_.value(read.logits)),
        class_dim_(logits_.type.shape.size() > 1 ? 1 : 0),
        classes_(logits_.type.shape[class_dim_]) {}

  absl::StatusOr<ValueId> Emit() {
    SP_RETURN_IF_ERROR(Check());
    SP_RETURN_IF_ERROR(Place());
    SP_ASSIGN_OR_RETURN(const ValueId max, EmitMax());
    SP_ASSIGN_OR_RETURN(const ValueId terms, EmitTerms(max));
    SP_ASSIGN_OR_RETURN(const ValueId rows, EmitRows(terms));
    SP_ASSIGN_OR_RETURN(const ValueId loss, Reduce(rows));
    return Convert(loss);
  }

 private:
  bool probabilities() const {
    return IsFloatingPoint(builder_.value(read_.target).type.dtype);
  }

  absl::Status Check() {
    rows_shape_ = logits_.type.shape;
    rows_shape_.erase(rows_shape_.begin() + class_dim_);
    const TensorType& target = builder_.value(read_.target).type;
    const Shape& expected = probabilities() ? logits_.type.shape : rows_shape_;
    if (target.shape != expected) {
      return Bad(absl::StrCat("a target ", ShapeToString(expected)),
                 ToString(target));
    }
    if (read_.weight >= 0 &&
        builder_.value(read_.weight).type.shape != Shape{classes_}) {
      return Bad(absl::StrCat("weights of ", classes_, " classes"),
                 ToString(builder_.value(read_.weight).type));
    }
    return absl::OkStatus();
  }

  // Where logits, and what is one a row, lie.
  absl::Status Place() {
    const int ndim = builder_.mesh().ndim();
    logits_spec_ = logits_.spec;
    for (int m = 0; m < ndim; ++m) {
      // Class ids are counted from where a rank's classes begin, and what
      // groups of ranks share would be summed several times.
      const Placement& placement = logits_.spec.placements[m];
      const Blocks blocks = BlocksOf(placement);
      if (IsPartial(placement) || blocks.has_replicas() ||
          (!blocks.empty() && ShardDim(placement) == class_dim_)) {
        logits_spec_ = WithPlacement(logits_spec_, m, Replicate{});
      }
    }
    class_cuts_ = CutsOf(logits_spec_, class_dim_);
    classes_spec_ = DTensorSpec::Replicated(ndim);
    for (const int m : class_cuts_) {
      classes_spec_ = WithPlacement(classes_spec_, m, Shard{0});
    }
    rows_spec_ = RowsSpec(0);
    const DType dtype = logits_.type.dtype;
    sums_dtype_ = ByteSize(dtype) < 4 ? DType::kFloat32 : dtype;
    SP_ASSIGN_OR_RETURN(logits_id_,
                        builder_.Demand(read_.logits, logits_spec_, {}));
    SP_ASSIGN_OR_RETURN(
        target_id_,
        builder_.Demand(read_.target,
                        probabilities() ? logits_spec_ : rows_spec_, {}));
    return absl::OkStatus();
  }

  // Cut as the rows of the logits are, with `skip` dims before them.
  DTensorSpec RowsSpec(int skip) const {
    DTensorSpec spec = DTensorSpec::Replicated(builder_.mesh().ndim());
    for (int d = 0; d < static_cast<int>(logits_.type.shape.size()); ++d) {
      if (d == class_dim_) continue;
      for (const int m : CutsOf(logits_spec_, d)) {
        spec = WithPlacement(spec, m,
                             Shard{skip + d - (d > class_dim_),
                                   BlocksOf(logits_spec_.placements[m])});
      }
    }
    return spec;
  }

  DTensorSpec WithPartial(DTensorSpec spec, ReduceOp op) const {
    for (const int m : class_cuts_) spec.placements[m] = Partial{op};
    return spec;
  }

  ProgramBuilder::Result Result(const std::string& what, Shape shape,
                                const DTensorSpec& spec, bool requires_grad) {
    return {absl::StrCat(JoinFqn(call_.fqn, call_.name), " ", what),
            {sums_dtype_, std::move(shape)},
            spec,
            requires_grad};
  }

  ValueId EmitOp(const std::string& name, std::vector<ProgramArgument> args,
                 const ProgramBuilder::Result& result) {
    Op op;
    op.target = absl::StrCat("shardplane.", name, ".default");
    op.fqn = call_.fqn;
    op.args = std::move(args);
    return builder_.EmitOp(std::move(op), {result})[0];
  }

  absl::StatusOr<ValueId> EmitMax() {
    const ValueId local =
        EmitOp("class_max", {{ValueRef{logits_id_}}, {int64_t{class_dim_}}},
               Result("maxima", rows_shape_,
                      WithPartial(rows_spec_, ReduceOp::kMax), false));
    return builder_.Demand(local, rows_spec_, {});
  }

  absl::StatusOr<ValueId> EmitTerms(ValueId max) {
    const bool all_logits = probabilities() || read_.label_smoothing > 0;
    ProgramArgument weight;
    if (read_.weight >= 0 && all_logits) {
      SP_ASSIGN_OR_RETURN(const ValueId id,
                          builder_.Demand(read_.weight, classes_spec_, {}));
      weight = {ValueRef{id}};
    }
    Shape shape = rows_shape_;
    shape.insert(shape.begin(), all_logits ? 3 : 2);
    const DTensorSpec whole = RowsSpec(1);
    const bool requires_grad = builder_.requires_grad(logits_id_) ||
                               builder_.requires_grad(target_id_);
    const ValueId local =
        EmitOp("cross_entropy_terms",
               {{ValueRef{logits_id_}},
                {ValueRef{max}},
                {ValueRef{target_id_}},
                weight,
                {int64_t{class_dim_}},
                {LocalOffset{{classes_, class_cuts_}}},
                {classes_},
                {read_.ignore_index},
                {read_.label_smoothing}},
               Result("terms", shape, WithPartial(whole, ReduceOp::kSum),
                      requires_grad));
    return builder_.Demand(local, whole, {});
  }

  absl::StatusOr<ValueId> EmitRows(ValueId terms) {
    ProgramArgument target;
    ProgramArgument weight;
    if (!probabilities()) {
      target = {ValueRef{target_id_}};
      if (read_.weight >= 0) {
        SP_ASSIGN_OR_RETURN(
            const ValueId id,
            builder_.Demand(read_.weight,
                            DTensorSpec::Replicated(builder_.mesh().ndim()),
                            {}));
        weight = {ValueRef{id}};
      }
    }
    Shape shape = rows_shape_;
    shape.insert(shape.begin(), 2);
    return EmitOp("cross_entropy_rows",
                  {{ValueRef{terms}},
                   target,
                   weight,
                   {classes_},
                   {read_.ignore_index},
                   {read_.label_smoothing}},
                  Result("rows", std::move(shape), RowsSpec(1),
                         builder_.requires_grad(terms)));
  }

  absl::StatusOr<ValueId> Call(const std::string& target,
                               std::vector<Argument> args) {
    ValueCall call{target, std::move(args), {}, {}, call_.fqn, call_.name};
    SP_ASSIGN_OR_RETURN(const std::vector<ValueId> ids, emitter_->Emit(call));
    return ids[0];
  }
  absl::StatusOr<ValueId> Row(ValueId rows, int64_t index) {
    return Call("aten.select.int",
                {RefTo(rows), {int64_t{0}}, Argument{index}});
  }

  // rows: each row's loss, then its denominator.
  absl::StatusOr<ValueId> Reduce(ValueId rows) {
    if (read_.reduction == kNoReduction) return Row(rows, 0);
    if (!rows_shape_.empty()) {
      ArgumentList dims;
      for (size_t d = 1; d <= rows_shape_.size(); ++d) {
        dims.push_back({static_cast<int64_t>(d)});
      }
      SP_ASSIGN_OR_RETURN(
          rows, Call("aten.sum.dim_IntList", {RefTo(rows), {std::move(dims)}}));
    }
    SP_ASSIGN_OR_RETURN(const ValueId loss, Row(rows, 0));
    if (read_.reduction != kMeanReduction) return loss;
    SP_ASSIGN_OR_RETURN(const ValueId count, Row(rows, 1));
    return Call("aten.div.Tensor", {RefTo(loss), RefTo(count)});
  }

  absl::StatusOr<ValueId> Convert(ValueId loss) {
    if (sums_dtype_ == logits_.type.dtype) return loss;
    return Call("aten.to.dtype", {RefTo(loss), {logits_.type.dtype}});
  }

  const ValueCall& call_;
  const CrossEntropyCall& read_;
  OpEmitter* emitter_;
  ProgramBuilder& builder_;
  const Value logits_;  // a copy: values move as the program grows
  const int class_dim_;
  const int64_t classes_;
  Shape rows_shape_;
  DTensorSpec logits_spec_;
  DTensorSpec classes_spec_;
  DTensorSpec rows_spec_;
  std::vector<int> class_cuts_;
  DType sums_dtype_ = DType::kFloat32;
  ValueId logits_id_ = -1;
  ValueId target_id_ = -1;
};

}  // namespace

absl::StatusOr<std::optional<std::vector<ValueId>>> EmitCrossEntropy(
    const ValueCall& call, OpEmitter* emitter) {
  SP_ASSIGN_OR_RETURN(const CrossEntropyCall read, Read(call));
  ProgramBuilder& builder = emitter->builder();
  builder.Settle(read.logits);
  const Value& logits = builder.value(read.logits);
  if (!HasShard(logits.spec) || logits.type.shape.empty()) return std::nullopt;
  SP_ASSIGN_OR_RETURN(const ValueId loss, Emission(call, read, emitter).Emit());
  return std::vector<ValueId>{loss};
}

}  // namespace shardplane
