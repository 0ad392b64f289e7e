#include "common/op_rules.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/errors.h"
#include "common/op_builders.h"

namespace shardplane {
namespace {

constexpr Linearity kEach = Linearity::kEach;
constexpr Linearity kFirst = Linearity::kFirst;
constexpr Linearity kSum = Linearity::kSum;
constexpr Linearity kNone = Linearity::kNone;

constexpr OpRow kRows[] = {
    // Products. The bias of a linear with a cut k is added after the sum.
    {"aten.linear.default", BuildEinsum, "* k, n k | ^ -> * n", kNone,
     "aten.linear.default"},
    {"aten.addmm.default", BuildEinsum, "^ | m k, k n -> m n", kNone,
     "aten.mm.default"},
    {"aten.baddbmm.default", BuildEinsum, "^ | b m k, b k n -> b m n", kNone,
     "aten.bmm.default"},
    {"aten.mm.default", BuildEinsum, "m k, k n -> m n"},
    {"aten.bmm.default", BuildEinsum, "b m k, b k n -> b m n"},
    {"aten.mv.default", BuildEinsum, "m k, k -> m"},
    {"aten.dot.default", BuildEinsum, "k, k -> "},
    {"aten.matmul.default", BuildMatmul, ""},
    {"aten.embedding.default", BuildEmbedding, ""},
    {"aten.layer_norm.default", BuildNorm, ""},
    {"aten.rms_norm.default", BuildNorm, ""},
    {"aten.scaled_dot_product_attention.default", BuildAttention, ""},
    // Sums and products by element.
    {"aten.add.Tensor", BuildPointwise, "", kSum},
    {"aten.sub.Tensor", BuildPointwise, "", kSum},
    {"aten.mul.Tensor", BuildPointwise, "", kEach},
    {"aten.mul.Scalar", BuildPointwise, "", kEach},
    {"aten.div.Tensor", BuildPointwise, "", kFirst},
    {"aten.div.Scalar", BuildPointwise, "", kFirst},
    {"aten.neg.default", BuildPointwise, "", kEach},
    {"aten.clone.default", BuildPointwise, "", kEach},
    {"aten.alias.default", BuildPointwise, "", kEach},
    {"aten.contiguous.default", BuildPointwise, "", kEach},
    {"aten.to.dtype", BuildConvert, ""},
    {"aten.to.dtype_layout", BuildConvert, ""},
    {"aten._to_copy.default", BuildConvert, ""},
    {"aten.type_as.default", BuildPointwise, "", kNone},
    {"aten.dropout.default", BuildDropout, "", kEach},
    // Views.
    {"aten.view.default", BuildView, "sizes"},
    {"aten.reshape.default", BuildView, "sizes"},
    {"aten._unsafe_view.default", BuildView, "sizes"},
    {"aten.flatten.using_ints", BuildView, "flatten"},
    {"aten.unflatten.int", BuildView, "unflatten"},
    {"aten.unsqueeze.default", BuildView, "unsqueeze"},
    {"aten.squeeze.default", BuildView, "squeeze"},
    {"aten.squeeze.dim", BuildView, "squeeze"},
    {"aten.squeeze.dims", BuildView, "squeeze"},
    {"aten.expand.default", BuildExpand, ""},
    {"aten.permute.default", BuildPermute, "dims"},
    {"aten.transpose.int", BuildPermute, "swap"},
    {"aten.t.default", BuildPermute, "t"},
    {"aten.numpy_T.default", BuildPermute, "t"},
    {"aten.mT.default", BuildPermute, "t"},
    // Joining, parting, picking.
    {"aten.cat.default", BuildCat, ""},
    {"aten.stack.default", BuildStack, ""},
    {"aten.split.Tensor", BuildSplit, "size"},
    {"aten.split_with_sizes.default", BuildSplit, "sizes"},
    {"aten.split.sizes", BuildSplit, "sizes"},
    {"aten.chunk.default", BuildSplit, "chunk"},
    {"aten.unbind.int", BuildUnbind, ""},
    {"aten.select.int", BuildSelect, ""},
    {"aten.slice.Tensor", BuildSlice, "end"},
    {"aten.narrow.default", BuildSlice, "length"},
    {"aten.repeat_interleave.self_int", BuildRepeatInterleave, ""},
    {"aten.tril.default", BuildTriangle, ""},
    {"aten.triu.default", BuildTriangle, ""},
    // Factories.
    {"aten.arange.default", BuildFactory, ""},
    {"aten.arange.start", BuildFactory, ""},
    {"aten.arange.start_step", BuildFactory, ""},
    {"aten.zeros.default", BuildFactory, "size"},
    {"aten.ones.default", BuildFactory, "size"},
    {"aten.full.default", BuildFactory, "size"},
    {"aten.eye.default", BuildFactory, ""},
    {"aten.linspace.default", BuildFactory, ""},
    {"aten.scalar_tensor.default", BuildFactory, ""},
    {"aten.zeros_like.default", BuildLike, ""},
    {"aten.ones_like.default", BuildLike, ""},
    {"aten.full_like.default", BuildLike, ""},
    // Reductions.
    {"aten.sum.default", BuildReduce, "sum"},
    {"aten.sum.dim_IntList", BuildReduce, "sum"},
    {"aten.mean.default", BuildReduce, "mean"},
    {"aten.mean.dim", BuildReduce, "mean"},
    {"aten.amax.default", BuildReduce, "whole"},
    {"aten.amin.default", BuildReduce, "whole"},
    {"aten.softmax.int", BuildAlongDim, ""},
    {"aten._safe_softmax.default", BuildAlongDim, ""},
    {"aten.log_softmax.int", BuildAlongDim, ""},
    {"aten.cumsum.default", BuildAlongDim, ""},
    // Losses over whole logits.
    {"aten.cross_entropy_loss.default", BuildClassLoss, ""},
    {"aten.nll_loss_nd.default", BuildClassLoss, ""},
};

// Pointwise and not linear: by element, on operands that broadcast.
constexpr absl::string_view kPointwise[] = {
    "aten.abs.default",          "aten.clamp.default",
    "aten.clamp_min.default",    "aten.cos.default",
    "aten.elu.default",          "aten.erf.default",
    "aten.exp.default",          "aten.gelu.default",
    "aten.hardtanh.default",     "aten.leaky_relu.default",
    "aten.log.default",          "aten.log1p.default",
    "aten.maximum.default",      "aten.minimum.default",
    "aten.mish.default",         "aten.pow.Tensor_Scalar",
    "aten.pow.Tensor_Tensor",    "aten.reciprocal.default",
    "aten.relu.default",         "aten.relu6.default",
    "aten.rsqrt.default",        "aten.rsub.Scalar",
    "aten.sigmoid.default",      "aten.sign.default",
    "aten.silu.default",         "aten.sin.default",
    "aten.softplus.default",     "aten.sqrt.default",
    "aten.square.default",       "aten.tanh.default",
    "aten.where.self",           "aten.masked_fill.Scalar",
    "aten.where.ScalarOther",    "aten.where.ScalarSelf",
    "aten.where.Scalar",         "aten.masked_fill.Tensor",
    "aten.exp2.default",         "aten.expm1.default",
    "aten.log2.default",         "aten.pow.Scalar",
    "aten.clamp_max.default",    "aten.clamp.Tensor",
    "aten.celu.default",         "aten.selu.default",
    "aten.threshold.default",    "aten.softsign.default",
    "aten.sinh.default",         "aten.cosh.default",
    "aten.tan.default",          "aten.atan.default",
    "aten.__and__.Tensor",       "aten.__or__.Tensor",
    "aten.__xor__.Tensor",       "aten.bitwise_and.Tensor",
    "aten.bitwise_or.Tensor",    "aten.bitwise_xor.Tensor",
    "aten.bitwise_not.default",  "aten.div.Tensor_mode",
    "aten.remainder.Scalar",     "aten.remainder.Tensor",
    "aten.floor_divide.default", "aten.floor.default",
    "aten.round.default",        "aten.add.Scalar",
    "aten.sub.Scalar",           "aten.hardsigmoid.default",
    "aten.hardswish.default",    "aten.logsigmoid.default",
    "aten.log_sigmoid.default",
};
constexpr absl::string_view kComparisons[] = {
    "aten.eq.Tensor",           "aten.eq.Scalar",
    "aten.ne.Tensor",           "aten.ne.Scalar",
    "aten.lt.Tensor",           "aten.lt.Scalar",
    "aten.le.Tensor",           "aten.le.Scalar",
    "aten.gt.Tensor",           "aten.gt.Scalar",
    "aten.ge.Tensor",           "aten.ge.Scalar",
    "aten.logical_and.default", "aten.logical_or.default",
    "aten.logical_not.default", "aten.logical_xor.default",
    "aten.isnan.default",       "aten.isinf.default",
    "aten.isfinite.default",
};

// Functional, deterministic ops that may run alike on every rank for want of a
// row. Names without overload. Nothing random, nothing in place.
constexpr absl::string_view kSafeNames[] = {
    "adaptive_avg_pool2d",
    "addcdiv",
    "addcmul",
    "all",
    "any",
    "argmax",
    "argmin",
    "avg_pool1d",
    "avg_pool2d",
    "binary_cross_entropy_with_logits",
    "conv1d",
    "conv2d",
    "cumprod",
    "diagonal",
    "einsum",

    "flip",
    "gather",
    "group_norm",
    "huber_loss",
    "index",
    "index_select",
    "kl_div",
    "l1_loss",
    "linalg_vector_norm",
    "logsumexp",
    "max",
    "max_pool2d",
    "min",
    "mse_loss",
    "norm",
    "outer",
    "pad",
    "prod",
    "repeat",
    "repeat_interleave",
    "roll",
    "scatter",
    "smooth_l1_loss",
    "sort",
    "std",
    "topk",
    "unfold",
    "var",
    "var_mean",
};

using RowTable = absl::flat_hash_map<absl::string_view, OpRow>;

const RowTable& Rows() {
  static const RowTable* const table = [] {
    auto* rows = new RowTable;
    for (const OpRow& row : kRows) rows->emplace(row.target, row);
    for (const absl::string_view target : kPointwise) {
      rows->emplace(target, OpRow{target, BuildPointwise, "", kNone});
    }
    for (const absl::string_view target : kComparisons) {
      rows->emplace(target, OpRow{target, BuildPointwise, "bool", kNone});
    }
    rows->emplace("aten.detach.default",
                  OpRow{"aten.detach.default", BuildPointwise, "", kEach});
    return rows;
  }();
  return *table;
}

bool IsSafe(const OpCall& call) {
  static const auto* const names = new absl::flat_hash_set<absl::string_view>(
      std::begin(kSafeNames), std::end(kSafeNames));
  const std::vector<std::string> parts = absl::StrSplit(call.target, '.');
  return parts.size() >= 2 && parts[0] == "aten" && names->contains(parts[1]);
}

absl::Status Unsupported(const OpCall& call) {
  return MakeError(
      absl::StatusCode::kUnimplemented,
      absl::StrCat("the op has no sharding rule and is not known to be safe to "
                   "run alike on every rank; got: ",
                   call.target),
      {"OP_UNSUPPORTED", {{"op", call.target}}});
}

absl::Status CheckRecorded(const OpCall& call, OpInstance* op) {
  if (call.results.empty()) return absl::OkStatus();
  if (call.results.size() != op->results.size()) {
    return BadCall(call, absl::StrCat(op->results.size(), " results"),
                   absl::StrCat(call.results.size(), " recorded"));
  }
  for (size_t i = 0; i < op->results.size(); ++i) {
    TensorType& type = op->results[i].type;
    if (type.shape != call.results[i].shape) {
      return BadCall(call, absl::StrCat("result ", ShapeToString(type.shape)),
                     absl::StrCat(ToString(call.results[i]), " recorded"));
    }
    type.dtype = call.results[i].dtype;
  }
  return absl::OkStatus();
}

void CollectTensors(const Argument& argument, std::vector<NodeRef>* out) {
  if (const auto* ref = std::get_if<NodeRef>(&argument.value)) {
    out->push_back(*ref);
  } else if (const auto* list = std::get_if<ArgumentList>(&argument.value)) {
    for (const Argument& item : *list) CollectTensors(item, out);
  }
}

}  // namespace

absl::StatusOr<OpInstance> MakeOpInstance(const OpCall& call) {
  OpInstance op;
  op.target = call.target;
  op.args = call.args;
  op.kwargs = call.kwargs;
  const auto row = Rows().find(call.target);
  if (row != Rows().end()) {
    SP_RETURN_IF_ERROR(row->second.build(row->second, call, &op));
  } else if (IsSafe(call)) {
    op.has_row = false;
    SP_RETURN_IF_ERROR(BuildWhole({}, call, &op));
  } else {
    return Unsupported(call);
  }
  if (call.target == "aten.detach.default") op.differentiable = false;
  SP_RETURN_IF_ERROR(CheckRecorded(call, &op));
  return op;
}

std::vector<NodeRef> TensorArguments(
    const std::vector<Argument>& args,
    const absl::btree_map<std::string, Argument>& kwargs) {
  std::vector<NodeRef> refs;
  for (const Argument& arg : args) CollectTensors(arg, &refs);
  for (const auto& [name, arg] : kwargs) CollectTensors(arg, &refs);
  return refs;
}

}  // namespace shardplane
