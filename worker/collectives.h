// Communicator along one mesh dim, on any tensor dim, uneven as torch.chunk
// cuts.
#ifndef SHARDPLANE_WORKER_COLLECTIVES_H_
#define SHARDPLANE_WORKER_COLLECTIVES_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/placement.h"
#include "common/sharded_program.h"
#include "worker/executor.h"
#include "worker/process_groups.h"
#include "worker/transport.h"

namespace shardplane {

// The collectives of one rank. Every rank of a group makes the same calls in
// the same order; ranks whose shard is empty too. Results are contiguous; an
// argument is never changed. Along a mesh dim of size 1 nothing runs and
// nothing is recorded. Errors: Unavailable, naming mesh dim and rank, when a
// peer is gone; InvalidArgument when a tensor is not the shard it should be.
// One thread. Borrows the groups.
class Communicator {
 public:
  Communicator(ProcessGroups* groups, DeviceMesh mesh, int rank);

  // P -> R.
  absl::StatusOr<at::Tensor> AllReduce(const at::Tensor& tensor, int mesh_dim,
                                       ReduceOp op);
  // S(dim) -> R; `extent` is what the group has of `dim` together: chunks of
  // 2, 2 and 1 rows with extent 5 -> 5 rows.
  absl::StatusOr<at::Tensor> AllGather(const at::Tensor& tensor, int mesh_dim,
                                       int dim, int64_t extent);
  // P -> S(dim): 5 rows on 3 ranks -> 2, 2 and 1.
  absl::StatusOr<at::Tensor> ReduceScatter(const at::Tensor& tensor,
                                           int mesh_dim, int dim, ReduceOp op);
  // S(from_dim) -> S(to_dim); `extent` as in AllGather, of from_dim.
  absl::StatusOr<at::Tensor> AllToAll(const at::Tensor& tensor, int mesh_dim,
                                      int from_dim, int to_dim, int64_t extent);

  // Several tensors of one dtype in one collective, each as by the call above,
  // with other work between its beginning and its end: what is returned is
  // called once and waits for the results. It has the calls' errors, too, and
  // must not outlive this.
  using BegunEach =
      absl::AnyInvocable<absl::StatusOr<std::vector<at::Tensor>>()>;
  absl::StatusOr<BegunEach> BeginAllReduceEach(
      absl::Span<const at::Tensor> tensors, int mesh_dim, ReduceOp op);
  // dims, extents: of each tensor. No two results share memory.
  absl::StatusOr<BegunEach> BeginAllGatherEach(
      absl::Span<const at::Tensor> tensors, int mesh_dim,
      absl::Span<const int> dims, absl::Span<const int64_t> extents);
  absl::StatusOr<BegunEach> BeginReduceScatterEach(
      absl::Span<const at::Tensor> tensors, int mesh_dim,
      absl::Span<const int> dims, ReduceOp op);

  // Materializing. `full` is defined on group rank `root` alone, `type` (its
  // dtype and shape) everywhere.
  absl::StatusOr<at::Tensor> Scatter(const at::Tensor& full,
                                     const TensorType& type, int mesh_dim,
                                     int dim, int root);
  absl::StatusOr<at::Tensor> Broadcast(const at::Tensor& full,
                                       const TensorType& type, int mesh_dim,
                                       int root);

  // Waits for what the calls above have begun. Before it, a result that is
  // read back may be another than the one that the call promised: on GPUs a
  // peer that has gone shows here. Errors: Unavailable as above.
  absl::Status Finish();

  // What ran since the last call of it, made of the buffers that were used.
  std::vector<CollectiveRecord> TakeRecords() {
    return std::exchange(records_, {});
  }
  // How many of them have ended so far: those that TakeRecords has told too.
  int64_t completed() const { return completed_; }
  // Time spent in the calls above since the last call of it, waiting for other
  // ranks included.
  CollectiveSeconds TakeSeconds() { return std::exchange(seconds_, {}); }
  // Of Scatter and Broadcast, bytes as CollectiveCount counts them.
  struct Materialized {
    int64_t scatters = 0;
    int64_t scatter_bytes = 0;
    int64_t broadcasts = 0;
    int64_t broadcast_bytes = 0;
  };
  Materialized TakeMaterialized() { return std::exchange(materialized_, {}); }
  // Bytes of all calls since the last call of it, and by what they went.
  std::vector<CarriedBytes> TakeCarried() {
    return std::exchange(carried_, {});
  }

  // Whether a graph of the device may record the calls: those along all mesh
  // dims.
  bool MayBeRecorded() const;
  // What recorded calls count as, each time that they run.
  struct Recorded {
    int64_t completed = 0;
    std::vector<CarriedBytes> carried;
  };
  // Calls `record`, whose calls of this are recorded and do not run: they count
  // as none. Throws what `record` throws.
  Recorded RecordCalls(absl::FunctionRef<void()> record);
  // Calls `begin`, which begins a graph of them on the current stream, and
  // counts them. Errors: as the calls.
  absl::Status Replay(const Recorded& recorded,
                      absl::FunctionRef<void()> begin);
  // Calls `call`, whose calls of this count as none: what they would have.
  // Throws what `call` throws.
  Recorded CountAside(absl::FunctionRef<void()> call);
  // Whether all ranks of the mesh say so: an all-reduce of one i32 along each
  // dim, waited for.
  absl::StatusOr<bool> AllAgree(bool mine);

  c10::Device device() const { return device_; }
  // Which device new buffers are made on.
  void set_device(c10::Device device) { device_ = device; }

 private:
  // As a transport moves them that pads chunks to one size.
  struct Elements {
    int64_t sent = 0;
    int64_t received = 0;
  };
  // Transports add real numbers. Complex ones have no order: that max and min
  // fail is the transport's to say.
  static bool GoesAsReal(const at::Tensor& tensor, ReduceOp op);
  // `tensor` says of which type.
  void Record(RedistributeKind kind, int mesh_dim, const at::Tensor& tensor,
              const Elements& elements);
  void Carry(absl::string_view kind, int mesh_dim, int64_t bytes);
  void Add(const CarriedBytes& more);
  // Guard, for each mesh dim that has several ranks.
  absl::Status GuardEach(const char* what,
                         absl::FunctionRef<void(ProcessGroup*)> move);
  // Calls `move`, which throws, and names mesh dim and rank if it does.
  // Unavailable: a peer's fault. Internal, ResourceExhausted: the device's.
  absl::Status Guard(const char* what, int mesh_dim,
                     absl::FunctionRef<void(ProcessGroup*)> move);
  // `end` makes the results of what `begin` has begun.
  absl::StatusOr<BegunEach> Begin(
      RedistributeKind kind, const char* what, int mesh_dim,
      absl::FunctionRef<BegunCollective(ProcessGroup*)> begin,
      absl::AnyInvocable<std::vector<at::Tensor>(const at::Tensor&)> end);
  double& SecondsOf(RedistributeKind kind) {
    return seconds_.by_kind[static_cast<size_t>(kind)];
  }
  absl::Status CheckShard(const char* what, const at::Tensor& tensor,
                          int mesh_dim, int dim, int64_t extent);

  ProcessGroups* groups_;
  DeviceMesh mesh_;
  int rank_;
  std::vector<int> coordinate_;
  c10::Device device_ = c10::Device(c10::kCPU);
  std::vector<CollectiveRecord> records_;
  int64_t completed_ = 0;
  CollectiveSeconds seconds_;
  Materialized materialized_;
  std::vector<Transport> transports_;  // by mesh dim
  std::vector<CarriedBytes> carried_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_COLLECTIVES_H_
