// The connections of one gang: a process group for each mesh dim that has
// more than one rank. A group moves and sums; worker/collectives says what.
#ifndef SHARDPLANE_WORKER_PROCESS_GROUPS_H_
#define SHARDPLANE_WORKER_PROCESS_GROUPS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "c10/core/Device.h"
#include "common/placement.h"
#include "worker/executor.h"
#include "worker/transport.h"

namespace shardplane {

// A collective that has begun: called once, it waits for the result. Both keep
// what they work on, and throw as the group's calls do.
using BegunCollective = absl::AnyInvocable<at::Tensor()>;

// One group of ranks: ShmGroup (worker/shm_group) and GlooGroup
// (worker/gloo_group) between CPUs, NcclGroup (worker/nccl_group) between GPUs.
// Every rank makes the same calls in the same order, with contiguous buffers
// whose sizes all know; arguments named output are written, no other is
// changed. Calls throw what c10d throws, above all c10::DistBackendError. One
// thread calls, except Abort.
class ProcessGroup {
 public:
  ProcessGroup(int rank, int size) : rank_(rank), size_(size) {}
  virtual ~ProcessGroup() = default;
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;

  int rank() const { return rank_; }  // in the group
  int size() const { return size_; }

  // The sum (or maximum, minimum) of all ranks' inputs, of any one shape.
  virtual at::Tensor AllReduce(const at::Tensor& input, ReduceOp op) = 0;
  // Inputs are [size * n, ...], n for each rank: this rank's sum, [n, ...].
  virtual at::Tensor ReduceScatter(const at::Tensor& input, ReduceOp op) = 0;
  // output = the inputs of all ranks, one after the other.
  virtual void AllGather(const at::Tensor& output, const at::Tensor& input) = 0;
  // Cuts input by input_counts (elements, one a rank), sends each its part;
  // output is what came, by rank.
  virtual void AllToAll(const at::Tensor& output, const at::Tensor& input,
                        absl::Span<const int64_t> output_counts,
                        absl::Span<const int64_t> input_counts) = 0;
  // Equal parts of `input`, which is defined on rank `root` alone.
  virtual void Scatter(const at::Tensor& output, const at::Tensor& input,
                       int root) = 0;
  virtual void Broadcast(const at::Tensor& buffer, int root) = 0;

  // Along a tensor dim, of which rank r has what Chunk (common/tensor_spec)
  // gives it. Inputs of any strides, results contiguous. As they stand here,
  // by the calls above: chunks padded to one size, the dim first in memory,
  // and back.
  //
  // `extent`: all chunks of `dim` together, which is what comes.
  virtual at::Tensor AllGatherAlong(const at::Tensor& input, int dim,
                                    int64_t extent);
  // Inputs are whole; this rank's chunk of their sum.
  virtual at::Tensor ReduceScatterAlong(const at::Tensor& input, int dim,
                                        ReduceOp op);
  // A chunk of from_dim (`extent` as above) becomes one of to_dim.
  virtual at::Tensor AllToAllAlong(const at::Tensor& input, int from_dim,
                                   int to_dim, int64_t extent);

  // As the calls above, with other work between beginning and end. Here they
  // end at once. BeginAllGather's result is [size * n, ...] of inputs [n, ...].
  virtual BegunCollective BeginAllReduce(const at::Tensor& input, ReduceOp op);
  virtual BegunCollective BeginReduceScatter(const at::Tensor& input,
                                             ReduceOp op);
  virtual BegunCollective BeginAllGather(const at::Tensor& input);

  // Returns when all calls before have ended, at the latest after the gang's
  // timeout. Until then results may be still to come: GPUs work behind the
  // calls, and order by stream what uses a result there.
  virtual void Finish() = 0;
  // Ends a running call, and every later one, with c10::DistBackendError; any
  // thread.
  virtual void Abort() = 0;

  // Whether a graph of the device (worker/cuda_support) may record the calls.
  // All ranks record the same ones, or none does, and no graph that has some
  // outlives the group.
  virtual bool MayBeRecorded() const { return false; }
  // Whether the calls that follow are recorded, and do not run.
  virtual void SetRecording(bool /*recording*/) {}
  // Before and after a graph that has recorded some is begun on the current
  // stream. Throws as the calls; Finish waits for those of the graph, too.
  virtual void BeforeReplay() {}
  virtual void AfterReplay() {}

 private:
  const int rank_;
  const int size_;
};

struct ProcessGroupsOptions {
  // The local address that peers connect to; NCCL chooses its own.
  std::string hostname = "127.0.0.1";
  c10::Device device = c10::Device(c10::kCPU);
  TransportChoice transport = TransportChoice::kAuto;
};

class ProcessGroups {
 public:
  ProcessGroups() = default;
  // By mesh dim, nullptr for one of size 1, and as transports() tells them.
  ProcessGroups(std::vector<std::unique_ptr<ProcessGroup>> groups,
                std::vector<GroupTransport> transports)
      : groups_(std::move(groups)), transports_(std::move(transports)) {}

  // Blocks until all ranks are there. Throws what c10d throws (a rank that
  // does not come: c10::DistStoreError). FailedPrecondition: GPUs that NCCL
  // cannot connect, CPUs without the shared memory that was asked for.
  // Unimplemented: no transport for the device.
  static absl::StatusOr<std::unique_ptr<ProcessGroups>> Create(
      const GangSpec& spec, std::shared_ptr<GangStore> store,
      const ProcessGroupsOptions& options);

  // nullptr for a mesh dim of size 1.
  ProcessGroup* group(int mesh_dim) const { return groups_[mesh_dim].get(); }

  // In the order of the mesh dims that have several ranks.
  const std::vector<GroupTransport>& transports() const { return transports_; }

  // Ends running calls with an exception; any thread.
  void Abort();

  // For tests: puts others in the place of the groups.
  using Wrap = absl::FunctionRef<std::unique_ptr<ProcessGroup>(
      std::unique_ptr<ProcessGroup>)>;
  void WrapEach(Wrap wrap);

 private:
  std::vector<std::unique_ptr<ProcessGroup>> groups_;
  std::vector<GroupTransport> transports_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_PROCESS_GROUPS_H_
