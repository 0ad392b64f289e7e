#include "worker/sharded_operators.h"

#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/ops/embedding.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/scaled_dot_product_attention.h"
#include "ATen/ops/tensor.h"
#include "ATen/ops/view_as_complex.h"
#include "ATen/ops/where.h"
#include "ATen/ops/zeros.h"
#include "absl/types/span.h"
#include "common/dropout_mask.h"
#include "common/tensor_spec.h"
#include "torch/library.h"
#include "worker/class_ids.h"
#include "worker/fused_operators.h"

namespace shardplane {
namespace {

// The ids whose rows lie here, each with its place among all. On the CPU.
struct LocalIds {
  at::Tensor places;
  at::Tensor rows;
};

LocalIds FindLocalIds(const at::Tensor& ids, int64_t offset, int64_t rows) {
  const at::Tensor all = ids.to(at::kLong).contiguous();
  const int64_t* const id = all.const_data_ptr<int64_t>();
  std::vector<int64_t> places;
  std::vector<int64_t> found;
  for (int64_t i = 0; i < all.numel(); ++i) {
    if (id[i] < offset || id[i] >= offset + rows) continue;
    places.push_back(i);
    found.push_back(id[i] - offset);
  }
  return {at::tensor(places, at::kLong), at::tensor(found, at::kLong)};
}

// Zeros where an id's row lies elsewhere; `weight` has some rows.
at::Tensor EmbedLocalIds(const at::Tensor& weight, const at::Tensor& ids,
                         int64_t offset, int64_t padding_idx) {
  const int64_t rows = weight.size(0);
  const bool pads = padding_idx >= offset && padding_idx < offset + rows;
  const int64_t padding = pads ? padding_idx - offset : -1;
  if (weight.is_cpu()) {
    const LocalIds local = FindLocalIds(ids, offset, rows);
    std::vector<int64_t> sizes = ids.sizes().vec();
    sizes.push_back(weight.size(1));
    return at::zeros({ids.numel(), weight.size(1)}, weight.options())
        .index_copy_(0, local.places,
                     at::embedding(weight, local.rows, padding))
        .view(sizes);
  }
  // On a GPU the host does not learn which they are.
  const at::Tensor local = ids.to(at::kLong).sub(offset);
  const at::Tensor elsewhere = local.lt(0).logical_or_(local.ge(rows));
  return at::embedding(weight, local.masked_fill(elsewhere, 0), padding)
      .masked_fill(elsewhere.unsqueeze(-1), 0);
}

}  // namespace

at::Tensor ShardedEmbedding(const at::Tensor& weight, const at::Tensor& indices,
                            int64_t offset, int64_t vocabulary,
                            int64_t padding_idx) {
  TORCH_CHECK_VALUE(
      weight.dim() == 2,
      "an embedding's weight: expected 2 dims; got: ", weight.sizes());
  const int64_t rows = weight.size(0);
  TORCH_CHECK_VALUE(offset >= 0 && offset + rows <= vocabulary,
                    "an embedding's weight: expected a part of ", vocabulary,
                    " rows; got: ", rows, " from ", offset);
  const at::Tensor ids = CheckedIds("Index", indices, {.count = vocabulary});
  if (rows == vocabulary) return at::embedding(weight, ids, padding_idx);
  if (rows == 0) {
    std::vector<int64_t> sizes = indices.sizes().vec();
    sizes.push_back(weight.size(1));
    // The sum of nothing is zero, and leads autograd to the weight.
    return at::zeros(sizes, weight.options()).add(weight.sum());
  }
  return EmbedLocalIds(weight, ids, offset, padding_idx);
}

at::Tensor CounterDropout(const at::Tensor& x, const at::Tensor& random,
                          double p, int64_t node, at::IntArrayRef sizes,
                          at::IntArrayRef offsets) {
  TORCH_CHECK_VALUE(random.numel() == 2 && random.scalar_type() == at::kLong,
                    "a dropout's random: expected i64[2]; got: ",
                    random.scalar_type(), random.sizes());
  TORCH_CHECK_VALUE(offsets.size() == sizes.size() &&
                        static_cast<int64_t>(sizes.size()) == x.dim(),
                    "a dropout: expected ", x.dim(),
                    " sizes and offsets; got: ", sizes, " and ", offsets);
  const at::Tensor host = random.cpu().contiguous();
  const int64_t* words = host.const_data_ptr<int64_t>();
  std::vector<Extent> part;
  for (int64_t dim = 0; dim < x.dim(); ++dim) {
    part.push_back({offsets[dim], x.size(dim)});
  }
  const at::Tensor keep = at::empty(x.sizes(), at::kBool);
  const absl::Status status = DropoutMask(
      {.seed = static_cast<uint64_t>(words[0]),
       .step = static_cast<uint64_t>(words[1]),
       .node = node},
      p, absl::MakeConstSpan(sizes.data(), sizes.size()), part,
      absl::MakeSpan(static_cast<uint8_t*>(keep.data_ptr()), keep.numel()));
  TORCH_CHECK_VALUE(status.ok(), std::string(status.message()));
  const double scale = p < 1 ? 1 / (1 - p) : 0;
  return at::where(keep.to(x.device()), x.mul(scale), 0);
}

at::Tensor ShardedAttention(const at::Tensor& query, const at::Tensor& key,
                            const at::Tensor& value,
                            const std::optional<at::Tensor>& mask,
                            double dropout_p, bool is_causal,
                            std::optional<double> scale, bool enable_gqa) {
  std::vector<int64_t> sizes = query.sizes().vec();
  sizes.back() = value.size(-1);
  if (c10::multiply_integers(sizes) > 0) {
    return at::scaled_dot_product_attention(query, key, value, mask, dropout_p,
                                            is_causal, scale, enable_gqa);
  }
  // Nothing is added, and autograd is led to all three.
  return at::zeros(sizes, query.options())
      .add(query.sum())
      .add(key.sum())
      .add(value.sum());
}

at::Tensor ViewAsComplex(const at::Tensor& x) {
  // To contiguous() it lies in order whatever its strides, of which
  // view_as_complex asks some even so.
  const bool empty = x.numel() == 0;
  return at::view_as_complex(empty ? x.clone(at::MemoryFormat::Contiguous) : x);
}

void RegisterShardedOperators() {
  static const torch::Library* const library = [] {
    // Lives as long as the process: calls may come from its last destructors.
    auto* made = new torch::Library(torch::Library::DEF, "shardplane",
                                    std::nullopt, __FILE__, __LINE__);
    made->def(
        "embedding(Tensor weight, Tensor indices, int offset, int vocabulary, "
        "int padding_idx=-1) -> Tensor",
        &ShardedEmbedding);
    made->def(
        "dropout(Tensor x, Tensor random, float p, int node, int[] sizes, "
        "int[] offsets) -> Tensor",
        &CounterDropout);
    made->def(
        "attention(Tensor query, Tensor key, Tensor value, "
        "Tensor? attn_mask=None, float dropout_p=0., bool is_causal=False, *, "
        "float? scale=None, bool enable_gqa=False) -> Tensor",
        &ShardedAttention);
    made->def("view_as_complex(Tensor x) -> Tensor", &ViewAsComplex);
    made->def(
        "checked_ids(Tensor ids, int lowest, int limit, int? ignored) -> "
        "(Tensor, Tensor)",
        &ReplaceBadIds);
    DefineFusedOperators(made);
    made->def("class_max(Tensor logits, int dim) -> Tensor", &ClassMax);
    made->def(
        "cross_entropy_terms(Tensor logits, Tensor max, Tensor target, "
        "Tensor? weight, int dim, int offset, int classes, int ignore_index, "
        "float label_smoothing) -> Tensor",
        &CrossEntropyTerms);
    made->def(
        "cross_entropy_rows(Tensor terms, Tensor? target, Tensor? weight, "
        "int classes, int ignore_index, float label_smoothing) -> Tensor",
        &CrossEntropyRows);
    return made;
  }();
  static_cast<void>(library);
}

}  // namespace shardplane
