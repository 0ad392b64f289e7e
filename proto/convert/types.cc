#include "proto/convert/types.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

constexpr std::pair<pb::DType, DType> kDTypes[] = {
    {pb::DTYPE_FLOAT32, DType::kFloat32},
    {pb::DTYPE_FLOAT64, DType::kFloat64},
    {pb::DTYPE_FLOAT16, DType::kFloat16},
    {pb::DTYPE_BFLOAT16, DType::kBFloat16},
    {pb::DTYPE_INT64, DType::kInt64},
    {pb::DTYPE_INT32, DType::kInt32},
    {pb::DTYPE_INT16, DType::kInt16},
    {pb::DTYPE_INT8, DType::kInt8},
    {pb::DTYPE_UINT8, DType::kUInt8},
    {pb::DTYPE_BOOL, DType::kBool},
    {pb::DTYPE_COMPLEX64, DType::kComplex64},
    {pb::DTYPE_COMPLEX128, DType::kComplex128},
};

constexpr std::pair<pb::ReduceOp, ReduceOp> kReduceOps[] = {
    {pb::REDUCE_OP_SUM, ReduceOp::kSum},
    {pb::REDUCE_OP_MAX, ReduceOp::kMax},
    {pb::REDUCE_OP_MIN, ReduceOp::kMin},
};

// Whether the size in bytes is representable, whatever zeros stand between.
bool SizeFits(const pb::TensorType& message, DType dtype) {
  int64_t bytes = ByteSize(dtype);
  for (const int64_t extent : message.shape()) {
    if (__builtin_mul_overflow(bytes, std::max<int64_t>(extent, 1), &bytes)) {
      return false;
    }
  }
  return true;
}

absl::Status CheckShard(const pb::Shard& shard, const FieldPath& field) {
  if (shard.dim() >= -kMaxTensorRank && shard.dim() < kMaxTensorRank) {
    return absl::OkStatus();
  }
  return InvalidField(
      field.Member("dim"),
      absl::StrCat("expected a tensor dim from ", -kMaxTensorRank, " to ",
                   kMaxTensorRank - 1, ", got: ", shard.dim()));
}

absl::Status CheckCutOrder(const DTensorSpec& spec, const FieldPath& field) {
  std::vector<bool> seen(spec.placements.size());
  for (size_t i = 0; i < spec.cut_order.size(); ++i) {
    const int dim = spec.cut_order[i];
    const FieldPath element = field.Element("cut_order", static_cast<int>(i));
    if (dim < 0 || dim >= static_cast<int>(seen.size()) ||
        ShardDim(spec.placements[dim]) < 0) {
      return InvalidField(
          element, absl::StrCat("expected a mesh dim that cuts, got: ", dim));
    }
    if (seen[dim]) {
      return InvalidField(element,
                          absl::StrCat("a mesh dim twice, got: ", dim));
    }
    seen[dim] = true;
  }
  return absl::OkStatus();
}

absl::StatusOr<Initializer> Uniform(const pb::Initializer::Uniform& uniform,
                                    const FieldPath& field) {
  // A range wider than the largest double has no finite values to draw.
  if (!std::isfinite(uniform.low()) || !std::isfinite(uniform.high()) ||
      uniform.low() > uniform.high() ||
      !std::isfinite(uniform.high() - uniform.low())) {
    return InvalidField(field,
                        absl::StrCat("expected finite low <= high, got: low ",
                                     uniform.low(), ", high ", uniform.high()));
  }
  return Initializer{Initializer::Kind::kUniform, uniform.low(),
                     uniform.high()};
}

absl::StatusOr<Initializer> Normal(const pb::Initializer::Normal& normal,
                                   const FieldPath& field) {
  if (!std::isfinite(normal.mean()) || !std::isfinite(normal.std()) ||
      normal.std() < 0) {
    return InvalidField(
        field, absl::StrCat("expected a finite mean and std >= 0, got: mean ",
                            normal.mean(), ", std ", normal.std()));
  }
  return Initializer{Initializer::Kind::kNormal, normal.mean(), normal.std()};
}

absl::StatusOr<Initializer> Files(const pb::Initializer::Files& files,
                                  const FieldPath& field) {
  if (files.path().empty()) return MissingField(field.Member("path"));
  return Initializer{.kind = Initializer::Kind::kFiles,
                     .path = files.path(),
                     .names = {files.names().begin(), files.names().end()}};
}

absl::StatusOr<Initializer> KindFromProto(const pb::Initializer& message,
                                          const FieldPath& field) {
  switch (message.kind_case()) {
    case pb::Initializer::kZeros:
      return Initializer{Initializer::Kind::kZeros};
    case pb::Initializer::kOnes:
      return Initializer{Initializer::Kind::kOnes};
    case pb::Initializer::kUniform:
      return Uniform(message.uniform(), field.Member("uniform"));
    case pb::Initializer::kNormal:
      return Normal(message.normal(), field.Member("normal"));
    case pb::Initializer::kFiles:
      return Files(message.files(), field.Member("files"));
    case pb::Initializer::KIND_NOT_SET:
      break;
  }
  return MissingOneof(field, "zeros, ones, uniform, normal, files");
}

absl::Status TooLargeInline(size_t bytes, const FieldPath& field) {
  const std::string path = field.ToString();
  return MakeError(
      absl::StatusCode::kResourceExhausted,
      absl::StrCat(path, ": expected at most ", kMaxInlineBytes,
                   " bytes inline; upload a larger tensor with UploadTensor "
                   "and name its id here, got: ",
                   bytes, " bytes"),
      {.reason = "INLINE_TENSOR_TOO_LARGE",
       .metadata = {{"field", path},
                    {"limit_bytes", absl::StrCat(kMaxInlineBytes)},
                    {"remedy", "UploadTensor"}}});
}

absl::StatusOr<TensorSource> InlineTensor(pb::Tensor& message, TensorType type,
                                          const FieldPath& field) {
  const int64_t expected = ByteSize(type);
  const size_t size = message.inline_().size();
  if (size > static_cast<size_t>(kMaxInlineBytes)) {
    return TooLargeInline(size, field);
  }
  if (static_cast<int64_t>(size) != expected) {
    return InvalidField(field, absl::StrCat("expected ", expected, " bytes of ",
                                            ToString(type), ", got: ", size));
  }
  return TensorSource(
      HostTensor{std::move(type), std::move(*message.mutable_inline_())});
}

}  // namespace

absl::StatusOr<DType> FromProto(v1::DType dtype, const FieldPath& field) {
  for (const auto& [wire, value] : kDTypes) {
    if (wire == dtype) {
      return value;
    }
  }
  return InvalidEnum(field, "a DType", dtype);
}

v1::DType ToProto(DType dtype) {
  for (const auto& [wire, value] : kDTypes) {
    if (value == dtype) {
      return wire;
    }
  }
  return pb::DTYPE_UNSPECIFIED;
}

absl::StatusOr<ReduceOp> FromProto(v1::ReduceOp op, const FieldPath& field) {
  if (op == pb::REDUCE_OP_UNSPECIFIED) {
    return ReduceOp::kSum;
  }
  for (const auto& [wire, value] : kReduceOps) {
    if (wire == op) {
      return value;
    }
  }
  return InvalidEnum(field, "a ReduceOp", op);
}

v1::ReduceOp ToProto(ReduceOp op) {
  for (const auto& [wire, value] : kReduceOps) {
    if (value == op) {
      return wire;
    }
  }
  return pb::REDUCE_OP_UNSPECIFIED;
}

absl::StatusOr<TensorType> FromProto(const v1::TensorType& message,
                                     const FieldPath& field) {
  SP_ASSIGN_OR_RETURN(const DType dtype,
                      FromProto(message.dtype(), field.Member("dtype")));
  if (message.shape_size() > kMaxTensorRank) {
    return InvalidField(field.Member("shape"),
                        absl::StrCat("expected at most ", kMaxTensorRank,
                                     " dims, got: ", message.shape_size()));
  }
  for (int i = 0; i < message.shape_size(); ++i) {
    if (message.shape(i) < 0) {
      return InvalidField(
          field.Element("shape", i),
          absl::StrCat("expected an extent >= 0, got: ", message.shape(i)));
    }
  }
  TensorType type{dtype, {message.shape().begin(), message.shape().end()}};
  if (!SizeFits(message, dtype)) {
    return InvalidField(field.Member("shape"),
                        absl::StrCat("expected a size in bytes below 2^63, "
                                     "got: ",
                                     ShapeToString(type.shape)));
  }
  return type;
}

v1::TensorType ToProto(const TensorType& type) {
  pb::TensorType message;
  message.set_dtype(ToProto(type.dtype));
  message.mutable_shape()->Add(type.shape.begin(), type.shape.end());
  return message;
}

absl::StatusOr<Blocks> BlocksFromProto(const BlockMessages& messages,
                                       const FieldPath& field) {
  std::vector<Block> list;
  for (int i = 0; i < messages.size(); ++i) {
    const pb::Shard::Block& message = messages[i];
    const Block block{message.size(), message.unit(), message.replicas(),
                      message.partial()};
    if (block.size < 0 || block.unit < 1 || block.size % block.unit != 0 ||
        block.replicas < 1) {
      return InvalidField(
          field.Element("blocks", i),
          absl::StrCat("expected whole units and a number of replicas, got: ",
                       "size ", block.size, ", unit ", block.unit,
                       ", replicas ", block.replicas));
    }
    list.push_back(block);
  }
  return Blocks::Of(std::move(list));
}

void FillBlocks(const Blocks& blocks, BlockMessages* messages) {
  for (const Block& block : blocks.list()) {
    pb::Shard::Block* message = messages->Add();
    message->set_size(block.size);
    message->set_unit(block.unit);
    message->set_replicas(block.replicas);
    message->set_partial(block.partial);
  }
}

absl::StatusOr<Placement> FromProto(const v1::Placement& message,
                                    const FieldPath& field) {
  switch (message.kind_case()) {
    case pb::Placement::kReplicate:
      return Placement(Replicate{});
    case pb::Placement::kShard:
      SP_RETURN_IF_ERROR(CheckShard(message.shard(), field.Member("shard")));
      if (message.shard().blocks_size() > 0) {
        return InvalidField(field.Member("shard").Member("blocks"),
                            "expected none: a layout is cut as one; a style's "
                            "block_sizes say how its weight is packed");
      }
      return Placement(Shard{message.shard().dim()});
    case pb::Placement::kPartial: {
      SP_ASSIGN_OR_RETURN(const ReduceOp op,
                          FromProto(message.partial().op(),
                                    field.Member("partial").Member("op")));
      return Placement(Partial{op});
    }
    case pb::Placement::KIND_NOT_SET:
      break;
  }
  return MissingOneof(field, "replicate, shard, partial");
}

v1::Placement ToProto(const Placement& placement) {
  pb::Placement message;
  if (const Shard* shard = std::get_if<Shard>(&placement)) {
    message.mutable_shard()->set_dim(shard->dim);
    FillBlocks(shard->blocks, message.mutable_shard()->mutable_blocks());
  } else if (const Partial* partial = std::get_if<Partial>(&placement)) {
    message.mutable_partial()->set_op(ToProto(partial->op));
  } else {
    message.mutable_replicate();
  }
  return message;
}

absl::StatusOr<DTensorSpec> FromProto(const v1::DTensorSpec& message,
                                      const FieldPath& field) {
  DTensorSpec spec;
  for (int i = 0; i < message.placements_size(); ++i) {
    const FieldPath element = field.Element("placements", i);
    pb::Placement whole = message.placements(i);
    if (whole.has_shard()) whole.mutable_shard()->clear_blocks();
    SP_ASSIGN_OR_RETURN(Placement placement, FromProto(whole, element));
    if (Shard* shard = std::get_if<Shard>(&placement)) {
      if (shard->dim < 0) {
        return InvalidField(
            element.Member("shard").Member("dim"),
            absl::StrCat("expected a tensor dim >= 0, got: ", shard->dim));
      }
      SP_ASSIGN_OR_RETURN(
          shard->blocks, BlocksFromProto(message.placements(i).shard().blocks(),
                                         element.Member("shard")));
    }
    spec.placements.push_back(placement);
  }
  spec.cut_order.assign(message.cut_order().begin(), message.cut_order().end());
  SP_RETURN_IF_ERROR(CheckCutOrder(spec, field));
  return spec;
}

v1::DTensorSpec ToProto(const DTensorSpec& spec) {
  pb::DTensorSpec message;
  for (const Placement& placement : spec.placements) {
    *message.add_placements() = ToProto(placement);
  }
  message.mutable_cut_order()->Add(spec.cut_order.begin(),
                                   spec.cut_order.end());
  return message;
}

absl::StatusOr<DeviceMesh> FromProto(const v1::DeviceMesh& message,
                                     const FieldPath& field) {
  std::vector<MeshDim> dims;
  for (const pb::MeshDim& dim : message.dims()) {
    dims.push_back({dim.name(), dim.size()});
  }
  absl::StatusOr<DeviceMesh> mesh = DeviceMesh::Create(std::move(dims));
  if (!mesh.ok()) {
    return InField(mesh.status(), field.Member("dims"));
  }
  return mesh;
}

v1::DeviceMesh ToProto(const DeviceMesh& mesh) {
  pb::DeviceMesh message;
  for (const MeshDim& dim : mesh.dims()) {
    pb::MeshDim* out = message.add_dims();
    out->set_name(dim.name);
    out->set_size(dim.size);
  }
  return message;
}

absl::StatusOr<Initializer> FromProto(const v1::Initializer& message,
                                      const FieldPath& field) {
  SP_ASSIGN_OR_RETURN(Initializer initializer, KindFromProto(message, field));
  if (!message.has_zero_row()) {
    return initializer;
  }
  if (message.zero_row() < 0) {
    return InvalidField(
        field.Member("zero_row"),
        absl::StrCat("expected a row >= 0, got: ", message.zero_row()));
  }
  if (message.has_files()) {
    return InvalidField(
        field.Member("zero_row"),
        absl::StrCat("expected none beside files, got: ", message.zero_row()));
  }
  initializer.zero_row = message.zero_row();
  return initializer;
}

v1::Initializer ToProto(const Initializer& initializer) {
  pb::Initializer message;
  switch (initializer.kind) {
    case Initializer::Kind::kZeros:
      message.mutable_zeros();
      break;
    case Initializer::Kind::kOnes:
      message.mutable_ones();
      break;
    case Initializer::Kind::kUniform:
      message.mutable_uniform()->set_low(initializer.a);
      message.mutable_uniform()->set_high(initializer.b);
      break;
    case Initializer::Kind::kNormal:
      message.mutable_normal()->set_mean(initializer.a);
      message.mutable_normal()->set_std(initializer.b);
      break;
    case Initializer::Kind::kFiles:
      message.mutable_files()->set_path(initializer.path);
      message.mutable_files()->mutable_names()->Add(initializer.names.begin(),
                                                    initializer.names.end());
      break;
  }
  if (initializer.zero_row.has_value()) {
    message.set_zero_row(*initializer.zero_row);
  }
  return message;
}

absl::StatusOr<TensorSource> FromProto(v1::Tensor message,
                                       const FieldPath& field) {
  SP_ASSIGN_OR_RETURN(TensorType type,
                      FromProto(message.type(), field.Member("type")));
  switch (message.data_case()) {
    case pb::Tensor::kInline:
      return InlineTensor(message, std::move(type), field.Member("inline"));
    case pb::Tensor::kUpload:
      if (message.upload().empty()) {
        return MissingField(field.Member("upload"));
      }
      return TensorSource(UploadedTensor{std::move(type), message.upload()});
    case pb::Tensor::DATA_NOT_SET:
      break;
  }
  return MissingOneof(field, "inline, upload");
}

v1::Tensor ToProto(HostTensor tensor) {
  pb::Tensor message;
  *message.mutable_type() = ToProto(tensor.type);
  message.set_inline_(std::move(tensor.bytes));
  return message;
}

v1::Tensor ToProto(const UploadedTensor& tensor) {
  pb::Tensor message;
  *message.mutable_type() = ToProto(tensor.type);
  message.set_upload(tensor.id);
  return message;
}

}  // namespace shardplane
