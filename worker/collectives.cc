#include "worker/collectives.h"

#include <string>

#include "ATen/core/Tensor.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/full.h"
#include "ATen/ops/view_as_complex.h"
#include "ATen/ops/view_as_real.h"
#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "c10/util/Exception.h"
#include "common/errors.h"
#include "common/tensor_spec.h"
#include "worker/dim_first.h"
#include "worker/stopwatch.h"
#include "worker/torch_status.h"
#include "worker/torch_tensors.h"

namespace shardplane {
namespace {

// Of `tensor` with that extent of `dim`.
int64_t ElementsWith(const at::Tensor& tensor, int dim, int64_t extent) {
  Shape shape = tensor.sizes().vec();
  shape[dim] = extent;
  return NumElements(shape);
}

}  // namespace

Communicator::Communicator(ProcessGroups* groups, DeviceMesh mesh, int rank)
    : groups_(groups),
      mesh_(std::move(mesh)),
      rank_(rank),
      coordinate_(mesh_.Coordinate(rank)),
      transports_(mesh_.ndim(), Transport::kGloo) {
  if (groups_ == nullptr) return;
  auto group = groups_->transports().begin();
  for (int dim = 0; dim < mesh_.ndim(); ++dim) {
    if (mesh_.dim_size(dim) > 1) transports_[dim] = (group++)->transport;
  }
}

bool Communicator::GoesAsReal(const at::Tensor& tensor, ReduceOp op) {
  return tensor.is_complex() && op == ReduceOp::kSum;
}

void Communicator::Record(RedistributeKind kind, int mesh_dim,
                          const at::Tensor& tensor, const Elements& elements) {
  records_.push_back({.kind = kind,
                      .mesh_dim = mesh_dim,
                      .dtype = FromScalarType(tensor.scalar_type()),
                      .send_elements = elements.sent,
                      .recv_elements = elements.received});
  Carry(ToString(kind), mesh_dim, CountedBytes(records_.back()));
}

void Communicator::Carry(absl::string_view kind, int mesh_dim, int64_t bytes) {
  Add({std::string(kind), transports_[mesh_dim], bytes});
}

void Communicator::Add(const CarriedBytes& more) {
  for (CarriedBytes& carried : carried_) {
    if (carried.kind != more.kind || carried.transport != more.transport) {
      continue;
    }
    carried.bytes += more.bytes;
    return;
  }
  carried_.push_back(more);
}

absl::Status Communicator::Guard(const char* what, int mesh_dim,
                                 absl::FunctionRef<void(ProcessGroup*)> move) {
  const auto status = [&] {
    return CurrentExceptionToStatus(absl::StrCat(what, " on mesh dim ",
                                                 mesh_.dims()[mesh_dim].name,
                                                 " at rank ", rank_));
  };
  try {
    move(groups_->group(mesh_dim));
    return absl::OkStatus();
  } catch (const c10::AcceleratorError&) {
    return status();  // this rank's GPU, here or in what ran on it before
  } catch (const c10::OutOfMemoryError&) {
    return status();
  } catch (...) {
    // The transport is sound: whatever else goes wrong here, a peer did it.
    return MakeError(absl::StatusCode::kUnavailable, status().message(),
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
  const int ranks = mesh_.dim_size(mesh_dim);
  if (ranks == 1) return tensor;
  const Stopwatch stopwatch(&SecondsOf(RedistributeKind::kAllReduce));
  const at::Tensor sent = Resolved(tensor).contiguous();
  at::Tensor result;
  SP_RETURN_IF_ERROR(Guard("all_reduce", mesh_dim, [&](ProcessGroup* group) {
    result =
        GoesAsReal(sent, op)
            ? at::view_as_complex(group->AllReduce(at::view_as_real(sent), op))
            : group->AllReduce(sent, op);
  }));
  Record(RedistributeKind::kAllReduce, mesh_dim, sent,
         {.sent = sent.numel(), .received = result.numel()});
  ++completed_;
  return result;
}

absl::StatusOr<at::Tensor> Communicator::AllGather(const at::Tensor& tensor,
                                                   int mesh_dim, int dim,
                                                   int64_t extent) {
  const int ranks = mesh_.dim_size(mesh_dim);
  if (ranks == 1) return tensor;
  const Stopwatch stopwatch(&SecondsOf(RedistributeKind::kAllGather));
  SP_RETURN_IF_ERROR(CheckShard("all_gather", tensor, mesh_dim, dim, extent));
  at::Tensor all;
  SP_RETURN_IF_ERROR(Guard("all_gather", mesh_dim, [&](ProcessGroup* group) {
    all = group->AllGatherAlong(Resolved(tensor), dim, extent);
  }));
  const int64_t padded =
      ElementsWith(tensor, dim, Chunk(extent, ranks, 0).size);
  Record(RedistributeKind::kAllGather, mesh_dim, tensor,
         {.sent = padded, .received = padded * ranks});
  ++completed_;
  return all;
}

absl::StatusOr<at::Tensor> Communicator::ReduceScatter(const at::Tensor& tensor,
                                                       int mesh_dim, int dim,
                                                       ReduceOp op) {
  const int ranks = mesh_.dim_size(mesh_dim);
  if (ranks == 1) return tensor;
  const Stopwatch stopwatch(&SecondsOf(RedistributeKind::kReduceScatter));
  at::Tensor sum;
  SP_RETURN_IF_ERROR(
      Guard("reduce_scatter", mesh_dim, [&](ProcessGroup* group) {
        const at::Tensor sent = Resolved(tensor);
        sum = GoesAsReal(sent, op)
                  ? at::view_as_complex(group->ReduceScatterAlong(
                        at::view_as_real(sent), dim, op))
                  : group->ReduceScatterAlong(sent, dim, op);
      }));
  const int64_t padded =
      ElementsWith(tensor, dim, Chunk(tensor.size(dim), ranks, 0).size);
  Record(RedistributeKind::kReduceScatter, mesh_dim, tensor,
         {.sent = padded * ranks, .received = padded});
  ++completed_;
  return sum;
}

absl::StatusOr<at::Tensor> Communicator::AllToAll(const at::Tensor& tensor,
                                                  int mesh_dim, int from_dim,
                                                  int to_dim, int64_t extent) {
  const int ranks = mesh_.dim_size(mesh_dim);
  if (ranks == 1) return tensor;
  const Stopwatch stopwatch(&SecondsOf(RedistributeKind::kAllToAll));
  SP_RETURN_IF_ERROR(
      CheckShard("all_to_all", tensor, mesh_dim, from_dim, extent));
  at::Tensor result;
  SP_RETURN_IF_ERROR(Guard("all_to_all", mesh_dim, [&](ProcessGroup* group) {
    result = group->AllToAllAlong(Resolved(tensor), from_dim, to_dim, extent);
  }));
  Record(RedistributeKind::kAllToAll, mesh_dim, tensor,
         {.sent = tensor.numel(), .received = result.numel()});
  ++completed_;
  return result;
}

absl::StatusOr<at::Tensor> Communicator::Scatter(const at::Tensor& full,
                                                 const TensorType& type,
                                                 int mesh_dim, int dim,
                                                 int root) {
  const int ranks = mesh_.dim_size(mesh_dim);
  if (ranks == 1) return full;
  const int64_t extent = type.shape[dim];
  const int64_t chunk = Chunk(extent, ranks, 0).size;
  at::Tensor sent;
  if (coordinate_[mesh_dim] == root) {
    sent = DimFirst(PadTo(Resolved(full), dim, chunk * ranks), dim);
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
  const int64_t bytes = static_cast<int64_t>(received.nbytes()) * ranks;
  materialized_.scatter_bytes += bytes;
  Carry("scatter", mesh_dim, bytes);
  return DimBack(received, dim,
                 Chunk(extent, ranks, coordinate_[mesh_dim]).size);
}

absl::StatusOr<at::Tensor> Communicator::Broadcast(const at::Tensor& full,
                                                   const TensorType& type,
                                                   int mesh_dim, int root) {
  if (mesh_.dim_size(mesh_dim) == 1) return full;
  at::Tensor buffer =
      coordinate_[mesh_dim] == root
          ? Resolved(full).contiguous()
          : at::empty(type.shape,
                      at::dtype(ToScalarType(type.dtype)).device(device_));
  SP_RETURN_IF_ERROR(Guard("broadcast", mesh_dim, [&](ProcessGroup* group) {
    group->Broadcast(buffer, root);
  }));
  ++materialized_.broadcasts;
  const int64_t bytes = static_cast<int64_t>(buffer.nbytes());
  materialized_.broadcast_bytes += bytes;
  Carry("broadcast", mesh_dim, bytes);
  return buffer;
}

absl::Status Communicator::GuardEach(
    const char* what, absl::FunctionRef<void(ProcessGroup*)> move) {
  for (int dim = 0; dim < mesh_.ndim(); ++dim) {
    if (mesh_.dim_size(dim) > 1) SP_RETURN_IF_ERROR(Guard(what, dim, move));
  }
  return absl::OkStatus();
}

absl::Status Communicator::Finish() {
  const Stopwatch stopwatch(&seconds_.waiting);
  return GuardEach("waiting for collectives",
                   [](ProcessGroup* group) { group->Finish(); });
}

bool Communicator::MayBeRecorded() const {
  for (int dim = 0; dim < mesh_.ndim(); ++dim) {
    if (mesh_.dim_size(dim) > 1 && !groups_->group(dim)->MayBeRecorded()) {
      return false;
    }
  }
  return true;
}

Communicator::Recorded Communicator::RecordCalls(
    absl::FunctionRef<void()> record) {
  const auto tell = [this](bool recording) {
    for (int dim = 0; dim < mesh_.ndim(); ++dim) {
      if (mesh_.dim_size(dim) == 1) continue;
      groups_->group(dim)->SetRecording(recording);
    }
  };
  tell(true);
  const absl::Cleanup done = [&] { tell(false); };
  return CountAside(record);
}

Communicator::Recorded Communicator::CountAside(
    absl::FunctionRef<void()> call) {
  std::vector<CollectiveRecord> records = TakeRecords();
  const CollectiveSeconds seconds = seconds_;
  Recorded before{completed_, TakeCarried()};
  Recorded recorded;
  absl::Cleanup restore = [&] {
    recorded = {completed_ - before.completed, TakeCarried()};
    completed_ = before.completed;
    carried_ = std::move(before.carried);
    records_ = std::move(records);
    seconds_ = seconds;
  };
  call();
  std::move(restore).Invoke();
  return recorded;
}

absl::Status Communicator::Replay(const Recorded& recorded,
                                  absl::FunctionRef<void()> begin) {
  if (recorded.completed == 0) {
    begin();
    return absl::OkStatus();
  }
  constexpr char kWhat[] = "beginning recorded collectives";
  SP_RETURN_IF_ERROR(
      GuardEach(kWhat, [](ProcessGroup* group) { group->BeforeReplay(); }));
  begin();
  SP_RETURN_IF_ERROR(
      GuardEach(kWhat, [](ProcessGroup* group) { group->AfterReplay(); }));
  completed_ += recorded.completed;
  for (const CarriedBytes& carried : recorded.carried) Add(carried);
  return absl::OkStatus();
}

absl::StatusOr<bool> Communicator::AllAgree(bool mine) {
  at::Tensor against =
      at::full({1}, mine ? 0 : 1, at::dtype(at::kInt).device(device_));
  for (int dim = 0; dim < mesh_.ndim(); ++dim) {
    SP_ASSIGN_OR_RETURN(against, AllReduce(against, dim, ReduceOp::kMax));
  }
  SP_RETURN_IF_ERROR(Finish());
  return against.item<int>() == 0;
}

}  // namespace shardplane
