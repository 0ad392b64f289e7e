#include "worker/shm/shm_backend.h"

#include <utility>

#include "c10/util/Exception.h"
#include "worker/shm/channel.h"
#include "worker/shm/waiting.h"

namespace shardplane {
namespace {

using Tensors = std::vector<at::Tensor>;
using c10d::OpType;
using c10d::Work;

// c10d's lists have one entry a device of the process.
template <typename T>
const T& Single(const std::vector<T>& list) {
  TORCH_CHECK_VALUE(
      list.size() == 1,
      "shared memory: expected lists of one entry; got: ", list.size());
  return list[0];
}

// What only the root has.
const Tensors& SingleAtRoot(const std::vector<Tensors>& lists, bool root) {
  static const Tensors none;
  if (root) return Single(lists);
  TORCH_CHECK_VALUE(lists.empty(),
                    "shared memory: expected no list on a rank that is not "
                    "the root; got: ",
                    lists.size());
  return none;
}

void CheckSameLength(const Tensors& outputs, const Tensors& inputs) {
  TORCH_CHECK_VALUE(outputs.size() == inputs.size(), "shared memory: expected ",
                    inputs.size(), " outputs; got: ", outputs.size());
}

}  // namespace

ShmBackend::ShmBackend(int rank, ShmGroupMemory memory,
                       std::chrono::milliseconds timeout)
    : c10d::Backend(rank, memory.segment->sizes().ranks),
      place_{rank, getSize()},
      timeout_(timeout),
      channel_(std::make_shared<SharedShmChannel>(std::make_unique<ShmChannel>(
          std::move(memory.segment), std::move(memory.watch),
          ShmChannel::Options{.rank = rank,
                              .timeout = timeout,
                              .patience = DefaultPatience(getSize())}))) {}

ShmBackend::~ShmBackend() { channel_->Abort(); }

void ShmBackend::Run(ShmCall call) {
  const absl::Status status = channel_->Run(std::move(call.transfer), timeout_);
  if (!status.ok()) ThrowShmError(status);
}

c10::intrusive_ptr<Work> ShmBackend::Start(OpType op, ShmCall call,
                                           std::chrono::milliseconds timeout) {
  ShmTensors outputs = call.outputs;
  const absl::StatusOr<ShmChannel::Ticket> ticket =
      channel_->Start(std::move(call));
  if (!ticket.ok()) ThrowShmError(ticket.status());
  return WorkOf(op, *ticket, std::move(outputs), timeout);
}

c10::intrusive_ptr<Work> ShmBackend::StartAll(
    OpType op, std::vector<ShmCall> calls, std::chrono::milliseconds timeout) {
  ShmChannel::Ticket last = 0;
  ShmTensors outputs;
  for (ShmCall& call : calls) {
    outputs.insert(outputs.end(), call.outputs.begin(), call.outputs.end());
    const absl::StatusOr<ShmChannel::Ticket> ticket =
        channel_->Start(std::move(call));
    if (!ticket.ok()) ThrowShmError(ticket.status());
    last = *ticket;
  }
  return WorkOf(op, last, std::move(outputs), timeout);
}

c10::intrusive_ptr<Work> ShmBackend::WorkOf(OpType op,
                                            ShmChannel::Ticket ticket,
                                            ShmTensors outputs,
                                            std::chrono::milliseconds timeout) {
  return c10::make_intrusive<ShmWork>(
      getRank(), op, channel_, ticket, std::move(outputs),
      timeout == c10d::kUnsetTimeout ? timeout_ : timeout);
}

c10::intrusive_ptr<Work> ShmBackend::allreduce(
    Tensors& tensors, const c10d::AllreduceOptions& options) {
  const at::Tensor& tensor = Single(tensors);
  return Start(OpType::ALLREDUCE,
               AllReduceCall(tensor, tensor, options.reduceOp),
               options.timeout);
}

c10::intrusive_ptr<Work> ShmBackend::allreduce_coalesced(
    Tensors& tensors, const c10d::AllreduceCoalescedOptions& options) {
  std::vector<ShmCall> calls;
  for (const at::Tensor& tensor : tensors)
    calls.push_back(AllReduceCall(tensor, tensor, options.reduceOp));
  return StartAll(OpType::ALLREDUCE_COALESCED, std::move(calls),
                  options.timeout);
}

c10::intrusive_ptr<Work> ShmBackend::reduce(
    Tensors& tensors, const c10d::ReduceOptions& options) {
  return Start(
      OpType::REDUCE,
      ReduceCall(place_, Single(tensors), options.rootRank, options.reduceOp),
      options.timeout);
}

c10::intrusive_ptr<Work> ShmBackend::broadcast(
    Tensors& tensors, const c10d::BroadcastOptions& options) {
  return Start(OpType::BROADCAST,
               BroadcastCall(place_, Single(tensors), options.rootRank),
               options.timeout);
}

c10::intrusive_ptr<Work> ShmBackend::allgather(
    std::vector<Tensors>& outputs, Tensors& inputs,
    const c10d::AllgatherOptions& options) {
  return Start(OpType::ALLGATHER,
               AllGatherCall(place_, Single(outputs), Single(inputs)),
               options.timeout);
}

c10::intrusive_ptr<Work> ShmBackend::_allgather_base(
    at::Tensor& output, at::Tensor& input,
    const c10d::AllgatherOptions& options) {
  return Start(OpType::_ALLGATHER_BASE,
               AllGatherIntoCall(place_, output, input), options.timeout);
}

c10::intrusive_ptr<Work> ShmBackend::allgather_into_tensor_coalesced(
    Tensors& outputs, Tensors& inputs, const c10d::AllgatherOptions& options) {
  CheckSameLength(outputs, inputs);
  std::vector<ShmCall> calls;
  for (size_t i = 0; i < inputs.size(); ++i)
    calls.push_back(AllGatherIntoCall(place_, outputs[i], inputs[i]));
  return StartAll(OpType::COALESCED, std::move(calls), options.timeout);
}

c10::intrusive_ptr<Work> ShmBackend::gather(
    std::vector<Tensors>& outputs, Tensors& inputs,
    const c10d::GatherOptions& options) {
  const bool root = getRank() == options.rootRank;
  return Start(OpType::GATHER,
               GatherCall(place_, SingleAtRoot(outputs, root), Single(inputs),
                          options.rootRank),
               options.timeout);
}

c10::intrusive_ptr<Work> ShmBackend::scatter(
    Tensors& outputs, std::vector<Tensors>& inputs,
    const c10d::ScatterOptions& options) {
  const bool root = getRank() == options.rootRank;
  return Start(OpType::SCATTER,
               ScatterCall(place_, Single(outputs), SingleAtRoot(inputs, root),
                           options.rootRank),
               options.timeout);
}

c10::intrusive_ptr<Work> ShmBackend::reduce_scatter(
    Tensors& outputs, std::vector<Tensors>& inputs,
    const c10d::ReduceScatterOptions& options) {
  return Start(OpType::REDUCE_SCATTER,
               ReduceScatterCall(place_, Single(outputs), Single(inputs),
                                 options.reduceOp),
               options.timeout);
}

c10::intrusive_ptr<Work> ShmBackend::_reduce_scatter_base(
    at::Tensor& output, at::Tensor& input,
    const c10d::ReduceScatterOptions& options) {
  return Start(OpType::_REDUCE_SCATTER_BASE,
               ReduceScatterFromCall(place_, output, input, options.reduceOp),
               options.timeout);
}

c10::intrusive_ptr<Work> ShmBackend::reduce_scatter_tensor_coalesced(
    Tensors& outputs, Tensors& inputs,
    const c10d::ReduceScatterOptions& options) {
  CheckSameLength(outputs, inputs);
  std::vector<ShmCall> calls;
  for (size_t i = 0; i < inputs.size(); ++i) {
    calls.push_back(
        ReduceScatterFromCall(place_, outputs[i], inputs[i], options.reduceOp));
  }
  return StartAll(OpType::COALESCED, std::move(calls), options.timeout);
}

c10::intrusive_ptr<Work> ShmBackend::alltoall_base(
    at::Tensor& output, at::Tensor& input, std::vector<int64_t>& output_splits,
    std::vector<int64_t>& input_splits, const c10d::AllToAllOptions& options) {
  return Start(OpType::ALLTOALL_BASE,
               AllToAllCall(place_, output, input, output_splits, input_splits),
               options.timeout);
}

c10::intrusive_ptr<Work> ShmBackend::alltoall(
    Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions& options) {
  return Start(OpType::ALLTOALL, AllToAllCall(place_, outputs, inputs),
               options.timeout);
}

c10::intrusive_ptr<Work> ShmBackend::barrier(
    const c10d::BarrierOptions& options) {
  return Start(OpType::BARRIER, BarrierCall(place_), options.timeout);
}

}  // namespace shardplane
