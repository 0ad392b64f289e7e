#include "worker/parameters.h"

#include <algorithm>
#include <utility>

#include "ATen/core/Tensor.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/initializer.h"
#include "worker/packed_dim.h"
#include "worker/stored_tensors.h"
#include "worker/torch_tensors.h"

namespace shardplane {
namespace {

absl::Status Bad(const ParameterSource& source, absl::string_view reason,
                 absl::string_view what) {
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat("parameter ", source.fqn, ": ", what),
      {.reason = std::string(reason), .metadata = {{"fqn", source.fqn}}});
}

bool IsStored(const ParameterSource& source) {
  return source.initializer.has_value() &&
         source.initializer->kind == Initializer::Kind::kFiles;
}

}  // namespace

Materializer::Materializer(const MaterializeSpec& spec, const DeviceMesh& mesh,
                           int rank, Communicator& communicator,
                           WeightFiles& files)
    : spec_(spec),
      mesh_(mesh),
      coordinate_(mesh.Coordinate(rank)),
      communicator_(communicator),
      files_(files) {}

absl::StatusOr<Parameters> Materializer::Run(TakeSource take,
                                             MaterializeProgress* progress) {
  const std::optional<int>& root = spec_.src_data_rank;
  if (mesh_.ndim() > 0 &&
      (spec_.plan_mesh_dim < 0 || spec_.plan_mesh_dim >= mesh_.ndim())) {
    return absl::InvalidArgumentError(
        absl::StrCat("plan_mesh_dim: expected a dim of ", mesh_.ToString(),
                     ", got: ", spec_.plan_mesh_dim));
  }
  const int ranks = mesh_.ndim() > 0 ? mesh_.dim_size(spec_.plan_mesh_dim) : 1;
  if (root.has_value() && (*root < 0 || *root >= ranks)) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        absl::StrCat(
            "src_data_rank: expected a rank of mesh dim ",
            mesh_.ndim() > 0 ? mesh_.dims()[spec_.plan_mesh_dim].name : "",
            ", of size ", ranks, ", got: ", *root),
        {.reason = "SRC_DATA_RANK_OUT_OF_RANGE",
         .metadata = {{"field", "src_data_rank"}}});
  }
  MaterializeProgress unread;
  if (progress == nullptr) progress = &unread;
  progress->bytes_done = 0;
  progress->bytes_read = 0;
  int64_t total = 0;
  for (const ParameterSource& source : spec_.parameters) {
    SP_RETURN_IF_ERROR(Check(source));
    total += LocalBytes(source);
  }
  progress->bytes_total = total;
  Parameters parameters;
  for (const ParameterSource& source : spec_.parameters) {
    SP_ASSIGN_OR_RETURN(at::Tensor local, One(source, take));
    const auto bytes = static_cast<int64_t>(local.nbytes());
    progress->bytes_done += bytes;
    if (IsStored(source)) progress->bytes_read += bytes;
    parameters[source.fqn] = {source.type, source.spec, std::move(local)};
  }
  return parameters;
}

absl::Status Materializer::Check(const ParameterSource& source) {
  SP_RETURN_IF_ERROR(
      Validate(source.spec, mesh_, static_cast<int>(source.type.shape.size())));
  if (HasPartial(source.spec)) {
    return Bad(source, "PARTIAL_PARAMETER",
               absl::StrCat("expected Shard and Replicate, got: ",
                            ToString(source.spec)));
  }
  return IsStored(source) ? FindStored(source).status() : absl::OkStatus();
}

absl::StatusOr<WeightFiles::Found> Materializer::FindStored(
    const ParameterSource& source) {
  absl::StatusOr<WeightFiles::Found> found =
      files_.Find(source.initializer->path, source.initializer->names);
  if (!found.ok()) return WithMetadata(found.status(), "fqn", source.fqn);
  if (CanBecome(found->tensor.type, source.type)) return found;
  return Bad(source, "PARAMETER_TYPE_DIFFERS",
             absl::StrCat("expected data of ", ToString(source.type),
                          ", got: ", ToString(found->tensor.type), ", \"",
                          found->name, "\" of ", found->file->path()));
}

int64_t Materializer::LocalBytes(const ParameterSource& source) const {
  TensorType local{source.type.dtype, {}};
  for (const Stretches& dim :
       LocalStretches(source.type.shape, source.spec, mesh_, coordinate_)) {
    local.shape.push_back(SizeOf(dim));
  }
  return ByteSize(local);
}

absl::StatusOr<at::Tensor> Materializer::One(const ParameterSource& source,
                                             TakeSource take) {
  const std::vector<Stretches> part =
      LocalStretches(source.type.shape, source.spec, mesh_, coordinate_);
  if (source.initializer.has_value()) return Initial(source, part);
  if (spec_.src_data_rank.has_value()) return Distribute(source, take);
  SP_ASSIGN_OR_RETURN(const HostTensor full, Source(source, take));
  return SliceToTorch(full, part, communicator_.device());
}

absl::StatusOr<at::Tensor> Materializer::Initial(
    const ParameterSource& source, absl::Span<const Stretches> part) {
  if (IsStored(source)) {
    SP_ASSIGN_OR_RETURN(const WeightFiles::Found found, FindStored(source));
    return LoadPart(
        found, part,
        {.dtype = source.type.dtype, .device = communicator_.device()});
  }
  SP_ASSIGN_OR_RETURN(std::string bytes,
                      InitialValues(*source.initializer, spec_.seed, source.fqn,
                                    source.type, part));
  TensorType local{source.type.dtype, {}};
  for (const Stretches& dim : part) local.shape.push_back(SizeOf(dim));
  return ToTorch({std::move(local), std::move(bytes)}, communicator_.device());
}

absl::StatusOr<HostTensor> Materializer::Source(const ParameterSource& source,
                                                TakeSource take) {
  SP_ASSIGN_OR_RETURN(HostTensor full, take(source.fqn));
  if (full.type == source.type) return full;
  return Bad(source, "PARAMETER_TYPE_DIFFERS",
             absl::StrCat("expected data of ", ToString(source.type),
                          ", got: ", ToString(full.type)));
}

absl::StatusOr<at::Tensor> Materializer::Distribute(
    const ParameterSource& source, TakeSource take) {
  const std::vector<int> order = TravelOrder(source.spec, spec_.plan_mesh_dim);
  const auto root = [&](int mesh_dim) {
    return mesh_dim == spec_.plan_mesh_dim ? *spec_.src_data_rank : 0;
  };
  // Before stage s the data lie where the dims from s on are at their root.
  const auto has_data = [&](size_t stage) {
    return std::all_of(order.begin() + static_cast<ptrdiff_t>(stage),
                       order.end(),
                       [&](int dim) { return coordinate_[dim] == root(dim); });
  };
  at::Tensor held;
  if (has_data(0)) {
    SP_ASSIGN_OR_RETURN(const HostTensor full, Source(source, take));
    held = ToTorch(full, communicator_.device());
  }
  TensorType type = source.type;
  for (size_t stage = 0; stage < order.size(); ++stage) {
    const int mesh_dim = order[stage];
    const bool takes_part = has_data(stage + 1);
    if (!takes_part) {
      // Another part of the mesh; only the shape goes on.
      const int dim = ShardDim(source.spec.placements[mesh_dim]);
      if (dim >= 0) {
        type.shape[dim] = SizeOf(PartAlong(source, mesh_dim, type));
      }
      continue;
    }
    SP_ASSIGN_OR_RETURN(held,
                        Along(source, mesh_dim, root(mesh_dim), held, type));
  }
  return held;
}

absl::StatusOr<at::Tensor> Materializer::Along(const ParameterSource& source,
                                               int mesh_dim, int root,
                                               const at::Tensor& held,
                                               TensorType& type) {
  const int dim = ShardDim(source.spec.placements[mesh_dim]);
  if (dim < 0) return communicator_.Broadcast(held, type, mesh_dim, root);
  const Blocks blocks = BlocksOf(source.spec.placements[mesh_dim]);
  const int ranks = mesh_.dim_size(mesh_dim);
  const Stretches own = PartAlong(source, mesh_dim, type);
  if (blocks.empty() || ranks == 1) {
    absl::StatusOr<at::Tensor> part =
        communicator_.Scatter(held, type, mesh_dim, dim, root);
    type.shape[dim] = SizeOf(own);
    return part;
  }
  const PackedDim packed(dim, type.shape[dim], blocks, ranks);
  TensorType by_rank = type;
  by_rank.shape[dim] = packed.chunk() * ranks;
  SP_ASSIGN_OR_RETURN(
      const at::Tensor chunk,
      communicator_.Scatter(held.defined() ? packed.ByRank(held) : held,
                            by_rank, mesh_dim, dim, root));
  type.shape[dim] = SizeOf(own);
  return packed.Own(chunk, coordinate_[mesh_dim]);
}

Stretches Materializer::PartAlong(const ParameterSource& source, int mesh_dim,
                                  const TensorType& type) const {
  const Placement& placement = source.spec.placements[mesh_dim];
  return PartOf(type.shape[ShardDim(placement)], BlocksOf(placement),
                mesh_.dim_size(mesh_dim), coordinate_[mesh_dim]);
}

}  // namespace shardplane
