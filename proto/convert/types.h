// Tensors, meshes and placements: wire <-> common. What FromProto returns is
// valid; every error is InvalidArgument (unless said otherwise) with reason
// and field path, `field` being the place of the message in the request.
#ifndef SHARDPLANE_PROTO_CONVERT_TYPES_H_
#define SHARDPLANE_PROTO_CONVERT_TYPES_H_

#include <string>
#include <variant>

#include "absl/status/statusor.h"
#include "common/device_mesh.h"
#include "common/graph_module.h"
#include "common/host_tensor.h"
#include "common/placement.h"
#include "common/tensor_spec.h"
#include "common/tensor_type.h"
#include "proto/convert/field_path.h"
#include "shardplane/v1/types.pb.h"

namespace shardplane {

inline constexpr int kMaxTensorRank = 16;
inline constexpr int64_t kMaxInlineBytes = int64_t{1} << 20;

// An unspecified or unknown number is refused.
absl::StatusOr<DType> FromProto(v1::DType dtype, const FieldPath& field);
v1::DType ToProto(DType dtype);

// Unspecified is the sum.
absl::StatusOr<ReduceOp> FromProto(v1::ReduceOp op, const FieldPath& field);
v1::ReduceOp ToProto(ReduceOp op);

// Refused: a negative extent, a rank over kMaxTensorRank, a size in bytes over
// 2^63 - 1 (zero extents do not hide one).
absl::StatusOr<TensorType> FromProto(const v1::TensorType& message,
                                     const FieldPath& field);
v1::TensorType ToProto(const TensorType& type);

using BlockMessages = google::protobuf::RepeatedPtrField<v1::Shard::Block>;
// InvalidArgument: broken units, no replica.
absl::StatusOr<Blocks> BlocksFromProto(const BlockMessages& messages,
                                       const FieldPath& field);
void FillBlocks(const Blocks& blocks, BlockMessages* messages);

// As a user wrote it: Shard dims from -kMaxTensorRank to kMaxTensorRank - 1,
// without blocks.
absl::StatusOr<Placement> FromProto(const v1::Placement& message,
                                    const FieldPath& field);
v1::Placement ToProto(const Placement& placement);

// Normalized: Shard dims are not negative, cut_order names mesh dims that cut,
// each once. Whether it fits a mesh and a tensor is Validate's to say.
absl::StatusOr<DTensorSpec> FromProto(const v1::DTensorSpec& message,
                                      const FieldPath& field);
v1::DTensorSpec ToProto(const DTensorSpec& spec);

absl::StatusOr<DeviceMesh> FromProto(const v1::DeviceMesh& message,
                                     const FieldPath& field);
v1::DeviceMesh ToProto(const DeviceMesh& mesh);

// Refused: bounds that are not finite or out of order, a negative deviation.
absl::StatusOr<Initializer> FromProto(const v1::Initializer& message,
                                      const FieldPath& field);
v1::Initializer ToProto(const Initializer& initializer);

// A tensor whose contents came earlier, in a stream.
struct UploadedTensor {
  TensorType type;
  std::string id;
  friend bool operator==(const UploadedTensor&,
                         const UploadedTensor&) = default;
};
using TensorSource = std::variant<HostTensor, UploadedTensor>;

// InvalidArgument also: inline bytes of another size than the type's, an empty
// upload id. ResourceExhausted: over kMaxInlineBytes; the message says to
// upload. The bytes of a message that is moved here are not copied.
absl::StatusOr<TensorSource> FromProto(v1::Tensor message,
                                       const FieldPath& field);
v1::Tensor ToProto(HostTensor tensor);  // inline
v1::Tensor ToProto(const UploadedTensor& tensor);

}  // namespace shardplane

#endif  // SHARDPLANE_PROTO_CONVERT_TYPES_H_
