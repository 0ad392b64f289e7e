// Operators of our own, for what a rank computes on its part of a tensor and
// ATen has no operator for. Programs name them "shardplane.embedding.default".
// All are made of at:: calls, so that autograd sees through them, and take
// f64, f32, bf16 and f16 on any device (embedding and dropout c64 and c128
// too, view_as_complex f64 and f32 alone). They throw c10::Errors: IndexError
// for an id out of range, ValueError for shapes that do not fit.
#ifndef SHARDPLANE_WORKER_SHARDED_OPERATORS_H_
#define SHARDPLANE_WORKER_SHARDED_OPERATORS_H_

#include <cstdint>
#include <optional>

#include "ATen/core/Tensor.h"

namespace shardplane {

// Makes them known to LibTorch's dispatcher, once a process; any thread.
void RegisterShardedOperators();

// Rows `offset` … of a weight of `vocabulary` rows, looked up: weight[v, e]
// and indices[...] -> [..., e]. Ids whose rows lie elsewhere yield zeros, so
// that the ranks' results add up. Every id must be in [0, vocabulary). The row
// `padding_idx` (a global id; -1: none) gets no gradient.
//   rows 2 and 3 of 4, ids 3 0 2 -> their second row, zeros, their first row
at::Tensor ShardedEmbedding(const at::Tensor& weight, const at::Tensor& indices,
                            int64_t offset, int64_t vocabulary,
                            int64_t padding_idx);

// x * mask / (1 - p), where x is the part at `offsets` of a tensor of `sizes`
// and common/dropout_mask draws the mask for random = i64[2] (seed, step) and
// `node`. With p = 1 all is zero.
at::Tensor CounterDropout(const at::Tensor& x, const at::Tensor& random,
                          double p, int64_t node, at::IntArrayRef sizes,
                          at::IntArrayRef offsets);

// aten.scaled_dot_product_attention, and nothing where the result is empty:
// on a rank without heads LibTorch 2.11 divides by their number (SIGFPE).
at::Tensor ShardedAttention(const at::Tensor& query, const at::Tensor& key,
                            const at::Tensor& value,
                            const std::optional<at::Tensor>& mask,
                            double dropout_p, bool is_causal,
                            std::optional<double> scale, bool enable_gqa);

// aten.view_as_complex of x [..., 2], also where the rank's part is empty and
// has strides that it refuses.
at::Tensor ViewAsComplex(const at::Tensor& x);

// Cross-entropy of logits whose classes are cut over ranks takes three steps:
//   max   = class_max(logits, dim)           its max over ranks
//   terms = cross_entropy_terms(logits, max, target, ...)   its sum over ranks
//   rows  = cross_entropy_rows(terms, target, ...)
// `batch` are the logits' dims without `dim`. bf16 and f16 are computed in,
// and give, f32.

// [batch]: the largest logit, -inf of no classes. Has no gradient.
at::Tensor ClassMax(const at::Tensor& logits, int64_t dim);

// What this rank's classes, `offset` … of `classes`, add to each row's loss.
// `max` is of all classes, and a constant here: the loss does not depend on
// it. x is a row's logits minus its max, w the classes' weights (`weight` has
// those of this rank; none: 1), eps the label smoothing.
// Target of class ids [batch]: [2, batch], with eps > 0 [3, batch]:
//   sum of exp(x)
//   x of the target; 0 where it is on another rank or `ignore_index`
//   sum of w x
// An id that is not in [0, classes) nor `ignore_index` is an error everywhere.
// Target of probabilities, floating point, shaped and cut as the logits,
// t = target (1 - eps) + eps / classes: [3, batch]:
//   sum of exp(x)
//   sum of w t x
//   sum of w t
at::Tensor CrossEntropyTerms(const at::Tensor& logits, const at::Tensor& max,
                             const at::Tensor& target,
                             const std::optional<at::Tensor>& weight,
                             int64_t dim, int64_t offset, int64_t classes,
                             int64_t ignore_index, double label_smoothing);

// [2, batch] from the terms of all ranks: each row's loss, and what it counts
// in the mean, which is the sum of the losses over the sum of these. `target`
// has the class ids, none: probabilities. `weight` is that of all classes; it
// takes part with class ids alone. An ignored row is 0 and counts 0.
at::Tensor CrossEntropyRows(const at::Tensor& terms,
                            const std::optional<at::Tensor>& target,
                            const std::optional<at::Tensor>& weight,
                            int64_t classes, int64_t ignore_index,
                            double label_smoothing);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHARDED_OPERATORS_H_
