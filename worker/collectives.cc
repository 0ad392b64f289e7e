#include "worker/collectives.h"

#include <algorithm>
#include <chrono>
#include <string>

#include "ATen/ATen.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/tensor_spec.h"
#include "worker/torch_status.h"
#include "worker/torch_tensors.h"

namespace shardplane {
namespace {

int64_t CeilDiv(int64_t n, int64_t d) { return (n + d - 1) / d; }

// Zeros behind, up to `extent` elements of `dim`.
at::Tensor PadTo(const at::Tensor& tensor, int64_t dim, int64_t extent) {
  if (tensor.size(dim) == extent) return tensor;
  std::vector<int64_t> sizes = tensor.sizes().vec();
  sizes[dim] = extent;
  at::Tensor padded = at::zeros(sizes, tensor.options());
  padded.narrow(dim, 0, tensor.size(dim)).copy_(tensor);
  return padded;
}

// Chunks of `dim` one after the other in memory: `dim` comes first.
at::Tensor DimFirst(const at::Tensor& tensor, int64_t dim) {
  return tensor.movedim(dim, 0).contiguous();
}

// The first `extent` of the first dim, put back in its place.
at::Tensor DimBack(const at::Tensor& tensor, int64_t dim, int64_t extent) {
  return tensor.narrow(0, 0, extent).movedim(0, dim).contiguous();
}

std::vector<int64_t> WithExtent(const at::Tensor& tensor, int64_t extent) {
  std::vector<int64_t> sizes = tensor.sizes().vec();
  sizes[0] = extent;
  return sizes;
}

// Adds the time of its life.
class Stopwatch {
 public:
  explicit Stopwatch(double* seconds) : seconds_(seconds) {}
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  ~Stopwatch() {
    *seconds_ +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start_)
            .count();
  }

 private:
  const std::chrono::steady_clock::time_point start_ =
      std::chrono::steady_clock::now();
  double* const seconds_;
};

}  // namespace

Communicator::Communicator(ProcessGroups* groups, DeviceMesh mesh, int rank)
    : groups_(groups),
      mesh_(std::move(mesh)),
      rank_(rank),
      coordinate_(mesh_.Coordinate(rank)) {}

void Communicator::Record(RedistributeKind kind, int mesh_dim,
                          const at::Tensor& sent, const at::Tensor& received) {
  records_.push_back({.kind = kind,
                      .mesh_dim = mesh_dim,
                      .dtype = FromScalarType(sent.scalar_type()),
                      .send_elements = sent.numel(),
                      .recv_elements = received.numel()});
  ++completed_;
}

template <typename Move>
absl::Status Communicator::Guard(const char* what, int mesh_dim, Move&& move) {
  try {
    move(groups_->group(mesh_dim));
    return absl::OkStatus();
  } catch (...) {
    const absl::Status status = CurrentExceptionToStatus(
        absl::StrCat(what, " on mesh dim ", mesh_.dims()[mesh_dim].name,
                     " at rank ", rank_));
    // The transport is sound: whatever goes wrong here, a peer did it.
    return MakeError(absl::StatusCode::kUnavailable, status.message(),
                     {.reason = "PEER_UNREACHABLE",
                      .metadata = {{"mesh_dim", mesh_.dims()[mesh_dim].name},
                                   {"rank", std::to_string(rank_)}}});
  }
}

absl::Status Communicator::CheckShard(const char* what,
                                      const at::Tensor& tensor, int mesh_dim,
                                      int dim, int64_t extent) {
  const int64_t expected =
      Chunk(extent, mesh_.dim_size(mesh_dim), coordinate_[mesh_dim]).size;
  if (tensor.size(dim) == expected) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat(what, " on mesh dim ", mesh_.dims()[mesh_dim].name,
                   " at rank ", rank_, ": expected ", expected, " of ", extent,
                   " elements of tensor dim ", dim,
                   "; got: ", ShapeToString(tensor.sizes().vec())),
      {.reason = "NOT_THE_SHARD", .metadata = {}});
}

absl::StatusOr<at::Tensor> Communicator::AllReduce(const at::Tensor& tensor,
                                                   int mesh_dim, ReduceOp op) {
  const int64_t ranks = mesh_.dim_size(mesh_dim);
  if (ranks == 1) return tensor;
  const Stopwatch stopwatch(&seconds_);
  const at::Tensor sent = tensor.contiguous();
  at::Tensor result;
  SP_RETURN_IF_ERROR(Guard("all_reduce", mesh_dim, [&](ProcessGroup* group) {
    result = group->AllReduce(sent, op);
  }));
  Record(RedistributeKind::kAllReduce, mesh_dim, sent, result);
  return result;
}

absl::StatusOr<at::Tensor> Communicator::AllGather(const at::Tensor& tensor,
                                                   int mesh_dim, int dim,
                                                   int64_t extent) {
  const int64_t ranks = mesh_.dim_size(mesh_dim);
  if (ranks == 1) return tensor;
  const Stopwatch stopwatch(&seconds_);
  SP_RETURN_IF_ERROR(CheckShard("all_gather", tensor, mesh_dim, dim, extent));
  const int64_t chunk = CeilDiv(extent, ranks);
  const at::Tensor sent = DimFirst(PadTo(tensor, dim, chunk), dim);
  at::Tensor all = at::empty(WithExtent(sent, chunk * ranks), sent.options());
  SP_RETURN_IF_ERROR(Guard("all_gather", mesh_dim, [&](ProcessGroup* group) {
    group->AllGather(all, sent);
  }));
  Record(RedistributeKind::kAllGather, mesh_dim, sent, all);
  return DimBack(all, dim, extent);
}

absl::StatusOr<at::Tensor> Communicator::ReduceScatter(const at::Tensor& tensor,
                                                       int mesh_dim, int dim,
                                                       ReduceOp op) {
  const int64_t ranks = mesh_.dim_size(mesh_dim);
  if (ranks == 1) return tensor;
  const Stopwatch stopwatch(&seconds_);
  const int64_t extent = tensor.size(dim);
  const int64_t chunk = CeilDiv(extent, ranks);
  const at::Tensor sent = DimFirst(PadTo(tensor, dim, chunk * ranks), dim);
  at::Tensor sum;
  SP_RETURN_IF_ERROR(Guard(
      "reduce_scatter", mesh_dim,
      [&](ProcessGroup* group) { sum = group->ReduceScatter(sent, op); }));
  Record(RedistributeKind::kReduceScatter, mesh_dim, sent, sum);
  return DimBack(
      sum, dim,
      Chunk(extent, static_cast<int>(ranks), coordinate_[mesh_dim]).size);
}

absl::StatusOr<at::Tensor> Communicator::AllToAll(const at::Tensor& tensor,
                                                  int mesh_dim, int from_dim,
                                                  int to_dim, int64_t extent) {
  const int ranks = mesh_.dim_size(mesh_dim);
  if (ranks == 1) return tensor;
  const Stopwatch stopwatch(&seconds_);
  SP_RETURN_IF_ERROR(
      CheckShard("all_to_all", tensor, mesh_dim, from_dim, extent));
  const int64_t to_extent = tensor.size(to_dim);
  std::vector<at::Tensor> parts;
  std::vector<int64_t> sent_counts;
  std::vector<int64_t> received_counts;
  std::vector<std::vector<int64_t>> received_shapes;
  for (int i = 0; i < ranks; ++i) {
    const Extent to = Chunk(to_extent, ranks, i);
    parts.push_back(tensor.narrow(to_dim, to.offset, to.size).reshape({-1}));
    sent_counts.push_back(parts.back().numel());
    Shape shape = tensor.sizes().vec();
    shape[from_dim] = Chunk(extent, ranks, i).size;
    shape[to_dim] = Chunk(to_extent, ranks, coordinate_[mesh_dim]).size;
    received_counts.push_back(NumElements(shape));
    received_shapes.push_back(std::move(shape));
  }
  const at::Tensor sent = at::cat(parts);
  int64_t total = 0;
  for (const int64_t count : received_counts) total += count;
  at::Tensor received = at::empty({total}, sent.options());
  SP_RETURN_IF_ERROR(Guard("all_to_all", mesh_dim, [&](ProcessGroup* group) {
    group->AllToAll(received, sent, received_counts, sent_counts);
  }));
  Record(RedistributeKind::kAllToAll, mesh_dim, sent, received);
  std::vector<at::Tensor> pieces = received.split_with_sizes(received_counts);
  for (int i = 0; i < ranks; ++i)
    pieces[i] = pieces[i].view(received_shapes[i]);
  return at::cat(pieces, from_dim);
}

absl::StatusOr<at::Tensor> Communicator::Scatter(const at::Tensor& full,
                                                 const TensorType& type,
                                                 int mesh_dim, int dim,
                                                 int root) {
  const int ranks = mesh_.dim_size(mesh_dim);
  if (ranks == 1) return full;
  const int64_t extent = type.shape[dim];
  const int64_t chunk = CeilDiv(extent, ranks);
  at::Tensor sent;
  if (coordinate_[mesh_dim] == root) {
    sent = DimFirst(PadTo(full, dim, chunk * ranks), dim);
  }
  Shape shape = type.shape;
  shape.erase(shape.begin() + dim);
  shape.insert(shape.begin(), chunk);
  at::Tensor received =
      at::empty(shape, at::dtype(ToScalarType(type.dtype)).device(device_));
  SP_RETURN_IF_ERROR(Guard("scatter", mesh_dim, [&](ProcessGroup* group) {
    group->Scatter(received, sent, root);
  }));
  ++materialized_.scatters;
  materialized_.scatter_bytes += received.nbytes() * ranks;
  return DimBack(received, dim,
                 Chunk(extent, ranks, coordinate_[mesh_dim]).size);
}

absl::StatusOr<at::Tensor> Communicator::Broadcast(const at::Tensor& full,
                                                   const TensorType& type,
                                                   int mesh_dim, int root) {
  if (mesh_.dim_size(mesh_dim) == 1) return full;
  at::Tensor buffer =
      coordinate_[mesh_dim] == root
          ? full.contiguous()
          : at::empty(type.shape,
                      at::dtype(ToScalarType(type.dtype)).device(device_));
  SP_RETURN_IF_ERROR(Guard("broadcast", mesh_dim, [&](ProcessGroup* group) {
    group->Broadcast(buffer, root);
  }));
  ++materialized_.broadcasts;
  materialized_.broadcast_bytes += buffer.nbytes();
  return buffer;
}

absl::Status Communicator::Finish() {
  const Stopwatch stopwatch(&seconds_);
  for (int dim = 0; dim < mesh_.ndim(); ++dim) {
    if (mesh_.dim_size(dim) == 1) continue;
    SP_RETURN_IF_ERROR(Guard("waiting for collectives", dim,
                             [](ProcessGroup* group) { group->Finish(); }));
  }
  return absl::OkStatus();
}

}  // namespace shardplane
