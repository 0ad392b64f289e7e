#include "worker/process_groups.h"

#include <utility>
#include <variant>

#include "ATen/core/Tensor.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/empty.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "c10/util/Exception.h"
#include "common/errors.h"
#include "common/tensor_spec.h"
#include "torch/csrc/distributed/c10d/PrefixStore.hpp"
#include "worker/cuda_support.h"
#include "worker/dim_first.h"
#include "worker/gang_store_adapter.h"
#include "worker/gloo_group.h"
#include "worker/host_staged_group.h"
#include "worker/shm/rendezvous.h"
#include "worker/shm_group.h"

namespace shardplane {
namespace {

// What it takes to make the group along one mesh dim, which has several ranks.
struct GroupSpec {
  const GangSpec& gang;
  const ProcessGroupsOptions& options;
  int mesh_dim = 0;

  const MeshDim& dim() const { return gang.mesh.dims()[mesh_dim]; }
  std::vector<int> ranks() const {
    return gang.mesh.Group(gang.rank, mesh_dim);
  }
  int rank() const { return gang.mesh.Coordinate(gang.rank)[mesh_dim]; }
  // The groups of one mesh dim are told apart by their ranks.
  std::string prefix() const {
    return absl::StrCat(mesh_dim, "/", absl::StrJoin(ranks(), ","));
  }
};

absl::Status NoSharedMemory(const GroupSpec& spec, const std::string& why) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      absl::StrCat("collectives: expected shared memory on mesh dim ",
                   spec.dim().name, "; got: ", why),
      {.reason = "NO_SHARED_MEMORY",
       .metadata = {{"mesh_dim", spec.dim().name}}});
}

// Through a store that all groups of the gang share.
absl::StatusOr<std::unique_ptr<ProcessGroup>> MakeCpuGroup(
    const GroupSpec& spec, GangStore& store,
    const c10::intrusive_ptr<c10d::Store>& c10d_store, GroupTransport& made) {
  const TransportChoice choice = spec.options.transport;
  // A rank that wants Gloo takes part, so that the others learn it.
  auto joined = JoinShmGroup(
      store, absl::StrCat(spec.prefix(), "/shm"), spec.rank(),
      static_cast<int>(spec.ranks().size()),
      {.timeout = spec.gang.timeout,
       .unwilling =
           choice == TransportChoice::kGloo ? "it is told to use gloo" : ""});
  // The store's: thrown as c10d's groups do it.
  TORCH_CHECK_WITH(DistStoreError, joined.ok(),
                   "forming a group: ", joined.status().ToString());
  if (auto* memory = std::get_if<ShmGroupMemory>(&*joined)) {
    made.transport = Transport::kSharedMemory;
    return std::make_unique<ShmGroup>(spec.rank(), std::move(*memory),
                                      spec.gang.timeout);
  }
  made.transport = Transport::kGloo;
  made.why = std::get<NoShmGroup>(*joined).why;
  if (choice == TransportChoice::kSharedMemory)
    return NoSharedMemory(spec, made.why);
  return std::make_unique<GlooGroup>(
      c10d_store,
      GlooGroup::Options{.rank = spec.rank(),
                         .size = static_cast<int>(spec.ranks().size()),
                         .timeout = spec.gang.timeout,
                         .hostname = spec.options.hostname});
}

absl::StatusOr<std::unique_ptr<ProcessGroup>> MakeGroup(
    const GroupSpec& spec, GangStore& store,
    const c10::intrusive_ptr<c10d::Store>& c10d_store, GroupTransport& made) {
  const c10::Device device = spec.options.device;
  if (device.is_cpu()) return MakeCpuGroup(spec, store, c10d_store, made);
  const CudaSupport* cuda = FindCudaSupport();
  if (device.is_cuda() && spec.options.transport != TransportChoice::kAuto) {
    SP_ASSIGN_OR_RETURN(std::unique_ptr<ProcessGroup> host,
                        MakeCpuGroup(spec, store, c10d_store, made));
    return std::make_unique<HostStagedGroup>(std::move(host), device);
  }
  if (device.is_cuda() && cuda != nullptr) {
    made.transport = Transport::kNccl;
    return cuda->make_group(c10d_store, {.name = spec.dim().name,
                                         .ranks = spec.ranks(),
                                         .rank = spec.rank(),
                                         .timeout = spec.gang.timeout,
                                         .device = device});
  }
  return MakeError(absl::StatusCode::kUnimplemented,
                   absl::StrCat("collectives: expected device cpu or, in a "
                                "worker for GPUs, cuda, got: ",
                                device.str()),
                   {.reason = "DEVICE_NOT_SUPPORTED", .metadata = {}});
}

}  // namespace

BegunCollective ProcessGroup::BeginAllReduce(const at::Tensor& input,
                                             ReduceOp op) {
  return [result = AllReduce(input, op)] { return result; };
}

BegunCollective ProcessGroup::BeginReduceScatter(const at::Tensor& input,
                                                 ReduceOp op) {
  return [result = ReduceScatter(input, op)] { return result; };
}

BegunCollective ProcessGroup::BeginAllGather(const at::Tensor& input) {
  std::vector<int64_t> sizes = input.sizes().vec();
  sizes[0] *= size();
  const at::Tensor result = at::empty(sizes, input.options());
  AllGather(result, input);
  return [result] { return result; };
}

at::Tensor ProcessGroup::AllGatherAlong(const at::Tensor& input, int dim,
                                        int64_t extent) {
  const int64_t chunk = Chunk(extent, size(), 0).size;
  const at::Tensor sent = DimFirst(PadTo(input, dim, chunk), dim);
  std::vector<int64_t> sizes = sent.sizes().vec();
  sizes[0] = chunk * size();
  at::Tensor all = at::empty(sizes, sent.options());
  AllGather(all, sent);
  return DimBack(all, dim, extent);
}

at::Tensor ProcessGroup::ReduceScatterAlong(const at::Tensor& input, int dim,
                                            ReduceOp op) {
  const int64_t extent = input.size(dim);
  const int64_t chunk = Chunk(extent, size(), 0).size;
  const at::Tensor sent = DimFirst(PadTo(input, dim, chunk * size()), dim);
  return DimBack(ReduceScatter(sent, op), dim,
                 Chunk(extent, size(), rank()).size);
}

at::Tensor ProcessGroup::AllToAllAlong(const at::Tensor& input, int from_dim,
                                       int to_dim, int64_t extent) {
  const int64_t to_extent = input.size(to_dim);
  std::vector<at::Tensor> parts;
  std::vector<int64_t> sent_counts;
  std::vector<int64_t> received_counts;
  std::vector<Shape> received_shapes;
  int64_t total = 0;
  for (int peer = 0; peer < size(); ++peer) {
    const Extent to = Chunk(to_extent, size(), peer);
    parts.push_back(input.narrow(to_dim, to.offset, to.size).reshape({-1}));
    sent_counts.push_back(parts.back().numel());
    Shape shape = input.sizes().vec();
    shape[from_dim] = Chunk(extent, size(), peer).size;
    shape[to_dim] = Chunk(to_extent, size(), rank()).size;
    received_counts.push_back(NumElements(shape));
    total += received_counts.back();
    received_shapes.push_back(std::move(shape));
  }
  const at::Tensor sent = at::cat(parts);
  at::Tensor received = at::empty({total}, sent.options());
  AllToAll(received, sent, received_counts, sent_counts);
  std::vector<at::Tensor> pieces = received.split_with_sizes(received_counts);
  for (int peer = 0; peer < size(); ++peer)
    pieces[peer] = pieces[peer].view(received_shapes[peer]);
  return at::cat(pieces, from_dim);
}

absl::StatusOr<std::unique_ptr<ProcessGroups>> ProcessGroups::Create(
    const GangSpec& spec, std::shared_ptr<GangStore> store,
    const ProcessGroupsOptions& options) {
  GangStore& shared = *store;
  auto adapter =
      c10::make_intrusive<GangStoreAdapter>(std::move(store), spec.timeout);
  auto groups = std::make_unique<ProcessGroups>();
  for (int dim = 0; dim < spec.mesh.ndim(); ++dim) {
    if (spec.mesh.dim_size(dim) == 1) {
      groups->groups_.push_back(nullptr);
      continue;
    }
    const GroupSpec group{spec, options, dim};
    GroupTransport transport{.mesh_dim = group.dim().name, .why = ""};
    SP_ASSIGN_OR_RETURN(std::unique_ptr<ProcessGroup> made,
                        MakeGroup(group, shared,
                                  c10::make_intrusive<c10d::PrefixStore>(
                                      group.prefix(), adapter),
                                  transport));
    groups->groups_.push_back(std::move(made));
    groups->transports_.push_back(std::move(transport));
  }
  return groups;
}

void ProcessGroups::WrapEach(Wrap wrap) {
  for (std::unique_ptr<ProcessGroup>& group : groups_) {
    if (group != nullptr) group = wrap(std::move(group));
  }
}

void ProcessGroups::Abort() {
  for (const std::unique_ptr<ProcessGroup>& group : groups_) {
    if (group != nullptr) group->Abort();
  }
}

}  // namespace shardplane
