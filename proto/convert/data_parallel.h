// Data parallel mesh dims: wire <-> common. Errors as in convert/types.h.
#ifndef SHARDPLANE_PROTO_CONVERT_DATA_PARALLEL_H_
#define SHARDPLANE_PROTO_CONVERT_DATA_PARALLEL_H_

#include <vector>

#include "absl/status/statusor.h"
#include "common/data_parallel.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "proto/convert/field_path.h"
#include "shardplane/v1/types.pb.h"

namespace shardplane {

absl::StatusOr<DataParallel> FromProto(const v1::DataParallel& message,
                                       const FieldPath& field);
v1::DataParallel ToProto(const DataParallel& item);

absl::StatusOr<std::vector<DataParallel>> FromProto(
    const google::protobuf::RepeatedPtrField<v1::DataParallel>& messages,
    const FieldPath& parent, const char* name);

}  // namespace shardplane

#endif  // SHARDPLANE_PROTO_CONVERT_DATA_PARALLEL_H_
