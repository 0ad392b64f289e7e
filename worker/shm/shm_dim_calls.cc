#include "worker/shm/shm_dim_calls.h"

#include <cstdint>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "common/tensor_spec.h"
#include "worker/shm/shm_call_parts.h"

namespace shardplane {
namespace {

using c10d::OpType;

// Each rank's chunk of `dim`: a run for each index of the dims before.
template <typename Part>  // ShmSource or ShmTarget
absl::InlinedVector<Part, 4> CutAlong(const at::Tensor& whole, int dim,
                                      int ranks) {
  absl::InlinedVector<Part, 4> parts;
  if (whole.numel() == 0) {
    parts.resize(ranks);  // of memory that is perhaps not there
    return parts;
  }
  // Not of strides: those of dims of one element may be anything.
  const int64_t row_bytes =
      c10::multiply_integers(whole.sizes().slice(dim + 1)) *
      static_cast<int64_t>(whole.element_size());
  const int64_t extent = whole.size(dim);
  const int64_t runs = BytesOf(whole) / (row_bytes * extent);
  for (int rank = 0; rank < ranks; ++rank) {
    const Extent chunk = Chunk(extent, ranks, rank);
    const int64_t run_bytes = chunk.size * row_bytes;
    parts.push_back({DataOf(whole) + chunk.offset * row_bytes, runs * run_bytes,
                     runs == 1 ? 0 : run_bytes, extent * row_bytes});
  }
  return parts;
}

void CheckDim(const at::Tensor& tensor, int dim) {
  SHM_CHECK(dim >= 0 && dim < tensor.dim(), c10::str("a tensor with dim ", dim),
            tensor.sizes());
}

void CheckPair(const at::Tensor& output, const at::Tensor& input, int dim) {
  CheckBuffer(input);
  CheckBuffer(output);
  CheckType(output, input);
  CheckDim(output, dim);
  CheckDim(input, dim);
}

// `chunk` is this rank's of `whole`.
void CheckChunk(const ShmPlace& place, const at::Tensor& chunk,
                const at::Tensor& whole, int dim) {
  std::vector<int64_t> expected = whole.sizes().vec();
  expected[dim] = Chunk(whole.size(dim), place.size, place.rank).size;
  SHM_CHECK(chunk.sizes() == expected,
            c10::str("a chunk of ", c10::IntArrayRef(expected)), chunk.sizes());
}

}  // namespace

ShmCall AllGatherAlongCall(const ShmPlace& place, const at::Tensor& output,
                           const at::Tensor& input, int dim) {
  CheckPair(output, input, dim);
  CheckChunk(place, input, output, dim);
  return {.transfer = AllGatherTransfer(
              CutAlong<ShmTarget>(output, dim, place.size), input),
          .inputs = ShmTensors(1, input),
          .outputs = ShmTensors(1, output)};
}

ShmCall ReduceScatterAlongCall(const ShmPlace& place, const at::Tensor& output,
                               const at::Tensor& input, int dim,
                               const c10d::ReduceOp& op) {
  CheckPair(output, input, dim);
  CheckChunk(place, output, input, dim);
  return {.transfer = ReduceScatterTransfer(
              output, CutAlong<ShmSource>(input, dim, place.size), op),
          .inputs = ShmTensors(1, input),
          .outputs = ShmTensors(1, output)};
}

ShmCall AllToAllAlongCall(const ShmPlace& place, const at::Tensor& output,
                          const at::Tensor& input, int from_dim, int to_dim) {
  CheckPair(output, input, from_dim);
  CheckDim(input, to_dim);
  std::vector<int64_t> whole = input.sizes().vec();
  whole[from_dim] = output.size(from_dim);
  const auto like_whole = [&](int dim) {
    std::vector<int64_t> sizes = whole;
    sizes[dim] = Chunk(whole[dim], place.size, place.rank).size;
    return sizes;
  };
  SHM_CHECK(input.sizes() == like_whole(from_dim),
            c10::str("a chunk of ", c10::IntArrayRef(whole)), input.sizes());
  SHM_CHECK(output.sizes() == like_whole(to_dim),
            c10::str("a chunk of ", c10::IntArrayRef(whole)), output.sizes());
  // The first rank's chunks are the longest.
  whole[from_dim] = Chunk(whole[from_dim], place.size, 0).size;
  whole[to_dim] = Chunk(whole[to_dim], place.size, 0).size;
  const int64_t longest = c10::multiply_integers(whole) *
                          static_cast<int64_t>(input.element_size());
  const uint64_t signature = Signature(OpType::ALLTOALL, input.scalar_type())
                                 .Add(output.size(from_dim))
                                 .Add(input.size(to_dim))
                                 .hash();
  return {
      .transfer = {.kind = ShmKind::kExchange,
                   .sources = CutAlong<ShmSource>(input, to_dim, place.size),
                   .targets = CutAlong<ShmTarget>(output, from_dim, place.size),
                   .reducer = {},
                   .longest = longest,
                   .signature = signature},
      .inputs = ShmTensors(1, input),
      .outputs = ShmTensors(1, output)};
}

}  // namespace shardplane
