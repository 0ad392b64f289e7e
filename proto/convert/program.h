// Signatures and sharded programs: wire <-> common. Errors as in
// convert/types.h.
#ifndef SHARDPLANE_PROTO_CONVERT_PROGRAM_H_
#define SHARDPLANE_PROTO_CONVERT_PROGRAM_H_

#include "absl/status/statusor.h"
#include "common/compile.h"
#include "common/sharded_program.h"
#include "common/tensor_spec.h"
#include "common/tensor_type.h"
#include "proto/convert/field_path.h"
#include "shardplane/v1/coordinator.pb.h"
#include "shardplane/v1/worker.pb.h"

namespace shardplane {

// requires_grad on a dtype that carries no gradient is refused.
absl::StatusOr<InputSpec> FromProto(const v1::InputSpec& message,
                                    const FieldPath& field);
v1::InputSpec ToProto(const InputSpec& spec);

// Everything but `module`, which is the caller's to convert (convert/module.h)
// where it is there. Targets without a loss are refused.
absl::StatusOr<Signature> FromProto(const v1::ProgramSignature& message,
                                    const FieldPath& field);
v1::ProgramSignature ToProto(const Signature& signature);

v1::OutputSpec ToProto(const TensorType& type, const DTensorSpec& spec);

absl::StatusOr<RedistributeKind> FromProto(
    v1::ShardedProgram::Redistribute::Kind kind, const FieldPath& field);
v1::ShardedProgram::Redistribute::Kind ToProto(RedistributeKind kind);

// Each field by itself, ids and indices in range; common's Validate, which the
// receiver calls next, says whether it makes sense as a program.
absl::StatusOr<ShardedProgram> FromProto(const v1::ShardedProgram& message,
                                         const FieldPath& field);
v1::ShardedProgram ToProto(const ShardedProgram& program);

}  // namespace shardplane

#endif  // SHARDPLANE_PROTO_CONVERT_PROGRAM_H_
