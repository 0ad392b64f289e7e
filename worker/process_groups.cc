#include "worker/process_groups.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "torch/csrc/distributed/c10d/PrefixStore.hpp"
#include "worker/cuda_support.h"
#include "worker/gang_store_adapter.h"
#include "worker/gloo_group.h"

namespace shardplane {
namespace {

// The group along one mesh dim, which has several ranks.
absl::StatusOr<std::unique_ptr<ProcessGroup>> MakeGroup(
    const GangSpec& spec, int dim, const c10::intrusive_ptr<c10d::Store>& store,
    const ProcessGroupsOptions& options) {
  const int rank = spec.mesh.Coordinate(spec.rank)[dim];
  const int size = spec.mesh.dim_size(dim);
  if (options.device.is_cpu()) {
    return std::make_unique<GlooGroup>(
        store, GlooGroup::Options{.rank = rank,
                                  .size = size,
                                  .timeout = spec.timeout,
                                  .hostname = options.hostname});
  }
  const CudaSupport* cuda = FindCudaSupport();
  if (options.device.is_cuda() && cuda != nullptr) {
    return cuda->make_group(store, {.name = spec.mesh.dims()[dim].name,
                                    .ranks = spec.mesh.Group(spec.rank, dim),
                                    .rank = rank,
                                    .timeout = spec.timeout,
                                    .device = options.device});
  }
  return MakeError(absl::StatusCode::kUnimplemented,
                   absl::StrCat("collectives: expected device cpu or, in a "
                                "worker for GPUs, cuda, got: ",
                                options.device.str()),
                   {.reason = "DEVICE_NOT_SUPPORTED", .metadata = {}});
}

}  // namespace

absl::StatusOr<std::unique_ptr<ProcessGroups>> ProcessGroups::Create(
    const GangSpec& spec, std::shared_ptr<GangStore> store,
    const ProcessGroupsOptions& options) {
  auto adapter =
      c10::make_intrusive<GangStoreAdapter>(std::move(store), spec.timeout);
  auto groups = std::make_unique<ProcessGroups>();
  for (int dim = 0; dim < spec.mesh.ndim(); ++dim) {
    if (spec.mesh.dim_size(dim) == 1) {
      groups->groups_.push_back(nullptr);
      continue;
    }
    // The groups of one mesh dim are told apart by their ranks.
    const std::string prefix = absl::StrCat(
        dim, "/", absl::StrJoin(spec.mesh.Group(spec.rank, dim), ","));
    SP_ASSIGN_OR_RETURN(
        std::unique_ptr<ProcessGroup> group,
        MakeGroup(spec, dim,
                  c10::make_intrusive<c10d::PrefixStore>(prefix, adapter),
                  options));
    groups->groups_.push_back(std::move(group));
  }
  return groups;
}

void ProcessGroups::Abort() {
  for (const std::unique_ptr<ProcessGroup>& group : groups_) {
    if (group != nullptr) group->Abort();
  }
}

}  // namespace shardplane
