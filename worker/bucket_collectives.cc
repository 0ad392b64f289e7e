// Several tensors in one collective.
#include <cstdint>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/view_as_complex.h"
#include "ATen/ops/view_as_real.h"
#include "common/errors.h"
#include "common/tensor_spec.h"
#include "worker/collectives.h"
#include "worker/dim_first.h"
#include "worker/stopwatch.h"
#include "worker/torch_tensors.h"

namespace shardplane {
namespace {

// How tensors lie in a bucket: of each its dim first, in chunks that are padded
// to one size, one a rank. A row has one chunk of each tensor.
class BucketLayout {
 public:
  // `extents`: of each tensor's dim, all chunks together.
  BucketLayout(absl::Span<const at::Tensor> tensors, absl::Span<const int> dims,
               absl::Span<const int64_t> extents, int ranks) {
    for (size_t i = 0; i < tensors.size(); ++i) {
      Part part{.dim = dims[i],
                .extent = extents[i],
                .chunk = tensors[i].sizes().vec(),
                .offset = row_};
      part.chunk.erase(part.chunk.begin() + part.dim);
      part.chunk.insert(part.chunk.begin(), Chunk(part.extent, ranks, 0).size);
      part.elements = NumElements(part.chunk);
      row_ += part.elements;
      parts_.push_back(std::move(part));
    }
  }

  int64_t row() const { return row_; }  // in elements

  // [rows, row()] of tensors that have `rows` chunks each.
  at::Tensor Packed(absl::Span<const at::Tensor> tensors, int64_t rows) const {
    std::vector<at::Tensor> columns;
    for (size_t i = 0; i < tensors.size(); ++i) {
      const Part& part = parts_[i];
      const at::Tensor padded =
          PadTo(Resolved(tensors[i]), part.dim, part.chunk[0] * rows);
      columns.push_back(DimFirst(padded, part.dim).view({rows, part.elements}));
    }
    return columns.size() == 1 ? columns[0] : at::cat(columns, 1);
  }

  // The way back.
  std::vector<at::Tensor> Unpacked(const at::Tensor& rows) const {
    std::vector<at::Tensor> tensors;
    for (const Part& part : parts_) {
      std::vector<int64_t> shape = part.chunk;
      shape[0] *= rows.size(0);
      const at::Tensor own =
          rows.narrow(1, part.offset, part.elements).reshape(shape);
      const bool shared = parts_.size() > 1 && own.is_alias_of(rows);
      tensors.push_back(
          DimBack(shared ? own.clone() : own, part.dim, part.extent));
    }
    return tensors;
  }

  // From here on tensors are the chunk of that rank.
  void KeepChunk(int rank, int ranks) {
    for (Part& part : parts_) {
      part.extent = Chunk(part.extent, ranks, rank).size;
    }
  }

 private:
  struct Part {
    int dim = 0;
    int64_t extent = 0;
    std::vector<int64_t> chunk;  // the shape of one, its dim first
    int64_t elements = 0;        // of one chunk
    int64_t offset = 0;          // in a row
  };

  std::vector<Part> parts_;
  int64_t row_ = 0;
};

}  // namespace

absl::StatusOr<Communicator::BegunEach> Communicator::Begin(
    RedistributeKind kind, const char* what, int mesh_dim,
    absl::FunctionRef<BegunCollective(ProcessGroup*)> begin,
    absl::AnyInvocable<std::vector<at::Tensor>(const at::Tensor&)> end) {
  BegunCollective begun;
  SP_RETURN_IF_ERROR(Guard(what, mesh_dim,
                           [&](ProcessGroup* group) { begun = begin(group); }));
  return [this, kind, what, mesh_dim, begun = std::move(begun),
          end = std::move(
              end)]() mutable -> absl::StatusOr<std::vector<at::Tensor>> {
    const Stopwatch stopwatch(&SecondsOf(kind));
    at::Tensor result;
    SP_RETURN_IF_ERROR(
        Guard(what, mesh_dim, [&](ProcessGroup*) { result = begun(); }));
    ++completed_;
    return end(result);
  };
}

absl::StatusOr<Communicator::BegunEach> Communicator::BeginAllReduceEach(
    absl::Span<const at::Tensor> tensors, int mesh_dim, ReduceOp op) {
  std::vector<at::Tensor> parts(tensors.begin(), tensors.end());
  if (mesh_.dim_size(mesh_dim) == 1) return [parts] { return parts; };
  const Stopwatch stopwatch(&SecondsOf(RedistributeKind::kAllReduce));
  std::vector<int64_t> sizes;
  std::vector<Shape> shapes;
  for (at::Tensor& part : parts) {
    shapes.push_back(part.sizes().vec());
    part = Resolved(part).reshape({-1});
    sizes.push_back(part.numel());
  }
  const at::Tensor sent = at::cat(parts);
  Record(RedistributeKind::kAllReduce, mesh_dim, sent,
         {.sent = sent.numel(), .received = sent.numel()});
  const bool real = GoesAsReal(sent, op);
  return Begin(
      RedistributeKind::kAllReduce, "all_reduce", mesh_dim,
      [&](ProcessGroup* group) {
        return group->BeginAllReduce(real ? at::view_as_real(sent) : sent, op);
      },
      [sizes, shapes, real](const at::Tensor& sum) {
        std::vector<at::Tensor> results =
            (real ? at::view_as_complex(sum) : sum).split_with_sizes(sizes);
        for (size_t i = 0; i < results.size(); ++i) {
          results[i] = results[i].view(shapes[i]);
        }
        return results;
      });
}

absl::StatusOr<Communicator::BegunEach> Communicator::BeginAllGatherEach(
    absl::Span<const at::Tensor> tensors, int mesh_dim,
    absl::Span<const int> dims, absl::Span<const int64_t> extents) {
  const int ranks = mesh_.dim_size(mesh_dim);
  const std::vector<at::Tensor> parts(tensors.begin(), tensors.end());
  if (ranks == 1) return [parts] { return parts; };
  const Stopwatch stopwatch(&SecondsOf(RedistributeKind::kAllGather));
  for (size_t i = 0; i < tensors.size(); ++i) {
    SP_RETURN_IF_ERROR(
        CheckShard("all_gather", tensors[i], mesh_dim, dims[i], extents[i]));
  }
  BucketLayout layout(tensors, dims, extents, ranks);
  const int64_t row = layout.row();
  const at::Tensor sent = layout.Packed(tensors, 1).view({-1});
  Record(RedistributeKind::kAllGather, mesh_dim, sent,
         {.sent = row, .received = row * ranks});
  return Begin(
      RedistributeKind::kAllGather, "all_gather", mesh_dim,
      [&](ProcessGroup* group) { return group->BeginAllGather(sent); },
      [layout = std::move(layout), ranks](const at::Tensor& all) {
        return layout.Unpacked(all.view({ranks, layout.row()}));
      });
}

absl::StatusOr<Communicator::BegunEach> Communicator::BeginReduceScatterEach(
    absl::Span<const at::Tensor> tensors, int mesh_dim,
    absl::Span<const int> dims, ReduceOp op) {
  const int ranks = mesh_.dim_size(mesh_dim);
  const std::vector<at::Tensor> wholes(tensors.begin(), tensors.end());
  if (ranks == 1) return [wholes] { return wholes; };
  const Stopwatch stopwatch(&SecondsOf(RedistributeKind::kReduceScatter));
  std::vector<int64_t> extents;
  for (size_t i = 0; i < tensors.size(); ++i) {
    extents.push_back(tensors[i].size(dims[i]));
  }
  BucketLayout layout(tensors, dims, extents, ranks);
  const int64_t row = layout.row();
  const at::Tensor sent = layout.Packed(tensors, ranks).view({-1});
  Record(RedistributeKind::kReduceScatter, mesh_dim, sent,
         {.sent = row * ranks, .received = row});
  layout.KeepChunk(coordinate_[mesh_dim], ranks);
  const bool real = GoesAsReal(sent, op);
  return Begin(
      RedistributeKind::kReduceScatter, "reduce_scatter", mesh_dim,
      [&](ProcessGroup* group) {
        return group->BeginReduceScatter(real ? at::view_as_real(sent) : sent,
                                         op);
      },
      [layout = std::move(layout), real](const at::Tensor& sum) {
        const at::Tensor own = real ? at::view_as_complex(sum) : sum;
        return layout.Unpacked(own.view({1, layout.row()}));
      });
}

}  // namespace shardplane
