// ShardedProgram from the wire. Ids come from our own coordinator, but a worker
// trusts none of them: each is checked against the list that it points into.
#include "proto/convert/program.h"

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "proto/convert/module.h"
#include "proto/convert/types.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

using Ids = google::protobuf::RepeatedField<int32_t>;

// Reads one program; knows how many values, segments and mesh dims it has.
class Reader {
 public:
  explicit Reader(const pb::ShardedProgram& message)
      : message_(message),
        num_values_(message.values_size()),
        num_segments_(message.segments_size()),
        num_mesh_dims_(message.mesh().dims_size()) {}

  absl::StatusOr<ShardedProgram> Read(const FieldPath& field) const;

 private:
  // `low` is -1 where an id may be absent, else 0.
  static absl::StatusOr<int> Index(int value, int low, int end,
                                   const FieldPath& field);
  absl::StatusOr<ValueId> Id(int value, const FieldPath& field) const {
    return Index(value, 0, num_values_, field);
  }
  absl::StatusOr<int> MeshDim(int value, const FieldPath& field) const {
    return Index(value, 0, num_mesh_dims_, field.Member("mesh_dim"));
  }
  absl::StatusOr<ValueId> OptionalId(int value, const FieldPath& field) const {
    return Index(value, -1, num_values_, field);
  }
  absl::StatusOr<std::vector<int>> Indices(const Ids& ids, int low, int end,
                                           const FieldPath& field,
                                           absl::string_view name) const;
  absl::StatusOr<std::vector<ValueId>> ValueIds(const Ids& ids,
                                                const FieldPath& field,
                                                absl::string_view name) const {
    return Indices(ids, 0, num_values_, field, name);
  }

  absl::StatusOr<LocalSize> Size(const pb::LocalSize& message,
                                 const FieldPath& field) const;
  absl::StatusOr<LocalOffset> Offset(const pb::LocalOffset& message,
                                     const FieldPath& field) const;
  absl::StatusOr<ProgramArgument> List(const pb::ProgramArgument::List& message,
                                       const FieldPath& field, int depth) const;
  absl::StatusOr<ProgramArgument> Argument(const pb::ProgramArgument& message,
                                           const FieldPath& field,
                                           int depth) const;
  absl::StatusOr<Value> ReadValue(const pb::ShardedProgram::Value& message,
                                  const FieldPath& field) const;
  absl::StatusOr<Op> ReadOp(const pb::ShardedProgram::Op& message,
                            const FieldPath& field) const;
  absl::StatusOr<Segment> ReadSegment(
      const pb::ShardedProgram::Segment& message, const FieldPath& field) const;
  absl::StatusOr<RunSegmentBackward> ReadBackward(
      const pb::ShardedProgram::RunSegmentBackward& message,
      const FieldPath& field) const;
  absl::StatusOr<RunWeightGradients> ReadWeightGradients(
      const pb::ShardedProgram::RunWeightGradients& message,
      const FieldPath& field) const;
  absl::StatusOr<Redistribute> ReadRedistribute(
      const pb::ShardedProgram::Redistribute& message,
      const FieldPath& field) const;
  absl::StatusOr<Accumulate> ReadAccumulate(
      const pb::ShardedProgram::Accumulate& message,
      const FieldPath& field) const;
  absl::StatusOr<Reshard> ReadReshard(
      const pb::ShardedProgram::Reshard& message, const FieldPath& field) const;
  absl::StatusOr<Bucket> ReadBucket(const pb::ShardedProgram::Bucket& message,
                                    const FieldPath& field) const;
  absl::StatusOr<Instruction> ReadInstruction(
      const pb::ShardedProgram::Instruction& message,
      const FieldPath& field) const;
  template <typename Message, typename Binding>
  absl::Status ReadBinding(const Message& message, const FieldPath& field,
                           Binding* binding) const;
  absl::Status ReadBindings(const FieldPath& field,
                            ShardedProgram* program) const;
  absl::Status ReadBody(const FieldPath& field, ShardedProgram* program) const;

  const pb::ShardedProgram& message_;
  const int num_values_;
  const int num_segments_;
  const int num_mesh_dims_;
};

absl::StatusOr<int> Reader::Index(int value, int low, int end,
                                  const FieldPath& field) {
  if (value >= low && value < end) {
    return value;
  }
  return InvalidField(field, absl::StrCat("expected an index from ", low,
                                          " to ", end - 1, ", got: ", value));
}

absl::StatusOr<std::vector<int>> Reader::Indices(const Ids& ids, int low,
                                                 int end,
                                                 const FieldPath& field,
                                                 absl::string_view name) const {
  for (int i = 0; i < ids.size(); ++i) {
    SP_RETURN_IF_ERROR(
        Index(ids[i], low, end, field.Element(name, i)).status());
  }
  return std::vector<int>(ids.begin(), ids.end());
}

absl::StatusOr<LocalSize> Reader::Size(const pb::LocalSize& message,
                                       const FieldPath& field) const {
  LocalSize size;
  for (int i = 0; i < message.factors_size(); ++i) {
    const pb::LocalSize::Factor& factor = message.factors(i);
    const FieldPath element = field.Element("factors", i);
    if (factor.extent() < 0) {
      return InvalidField(
          element.Member("extent"),
          absl::StrCat("expected an extent >= 0, got: ", factor.extent()));
    }
    SP_ASSIGN_OR_RETURN(
        std::vector<int> cuts,
        Indices(factor.cuts(), 0, num_mesh_dims_, element, "cuts"));
    SP_ASSIGN_OR_RETURN(const Blocks blocks,
                        BlocksFromProto(factor.blocks(), element));
    size.factors.push_back({factor.extent(), std::move(cuts), blocks});
  }
  return size;
}

absl::StatusOr<LocalOffset> Reader::Offset(const pb::LocalOffset& message,
                                           const FieldPath& field) const {
  LocalOffset offset{message.extent()};
  if (offset.dim.extent < 0) {
    return InvalidField(
        field.Member("extent"),
        absl::StrCat("expected an extent >= 0, got: ", offset.dim.extent));
  }
  SP_ASSIGN_OR_RETURN(offset.dim.cuts, Indices(message.cuts(), 0,
                                               num_mesh_dims_, field, "cuts"));
  SP_ASSIGN_OR_RETURN(offset.dim.blocks,
                      BlocksFromProto(message.blocks(), field));
  return offset;
}

absl::StatusOr<ProgramArgument> Reader::List(
    const pb::ProgramArgument::List& message, const FieldPath& field,
    int depth) const {
  if (depth >= kMaxArgumentDepth) {
    return InvalidField(
        field, absl::StrCat("expected lists at most ", kMaxArgumentDepth,
                            " deep, got: deeper ones"));
  }
  ProgramArgumentList items;
  items.reserve(message.items_size());
  for (int i = 0; i < message.items_size(); ++i) {
    SP_ASSIGN_OR_RETURN(
        ProgramArgument item,
        Argument(message.items(i), field.Element("items", i), depth + 1));
    items.push_back(std::move(item));
  }
  return ProgramArgument{std::move(items)};
}

absl::StatusOr<ProgramArgument> Reader::Argument(
    const pb::ProgramArgument& message, const FieldPath& field,
    int depth) const {
  switch (message.kind_case()) {
    case pb::ProgramArgument::kNone:
      return ProgramArgument{};
    case pb::ProgramArgument::kValue: {
      SP_ASSIGN_OR_RETURN(const ValueId id,
                          Id(message.value(), field.Member("value")));
      return ProgramArgument{ValueRef{id}};
    }
    case pb::ProgramArgument::kIntValue:
      return ProgramArgument{message.int_value()};
    case pb::ProgramArgument::kFloatValue:
      return ProgramArgument{message.float_value()};
    case pb::ProgramArgument::kBoolValue:
      return ProgramArgument{message.bool_value()};
    case pb::ProgramArgument::kStringValue:
      return ProgramArgument{message.string_value()};
    case pb::ProgramArgument::kDtype: {
      SP_ASSIGN_OR_RETURN(const DType dtype,
                          FromProto(message.dtype(), field.Member("dtype")));
      return ProgramArgument{dtype};
    }
    case pb::ProgramArgument::kLocalSize: {
      SP_ASSIGN_OR_RETURN(LocalSize size, Size(message.local_size(),
                                               field.Member("local_size")));
      return ProgramArgument{std::move(size)};
    }
    case pb::ProgramArgument::kLocalOffset: {
      SP_ASSIGN_OR_RETURN(
          LocalOffset offset,
          Offset(message.local_offset(), field.Member("local_offset")));
      return ProgramArgument{std::move(offset)};
    }
    case pb::ProgramArgument::kList:
      return List(message.list(), field.Member("list"), depth);
    case pb::ProgramArgument::KIND_NOT_SET:
      break;
  }
  return MissingOneof(field,
                      "none, value, int_value, float_value, bool_value, "
                      "string_value, dtype, local_size, local_offset, list");
}

absl::StatusOr<Value> Reader::ReadValue(
    const pb::ShardedProgram::Value& message, const FieldPath& field) const {
  Value value;
  value.name = message.name();
  SP_ASSIGN_OR_RETURN(value.type,
                      FromProto(message.type(), field.Member("type")));
  SP_ASSIGN_OR_RETURN(value.spec,
                      FromProto(message.spec(), field.Member("spec")));
  return value;
}

absl::StatusOr<Op> Reader::ReadOp(const pb::ShardedProgram::Op& message,
                                  const FieldPath& field) const {
  Op op;
  if (message.target().empty()) {
    return MissingField(field.Member("target"));
  }
  op.target = message.target();
  for (int i = 0; i < message.args_size(); ++i) {
    SP_ASSIGN_OR_RETURN(ProgramArgument argument,
                        Argument(message.args(i), field.Element("args", i), 0));
    op.args.push_back(std::move(argument));
  }
  for (int i = 0; i < message.kwargs_size(); ++i) {
    const FieldPath element = field.Element("kwargs", i);
    if (message.kwargs(i).name().empty()) {
      return MissingField(element.Member("name"));
    }
    SP_ASSIGN_OR_RETURN(
        ProgramArgument argument,
        Argument(message.kwargs(i).value(), element.Member("value"), 0));
    op.kwargs.emplace_back(message.kwargs(i).name(), std::move(argument));
  }
  SP_ASSIGN_OR_RETURN(op.results,
                      ValueIds(message.results(), field, "results"));
  op.fqn = message.fqn();
  return op;
}

absl::StatusOr<Segment> Reader::ReadSegment(
    const pb::ShardedProgram::Segment& message, const FieldPath& field) const {
  Segment segment;
  SP_ASSIGN_OR_RETURN(segment.inputs,
                      ValueIds(message.inputs(), field, "inputs"));
  SP_ASSIGN_OR_RETURN(segment.outputs,
                      ValueIds(message.outputs(), field, "outputs"));
  for (int i = 0; i < message.ops_size(); ++i) {
    SP_ASSIGN_OR_RETURN(Op op, ReadOp(message.ops(i), field.Element("ops", i)));
    segment.ops.push_back(std::move(op));
  }
  SP_ASSIGN_OR_RETURN(segment.differentiable_inputs,
                      ValueIds(message.differentiable_inputs(), field,
                               "differentiable_inputs"));
  SP_ASSIGN_OR_RETURN(segment.differentiable_outputs,
                      ValueIds(message.differentiable_outputs(), field,
                               "differentiable_outputs"));
  return segment;
}

absl::StatusOr<RunSegmentBackward> Reader::ReadBackward(
    const pb::ShardedProgram::RunSegmentBackward& message,
    const FieldPath& field) const {
  RunSegmentBackward backward;
  SP_ASSIGN_OR_RETURN(
      backward.segment,
      Index(message.segment(), 0, num_segments_, field.Member("segment")));
  SP_ASSIGN_OR_RETURN(backward.output_gradients,
                      Indices(message.output_gradients(), -1, num_values_,
                              field, "output_gradients"));
  SP_ASSIGN_OR_RETURN(backward.input_gradients,
                      Indices(message.input_gradients(), -1, num_values_, field,
                              "input_gradients"));
  return backward;
}

absl::StatusOr<RunWeightGradients> Reader::ReadWeightGradients(
    const pb::ShardedProgram::RunWeightGradients& message,
    const FieldPath& field) const {
  RunWeightGradients run;
  SP_ASSIGN_OR_RETURN(run.segment, Index(message.segment(), 0, num_segments_,
                                         field.Member("segment")));
  SP_ASSIGN_OR_RETURN(run.weights,
                      ValueIds(message.weights(), field, "weights"));
  SP_ASSIGN_OR_RETURN(run.gradients,
                      ValueIds(message.gradients(), field, "gradients"));
  return run;
}

absl::StatusOr<Redistribute> Reader::ReadRedistribute(
    const pb::ShardedProgram::Redistribute& message,
    const FieldPath& field) const {
  Redistribute step;
  SP_ASSIGN_OR_RETURN(step.kind,
                      FromProto(message.kind(), field.Member("kind")));
  SP_ASSIGN_OR_RETURN(step.mesh_dim, MeshDim(message.mesh_dim(), field));
  SP_ASSIGN_OR_RETURN(
      step.from_dim,
      Index(message.from_dim(), -1, kMaxTensorRank, field.Member("from_dim")));
  SP_ASSIGN_OR_RETURN(step.to_dim, Index(message.to_dim(), -1, kMaxTensorRank,
                                         field.Member("to_dim")));
  SP_ASSIGN_OR_RETURN(step.op, FromProto(message.op(), field.Member("op")));
  SP_ASSIGN_OR_RETURN(step.input, Id(message.input(), field.Member("input")));
  SP_ASSIGN_OR_RETURN(step.output,
                      Id(message.output(), field.Member("output")));
  return step;
}

absl::StatusOr<Accumulate> Reader::ReadAccumulate(
    const pb::ShardedProgram::Accumulate& message,
    const FieldPath& field) const {
  Accumulate accumulate;
  SP_ASSIGN_OR_RETURN(accumulate.inputs,
                      ValueIds(message.inputs(), field, "inputs"));
  SP_ASSIGN_OR_RETURN(accumulate.output,
                      Id(message.output(), field.Member("output")));
  return accumulate;
}

absl::StatusOr<Bucket> Reader::ReadBucket(
    const pb::ShardedProgram::Bucket& message, const FieldPath& field) const {
  Bucket bucket;
  SP_ASSIGN_OR_RETURN(bucket.kind,
                      FromProto(message.kind(), field.Member("kind")));
  SP_ASSIGN_OR_RETURN(bucket.mesh_dim, MeshDim(message.mesh_dim(), field));
  SP_ASSIGN_OR_RETURN(bucket.op, FromProto(message.op(), field.Member("op")));
  SP_ASSIGN_OR_RETURN(bucket.inputs,
                      ValueIds(message.inputs(), field, "inputs"));
  SP_ASSIGN_OR_RETURN(bucket.outputs,
                      ValueIds(message.outputs(), field, "outputs"));
  SP_ASSIGN_OR_RETURN(
      bucket.dims, Indices(message.dims(), 0, kMaxTensorRank, field, "dims"));
  bucket.async = message.async();
  bucket.again = message.again();
  return bucket;
}

absl::StatusOr<Reshard> Reader::ReadReshard(
    const pb::ShardedProgram::Reshard& message, const FieldPath& field) const {
  Reshard reshard;
  SP_ASSIGN_OR_RETURN(reshard.values,
                      ValueIds(message.values(), field, "values"));
  SP_ASSIGN_OR_RETURN(reshard.outputs,
                      ValueIds(message.outputs(), field, "outputs"));
  SP_ASSIGN_OR_RETURN(reshard.mesh_dim, MeshDim(message.mesh_dim(), field));
  SP_ASSIGN_OR_RETURN(
      reshard.to_dim,
      Index(message.to_dim(), -1, kMaxTensorRank, field.Member("to_dim")));
  return reshard;
}

absl::StatusOr<Instruction> Reader::ReadInstruction(
    const pb::ShardedProgram::Instruction& message,
    const FieldPath& field) const {
  using Message = pb::ShardedProgram::Instruction;
  switch (message.kind_case()) {
    case Message::kRunSegment: {
      SP_ASSIGN_OR_RETURN(
          const int segment,
          Index(message.run_segment().segment(), 0, num_segments_,
                field.Member("run_segment").Member("segment")));
      return Instruction(RunSegment{segment});
    }
    case Message::kRunSegmentBackward:
      return ReadBackward(message.run_segment_backward(),
                          field.Member("run_segment_backward"));
    case Message::kRunWeightGradients:
      return ReadWeightGradients(message.run_weight_gradients(),
                                 field.Member("run_weight_gradients"));
    case Message::kRedistribute:
      return ReadRedistribute(message.redistribute(),
                              field.Member("redistribute"));
    case Message::kAccumulate:
      return ReadAccumulate(message.accumulate(), field.Member("accumulate"));
    case Message::kBucket:
      return ReadBucket(message.bucket(), field.Member("bucket"));
    case Message::kWait: {
      SP_ASSIGN_OR_RETURN(
          std::vector<ValueId> values,
          ValueIds(message.wait().values(), field.Member("wait"), "values"));
      return Instruction(Wait{std::move(values)});
    }
    case Message::kReshard:
      return ReadReshard(message.reshard(), field.Member("reshard"));
    case Message::kOnes: {
      SP_ASSIGN_OR_RETURN(
          const ValueId output,
          Id(message.ones().output(), field.Member("ones").Member("output")));
      return Instruction(Ones{output});
    }
    case Message::kFree: {
      SP_ASSIGN_OR_RETURN(
          std::vector<ValueId> values,
          ValueIds(message.free().values(), field.Member("free"), "values"));
      return Instruction(Free{std::move(values)});
    }
    case Message::KIND_NOT_SET:
      break;
  }
  return MissingOneof(field,
                      "run_segment, run_segment_backward, redistribute, "
                      "bucket, wait, reshard, accumulate, ones, free");
}

template <typename Message, typename Binding>
absl::Status Reader::ReadBinding(const Message& message, const FieldPath& field,
                                 Binding* binding) const {
  SP_ASSIGN_OR_RETURN(binding->value,
                      Id(message.value(), field.Member("value")));
  SP_ASSIGN_OR_RETURN(binding->gradient,
                      OptionalId(message.gradient(), field.Member("gradient")));
  return absl::OkStatus();
}

absl::Status Reader::ReadBindings(const FieldPath& field,
                                  ShardedProgram* program) const {
  for (int i = 0; i < message_.parameters_size(); ++i) {
    const FieldPath element = field.Element("parameters", i);
    ParameterBinding& binding = program->parameters.emplace_back();
    binding.fqn = message_.parameters(i).fqn();
    if (binding.fqn.empty()) {
      return MissingField(element.Member("fqn"));
    }
    SP_RETURN_IF_ERROR(ReadBinding(message_.parameters(i), element, &binding));
    if (!message_.parameters(i).has_update()) continue;
    SP_ASSIGN_OR_RETURN(binding.update, Id(message_.parameters(i).update(),
                                           element.Member("update")));
  }
  for (int i = 0; i < message_.inputs_size(); ++i) {
    SP_RETURN_IF_ERROR(ReadBinding(message_.inputs(i),
                                   field.Element("inputs", i),
                                   &program->inputs.emplace_back()));
  }
  SP_ASSIGN_OR_RETURN(program->outputs,
                      ValueIds(message_.outputs(), field, "outputs"));
  SP_ASSIGN_OR_RETURN(program->loss,
                      OptionalId(message_.loss(), field.Member("loss")));
  return absl::OkStatus();
}

absl::Status Reader::ReadBody(const FieldPath& field,
                              ShardedProgram* program) const {
  program->values.reserve(num_values_);
  for (int i = 0; i < num_values_; ++i) {
    SP_ASSIGN_OR_RETURN(
        Value value, ReadValue(message_.values(i), field.Element("values", i)));
    program->values.push_back(std::move(value));
  }
  program->segments.reserve(num_segments_);
  for (int i = 0; i < num_segments_; ++i) {
    SP_ASSIGN_OR_RETURN(
        Segment segment,
        ReadSegment(message_.segments(i), field.Element("segments", i)));
    program->segments.push_back(std::move(segment));
  }
  program->instructions.reserve(message_.instructions_size());
  for (int i = 0; i < message_.instructions_size(); ++i) {
    SP_ASSIGN_OR_RETURN(Instruction instruction,
                        ReadInstruction(message_.instructions(i),
                                        field.Element("instructions", i)));
    program->instructions.push_back(std::move(instruction));
  }
  return absl::OkStatus();
}

absl::StatusOr<ShardedProgram> Reader::Read(const FieldPath& field) const {
  ShardedProgram program;
  SP_ASSIGN_OR_RETURN(program.mesh,
                      FromProto(message_.mesh(), field.Member("mesh")));
  SP_RETURN_IF_ERROR(ReadBody(field, &program));
  SP_RETURN_IF_ERROR(ReadBindings(field, &program));
  // One past the last instruction: there is no backward pass.
  SP_ASSIGN_OR_RETURN(
      program.backward_begin,
      Index(message_.backward_begin(), 0, message_.instructions_size() + 1,
            field.Member("backward_begin")));
  if (message_.has_random()) {
    SP_ASSIGN_OR_RETURN(program.random,
                        Id(message_.random(), field.Member("random")));
  }
  return program;
}

}  // namespace

absl::StatusOr<ShardedProgram> FromProto(const v1::ShardedProgram& message,
                                         const FieldPath& field) {
  return Reader(message).Read(field);
}

}  // namespace shardplane
