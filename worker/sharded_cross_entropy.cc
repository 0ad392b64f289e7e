#include <limits>
#include <optional>
#include <vector>

#include "ATen/OpMathType.h"
#include "ATen/WrapDimUtils.h"
#include "ATen/core/Tensor.h"
#include "ATen/ops/full.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/ones_like.h"
#include "ATen/ops/scalar_tensor.h"
#include "ATen/ops/stack.h"
#include "ATen/ops/zeros_like.h"
#include "worker/class_ids.h"
#include "worker/sharded_operators.h"

namespace shardplane {
namespace {

// `tensor`'s sizes, `dim` left out.
std::vector<int64_t> Without(const at::Tensor& tensor, int64_t dim) {
  std::vector<int64_t> sizes = tensor.sizes().vec();
  sizes.erase(sizes.begin() + dim);
  return sizes;
}

void CheckTerms(const at::Tensor& logits, const at::Tensor& max,
                const std::optional<at::Tensor>& weight, int64_t dim,
                int64_t offset, int64_t classes) {
  const int64_t count = logits.size(dim);
  TORCH_CHECK_VALUE(offset >= 0 && offset + count <= classes,
                    "cross-entropy: expected logits of a part of ", classes,
                    " classes; got: ", count, " from ", offset);
  const std::vector<int64_t> batch = Without(logits, dim);
  TORCH_CHECK_VALUE(max.sizes() == batch, "cross-entropy: expected a max of ",
                    at::IntArrayRef(batch), "; got: ", max.sizes());
  if (!weight.has_value()) return;
  TORCH_CHECK_VALUE(weight->dim() == 1 && weight->size(0) == count,
                    "cross-entropy: expected weights of ", count,
                    " classes; got: ", weight->sizes());
}

// A row's logits minus its max, and the weights of its classes.
struct Rows {
  at::Tensor logits;  // in the type that is computed in
  at::Tensor max;     // the same, without `dim`
  at::Tensor x;       // logits - max
  at::Tensor exp_sum;
  std::optional<at::Tensor> weight;
  int64_t dim = 0;

  at::Tensor Weighted(const at::Tensor& values) const {
    if (!weight.has_value()) return values;
    std::vector<int64_t> sizes(x.dim(), 1);
    sizes[dim] = x.size(dim);
    return values.mul(weight->to(x.scalar_type()).view(sizes));
  }
};

// x of each row's target, where it is one of this rank's classes.
at::Tensor Pick(const Rows& rows, const at::Tensor& target, int64_t offset,
                int64_t ignore_index) {
  const int64_t count = rows.x.size(rows.dim);
  if (count == 0) return at::zeros_like(rows.exp_sum);
  const at::Tensor local = target.to(at::kLong).sub(offset);
  const at::Tensor elsewhere = local.lt(0)
                                   .logical_or_(local.ge(count))
                                   .logical_or_(target.eq(ignore_index));
  const at::Tensor index = local.masked_fill(elsewhere, 0).unsqueeze(rows.dim);
  // Of the logits, not of x: autograd keeps what is gathered from, and the
  // logits are kept anyway.
  return rows.logits.gather(rows.dim, index)
      .squeeze(rows.dim)
      .sub(rows.max)
      .masked_fill(elsewhere, 0);
}

at::Tensor TermsOfIds(const Rows& rows, const at::Tensor& target,
                      int64_t offset, int64_t classes, int64_t ignore_index,
                      double label_smoothing) {
  TORCH_CHECK_VALUE(target.sizes() == rows.max.sizes(),
                    "cross-entropy: expected class ids of ", rows.max.sizes(),
                    "; got: ", target.sizes());
  const at::Tensor ids = CheckedIds("Target", target, {classes, ignore_index});
  const at::Tensor picked = Pick(rows, ids, offset, ignore_index);
  if (!(label_smoothing > 0)) return at::stack({rows.exp_sum, picked});
  return at::stack({rows.exp_sum, picked, rows.Weighted(rows.x).sum(rows.dim)});
}

at::Tensor TermsOfProbabilities(const Rows& rows, const at::Tensor& target,
                                int64_t classes, double label_smoothing) {
  TORCH_CHECK_VALUE(target.sizes() == rows.x.sizes(),
                    "cross-entropy: expected probabilities of ", rows.x.sizes(),
                    "; got: ", target.sizes());
  at::Tensor share = target.to(rows.x.scalar_type());
  if (label_smoothing > 0) {
    share = share.mul(1 - label_smoothing)
                .add(label_smoothing / static_cast<double>(classes));
  }
  share = rows.Weighted(share);
  return at::stack(
      {rows.exp_sum, share.mul(rows.x).sum(rows.dim), share.sum(rows.dim)});
}

struct ClassWeights {
  at::Tensor of_target;  // shaped as the target
  at::Tensor sum;
};

ClassWeights WeightsOf(const at::Tensor& target,
                       const std::optional<at::Tensor>& weight, int64_t classes,
                       const at::Tensor& terms) {
  if (!weight.has_value()) {
    return {at::ones(target.sizes(), terms.options()),
            at::scalar_tensor(classes, terms.options())};
  }
  TORCH_CHECK_VALUE(weight->dim() == 1 && weight->size(0) == classes,
                    "cross-entropy: expected weights of ", classes,
                    " classes; got: ", weight->sizes());
  const at::Tensor all = weight->to(terms.scalar_type());
  return {
      all.index_select(0, target.to(at::kLong).flatten()).view(target.sizes()),
      all.sum()};
}

}  // namespace

at::Tensor ClassMax(const at::Tensor& logits, int64_t dim) {
  dim = at::maybe_wrap_dim(dim, logits.dim());
  const at::ScalarType type = at::toOpMathType(logits.scalar_type());
  if (logits.size(dim) == 0) {
    return at::full(Without(logits, dim),
                    -std::numeric_limits<double>::infinity(),
                    logits.options().dtype(type));
  }
  return logits.detach().amax(dim).to(type);
}

at::Tensor CrossEntropyTerms(const at::Tensor& logits, const at::Tensor& max,
                             const at::Tensor& target,
                             const std::optional<at::Tensor>& weight,
                             int64_t dim, int64_t offset, int64_t classes,
                             int64_t ignore_index, double label_smoothing) {
  dim = at::maybe_wrap_dim(dim, logits.dim());
  CheckTerms(logits, max, weight, dim, offset, classes);
  const at::ScalarType type = at::toOpMathType(logits.scalar_type());
  Rows rows{.logits = logits.to(type),
            .max = max.detach().to(type),
            .weight = weight,
            .dim = dim};
  rows.x = rows.logits.sub(rows.max.unsqueeze(dim));
  rows.exp_sum = rows.x.exp().sum(dim);
  return target.is_floating_point()
             ? TermsOfProbabilities(rows, target, classes, label_smoothing)
             : TermsOfIds(rows, target, offset, classes, ignore_index,
                          label_smoothing);
}

at::Tensor CrossEntropyRows(const at::Tensor& terms,
                            const std::optional<at::Tensor>& target,
                            const std::optional<at::Tensor>& weight,
                            int64_t classes, int64_t ignore_index,
                            double label_smoothing) {
  const int64_t rows = target.has_value() && !(label_smoothing > 0) ? 2 : 3;
  TORCH_CHECK_VALUE(terms.dim() > 0 && terms.size(0) == rows,
                    "cross-entropy: expected ", rows,
                    " terms; got: ", terms.sizes());
  const at::Tensor log_sum = terms[0].log();
  if (!target.has_value()) {
    const at::Tensor loss = terms[2].mul(log_sum).sub(terms[1]);
    return at::stack({loss, at::ones_like(loss)});
  }
  TORCH_CHECK_VALUE(
      target->sizes() == log_sum.sizes() && !target->is_floating_point(),
      "cross-entropy: expected class ids of ", log_sum.sizes(),
      "; got: ", target->scalar_type(), target->sizes());
  const at::Tensor ids = CheckedIds("Target", *target, {classes, ignore_index});
  const at::Tensor ignored = ids.eq(ignore_index);
  const ClassWeights weights =
      WeightsOf(ids.masked_fill(ignored, 0), weight, classes, terms);
  at::Tensor loss = log_sum.sub(terms[1]).mul(weights.of_target);
  if (label_smoothing > 0) {
    const at::Tensor smooth = log_sum.mul(weights.sum).sub(terms[2]);
    loss = loss.mul(1 - label_smoothing)
               .add(smooth, label_smoothing / static_cast<double>(classes));
  }
  return at::stack({loss.masked_fill(ignored, 0),
                    weights.of_target.masked_fill(ignored, 0)});
}

}  // namespace shardplane
