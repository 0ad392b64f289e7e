#include "proto/convert/data_parallel.h"

#include <utility>

#include "common/errors.h"
#include "proto/convert/types.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

constexpr std::pair<pb::DataParallel::Kind, DataParallelKind> kKinds[] = {
    {pb::DataParallel::KIND_REPLICATE, DataParallelKind::kReplicate},
    {pb::DataParallel::KIND_FULLY_SHARD, DataParallelKind::kFullyShard},
};

}  // namespace

absl::StatusOr<DataParallel> FromProto(const v1::DataParallel& message,
                                       const FieldPath& field) {
  for (const auto& [wire, kind] : kKinds) {
    if (wire != message.kind()) continue;
    return DataParallel{
        message.mesh_dim(),
        kind,
        {message.shard_dims().begin(), message.shard_dims().end()}};
  }
  return InvalidEnum(field.Member("kind"), "a DataParallel.Kind",
                     message.kind());
}

v1::DataParallel ToProto(const DataParallel& item) {
  pb::DataParallel message;
  message.set_mesh_dim(item.mesh_dim);
  for (const auto& [wire, kind] : kKinds) {
    if (kind == item.kind) message.set_kind(wire);
  }
  message.mutable_shard_dims()->insert(item.shard_dims.begin(),
                                       item.shard_dims.end());
  return message;
}

absl::StatusOr<std::vector<DataParallel>> FromProto(
    const google::protobuf::RepeatedPtrField<v1::DataParallel>& messages,
    const FieldPath& parent, const char* name) {
  std::vector<DataParallel> items;
  for (int i = 0; i < messages.size(); ++i) {
    SP_ASSIGN_OR_RETURN(items.emplace_back(),
                        FromProto(messages[i], parent.Element(name, i)));
  }
  return items;
}

}  // namespace shardplane
