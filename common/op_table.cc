#include "common/op_table.h"

#include <iterator>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_split.h"

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
    {"aten.subtract.Tensor", BuildPointwise, "", kSum},
    {"aten.mul.Tensor", BuildPointwise, "", kEach},
    {"aten.mul.Scalar", BuildPointwise, "", kEach},
    {"aten.multiply.Tensor", BuildPointwise, "", kEach},
    {"aten.multiply.Scalar", BuildPointwise, "", kEach},
    {"aten.div.Tensor", BuildPointwise, "", kFirst},
    {"aten.div.Scalar", BuildPointwise, "", kFirst},
    {"aten.divide.Tensor", BuildPointwise, "", kFirst},
    {"aten.divide.Scalar", BuildPointwise, "", kFirst},
    {"aten.true_divide.Tensor", BuildPointwise, "", kFirst},
    {"aten.true_divide.Scalar", BuildPointwise, "", kFirst},
    {"aten.neg.default", BuildPointwise, "", kEach},
    {"aten.negative.default", BuildPointwise, "", kEach},
    {"aten.clone.default", BuildPointwise, "", kEach},
    {"aten.alias.default", BuildPointwise, "", kEach},
    {"aten.contiguous.default", BuildPointwise, "", kEach},
    {"aten.to.dtype", BuildConvert, ""},
    {"aten.to.dtype_layout", BuildConvert, ""},
    {"aten.to.device", BuildConvert, "2"},
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
    {"aten.diff.default", BuildDiff, ""},
    {"aten.one_hot.default", BuildOneHot, ""},
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
    "aten.__and__.Scalar",
    "aten.__and__.Tensor",
    "aten.__lshift__.Scalar",
    "aten.__lshift__.Tensor",
    "aten.__or__.Scalar",
    "aten.__or__.Tensor",
    "aten.__rshift__.Scalar",
    "aten.__rshift__.Tensor",
    "aten.__xor__.Scalar",
    "aten.__xor__.Tensor",
    "aten.abs.default",
    "aten.absolute.default",
    "aten.acos.default",
    "aten.acosh.default",
    "aten.add.Scalar",
    "aten.addcdiv.default",
    "aten.addcmul.default",
    "aten.arccos.default",
    "aten.arccosh.default",
    "aten.arcsin.default",
    "aten.arcsinh.default",
    "aten.arctan.default",
    "aten.arctan2.default",
    "aten.arctanh.default",
    "aten.asin.default",
    "aten.asinh.default",
    "aten.atan.default",
    "aten.atan2.default",
    "aten.atanh.default",
    "aten.bitwise_and.Scalar",
    "aten.bitwise_and.Tensor",
    "aten.bitwise_left_shift.Tensor",
    "aten.bitwise_left_shift.Tensor_Scalar",
    "aten.bitwise_not.default",
    "aten.bitwise_or.Scalar",
    "aten.bitwise_or.Tensor",
    "aten.bitwise_right_shift.Tensor",
    "aten.bitwise_right_shift.Tensor_Scalar",
    "aten.bitwise_xor.Scalar",
    "aten.bitwise_xor.Tensor",
    "aten.ceil.default",
    "aten.celu.default",
    "aten.clamp.Tensor",
    "aten.clamp.default",
    "aten.clamp_max.Tensor",
    "aten.clamp_max.default",
    "aten.clamp_min.Tensor",
    "aten.clamp_min.default",
    "aten.clip.Tensor",
    "aten.clip.default",
    "aten.cos.default",
    "aten.cosh.default",
    "aten.deg2rad.default",
    "aten.digamma.default",
    "aten.div.Scalar_mode",
    "aten.div.Tensor_mode",
    "aten.elu.default",
    "aten.erf.default",
    "aten.erfc.default",
    "aten.erfinv.default",
    "aten.exp.default",
    "aten.exp2.default",
    "aten.expm1.default",
    "aten.fix.default",
    "aten.float_power.Scalar",
    "aten.float_power.Tensor_Scalar",
    "aten.float_power.Tensor_Tensor",
    "aten.floor.default",
    "aten.floor_divide.Scalar",
    "aten.floor_divide.default",
    "aten.fmax.default",
    "aten.fmin.default",
    "aten.fmod.Scalar",
    "aten.fmod.Tensor",
    "aten.frac.default",
    "aten.gcd.default",
    "aten.gelu.default",
    "aten.hardshrink.default",
    "aten.hardsigmoid.default",
    "aten.hardswish.default",
    "aten.hardtanh.default",
    "aten.heaviside.default",
    "aten.hypot.default",
    "aten.leaky_relu.default",
    "aten.lerp.Scalar",
    "aten.lerp.Tensor",
    "aten.lgamma.default",
    "aten.log.default",
    "aten.log1p.default",
    "aten.log2.default",
    "aten.log_sigmoid.default",
    "aten.logaddexp.default",
    "aten.logaddexp2.default",
    "aten.logit.default",
    "aten.masked_fill.Scalar",
    "aten.masked_fill.Tensor",
    "aten.max.other",
    "aten.maximum.default",
    "aten.min.other",
    "aten.minimum.default",
    "aten.mish.default",
    "aten.nan_to_num.default",
    "aten.positive.default",
    "aten.pow.Scalar",
    "aten.pow.Tensor_Scalar",
    "aten.pow.Tensor_Tensor",
    "aten.rad2deg.default",
    "aten.reciprocal.default",
    "aten.relu.default",
    "aten.relu6.default",
    "aten.remainder.Scalar",
    "aten.remainder.Scalar_Tensor",
    "aten.remainder.Tensor",
    "aten.round.decimals",
    "aten.round.default",
    "aten.rsqrt.default",
    "aten.rsub.Scalar",
    "aten.rsub.Tensor",
    "aten.selu.default",
    "aten.sgn.default",
    "aten.sigmoid.default",
    "aten.sign.default",
    "aten.silu.default",
    "aten.sin.default",
    "aten.sinc.default",
    "aten.sinh.default",
    "aten.softplus.default",
    "aten.softshrink.default",
    "aten.special_erf.default",
    "aten.special_erfc.default",
    "aten.special_exp2.default",
    "aten.special_expit.default",
    "aten.special_expm1.default",
    "aten.special_log1p.default",
    "aten.special_xlog1py.default",
    "aten.sqrt.default",
    "aten.square.default",
    "aten.sub.Scalar",
    "aten.tan.default",
    "aten.tanh.default",
    "aten.threshold.default",
    "aten.trunc.default",
    "aten.where.Scalar",
    "aten.where.ScalarOther",
    "aten.where.ScalarSelf",
    "aten.where.self",
    "aten.xlogy.Scalar_Other",
    "aten.xlogy.Scalar_Self",
    "aten.xlogy.Tensor",
};
constexpr absl::string_view kComparisons[] = {
    "aten.eq.Scalar",
    "aten.eq.Tensor",
    "aten.ge.Scalar",
    "aten.ge.Tensor",
    "aten.greater.Scalar",
    "aten.greater.Tensor",
    "aten.greater_equal.Scalar",
    "aten.greater_equal.Tensor",
    "aten.gt.Scalar",
    "aten.gt.Tensor",
    "aten.isclose.default",
    "aten.isfinite.default",
    "aten.isinf.default",
    "aten.isnan.default",
    "aten.isneginf.default",
    "aten.isposinf.default",
    "aten.le.Scalar",
    "aten.le.Tensor",
    "aten.less.Scalar",
    "aten.less.Tensor",
    "aten.less_equal.Scalar",
    "aten.less_equal.Tensor",
    "aten.logical_and.default",
    "aten.logical_not.default",
    "aten.logical_or.default",
    "aten.logical_xor.default",
    "aten.lt.Scalar",
    "aten.lt.Tensor",
    "aten.ne.Scalar",
    "aten.ne.Tensor",
    "aten.not_equal.Scalar",
    "aten.not_equal.Tensor",
    "aten.signbit.default",
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

// Names without overload, as below.
constexpr absl::string_view kRandomNames[] = {
    "alpha_dropout",
    "bernoulli",
    "cauchy",
    "exponential",
    "feature_alpha_dropout",
    "feature_dropout",
    "geometric",
    "log_normal",
    "multinomial",
    "native_dropout",
    "normal",
    "normal_functional",
    "poisson",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "random",
    "randperm",
    "rrelu",
    "rrelu_with_noise",
    "rrelu_with_noise_functional",
    "uniform",
};

constexpr absl::string_view kDataDependentNames[] = {
    "_unique2", "argwhere",      "bincount",           "masked_select",
    "nonzero",  "nonzero_numpy", "unique_consecutive", "unique_dim",
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

using NameSet = absl::flat_hash_set<absl::string_view>;

template <size_t n>
const NameSet* SetOf(const absl::string_view (&names)[n]) {
  return new NameSet(std::begin(names), std::end(names));
}

}  // namespace

const OpRow* FindRow(absl::string_view target) {
  const auto row = Rows().find(target);
  return row == Rows().end() ? nullptr : &row->second;
}

Rowless KindOfRowless(absl::string_view target) {
  static const NameSet* const safe = SetOf(kSafeNames);
  static const NameSet* const random = SetOf(kRandomNames);
  static const NameSet* const data_dependent = SetOf(kDataDependentNames);
  const std::vector<absl::string_view> parts = absl::StrSplit(target, '.');
  if (parts.size() < 2 || parts[0] != "aten") return Rowless::kUnknown;
  if (safe->contains(parts[1])) return Rowless::kSafe;
  if (random->contains(parts[1])) return Rowless::kRandom;
  if (data_dependent->contains(parts[1])) return Rowless::kDataDependent;
  return Rowless::kUnknown;
}

}  // namespace shardplane
