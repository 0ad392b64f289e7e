// A c10d backend for CPUs whose ranks share memory.
#ifndef SHARDPLANE_WORKER_SHM_SHM_BACKEND_H_
#define SHARDPLANE_WORKER_SHM_SHM_BACKEND_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "torch/csrc/distributed/c10d/Backend.hpp"
#include "worker/shm/channel.h"
#include "worker/shm/rendezvous.h"
#include "worker/shm/shm_calls.h"
#include "worker/shm/shm_work.h"

namespace shardplane {

// Takes contiguous tensors on the CPU. Of each list that has one entry a
// device in c10d, it takes one. Reductions are those of ReducerOf
// (worker/shm/reductions), rank after rank: the same bits on every rank and, up
// to those, on every transport. Where c10d lets sizes differ by rank (lists of
// all-gather and reduce-scatter, splits of all-to-all), they may; all-to-all
// with splits is one with splits on all ranks. Works: see ShmWork.
//
// Throws: c10::ValueError for tensors that do not fit and for reductions that
// there are not; c10::DistBackendError from what starts or waits when a rank
// has died, left, aborted, is late or calls another collective: then nothing
// goes any more. Any thread, if all ranks call in the same order.
class ShmBackend : public c10d::Backend {
 public:
  // `timeout`: of waiting for another rank.
  ShmBackend(int rank, ShmGroupMemory memory,
             std::chrono::milliseconds timeout);
  // Leaves the group: works that have not ended fail, here and elsewhere.
  ~ShmBackend() override;

  const std::string getBackendName() const override { return "shm"; }
  void abort() override { channel_->Abort(); }

  c10::intrusive_ptr<c10d::Work> allreduce(
      std::vector<at::Tensor>& tensors,
      const c10d::AllreduceOptions& options) override;
  c10::intrusive_ptr<c10d::Work> allreduce_coalesced(
      std::vector<at::Tensor>& tensors,
      const c10d::AllreduceCoalescedOptions& options) override;
  // Other ranks' tensors stay as they are.
  c10::intrusive_ptr<c10d::Work> reduce(
      std::vector<at::Tensor>& tensors,
      const c10d::ReduceOptions& options) override;
  c10::intrusive_ptr<c10d::Work> broadcast(
      std::vector<at::Tensor>& tensors,
      const c10d::BroadcastOptions& options) override;

  c10::intrusive_ptr<c10d::Work> allgather(
      std::vector<std::vector<at::Tensor>>& outputs,
      std::vector<at::Tensor>& inputs,
      const c10d::AllgatherOptions& options) override;
  c10::intrusive_ptr<c10d::Work> _allgather_base(
      at::Tensor& output, at::Tensor& input,
      const c10d::AllgatherOptions& options) override;
  c10::intrusive_ptr<c10d::Work> allgather_into_tensor_coalesced(
      std::vector<at::Tensor>& outputs, std::vector<at::Tensor>& inputs,
      const c10d::AllgatherOptions& options) override;
  c10::intrusive_ptr<c10d::Work> gather(
      std::vector<std::vector<at::Tensor>>& outputs,
      std::vector<at::Tensor>& inputs,
      const c10d::GatherOptions& options) override;

  c10::intrusive_ptr<c10d::Work> scatter(
      std::vector<at::Tensor>& outputs,
      std::vector<std::vector<at::Tensor>>& inputs,
      const c10d::ScatterOptions& options) override;
  c10::intrusive_ptr<c10d::Work> reduce_scatter(
      std::vector<at::Tensor>& outputs,
      std::vector<std::vector<at::Tensor>>& inputs,
      const c10d::ReduceScatterOptions& options) override;
  c10::intrusive_ptr<c10d::Work> _reduce_scatter_base(
      at::Tensor& output, at::Tensor& input,
      const c10d::ReduceScatterOptions& options) override;
  c10::intrusive_ptr<c10d::Work> reduce_scatter_tensor_coalesced(
      std::vector<at::Tensor>& outputs, std::vector<at::Tensor>& inputs,
      const c10d::ReduceScatterOptions& options) override;

  c10::intrusive_ptr<c10d::Work> alltoall_base(
      at::Tensor& output, at::Tensor& input,
      std::vector<int64_t>& output_splits, std::vector<int64_t>& input_splits,
      const c10d::AllToAllOptions& options) override;
  c10::intrusive_ptr<c10d::Work> alltoall(
      std::vector<at::Tensor>& outputs, std::vector<at::Tensor>& inputs,
      const c10d::AllToAllOptions& options) override;

  c10::intrusive_ptr<c10d::Work> barrier(
      const c10d::BarrierOptions& options) override;

  // Of worker/shm/shm_calls and shm_dim_calls: starts it and waits, which takes
  // no work.
  void Run(ShmCall call);
  const ShmPlace& place() const { return place_; }
  // Only starts it.
  c10::intrusive_ptr<c10d::Work> Start(
      c10d::OpType op, ShmCall call,
      std::chrono::milliseconds timeout = c10d::kUnsetTimeout);

 private:
  // Starts them one after the other; one work for all.
  c10::intrusive_ptr<c10d::Work> StartAll(c10d::OpType op,
                                          std::vector<ShmCall> calls,
                                          std::chrono::milliseconds timeout);
  c10::intrusive_ptr<c10d::Work> WorkOf(c10d::OpType op,
                                        ShmChannel::Ticket ticket,
                                        ShmTensors outputs,
                                        std::chrono::milliseconds timeout);

  const ShmPlace place_;
  const std::chrono::milliseconds timeout_;
  const std::shared_ptr<SharedShmChannel> channel_;  // with works
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_SHM_BACKEND_H_
