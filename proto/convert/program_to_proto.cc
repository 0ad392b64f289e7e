// ShardedProgram to the wire.
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "proto/convert/program.h"
#include "proto/convert/types.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

using Ids = google::protobuf::RepeatedField<int32_t>;

constexpr std::pair<pb::ShardedProgram::Redistribute::Kind, RedistributeKind>
    kKinds[] = {
        {pb::ShardedProgram::Redistribute::KIND_ALL_REDUCE,
         RedistributeKind::kAllReduce},
        {pb::ShardedProgram::Redistribute::KIND_ALL_GATHER,
         RedistributeKind::kAllGather},
        {pb::ShardedProgram::Redistribute::KIND_REDUCE_SCATTER,
         RedistributeKind::kReduceScatter},
        {pb::ShardedProgram::Redistribute::KIND_ALL_TO_ALL,
         RedistributeKind::kAllToAll},
        {pb::ShardedProgram::Redistribute::KIND_SLICE,
         RedistributeKind::kSlice},
        {pb::ShardedProgram::Redistribute::KIND_MASK, RedistributeKind::kMask},
        {pb::ShardedProgram::Redistribute::KIND_ALIAS,
         RedistributeKind::kAlias},
        {pb::ShardedProgram::Redistribute::KIND_SPREAD,
         RedistributeKind::kSpread},
};

void CopyIds(const std::vector<int>& ids, Ids* out) {
  out->Add(ids.begin(), ids.end());
}

template <typename Message>
void FillCuts(const DimCuts& cuts, Message* message) {
  message->set_extent(cuts.extent);
  CopyIds(cuts.cuts, message->mutable_cuts());
  FillBlocks(cuts.blocks, message->mutable_blocks());
}

pb::ProgramArgument ArgumentToProto(const ProgramArgument& argument);

// Writes one alternative of a ProgramArgument.
struct ArgumentWriter {
  pb::ProgramArgument& out;

  void operator()(std::monostate) { out.mutable_none(); }
  void operator()(const ValueRef& ref) { out.set_value(ref.id); }
  void operator()(int64_t value) { out.set_int_value(value); }
  void operator()(double value) { out.set_float_value(value); }
  void operator()(bool value) { out.set_bool_value(value); }
  void operator()(const std::string& value) { out.set_string_value(value); }
  void operator()(DType value) { out.set_dtype(ToProto(value)); }
  void operator()(const LocalSize& size) {
    pb::LocalSize* message = out.mutable_local_size();
    for (const DimCuts& factor : size.factors) {
      FillCuts(factor, message->add_factors());
    }
  }
  void operator()(const LocalOffset& offset) {
    FillCuts(offset.dim, out.mutable_local_offset());
  }
  void operator()(const ProgramArgumentList& items) {
    pb::ProgramArgument::List* list = out.mutable_list();
    for (const ProgramArgument& item : items) {
      *list->add_items() = ArgumentToProto(item);
    }
  }
};

pb::ProgramArgument ArgumentToProto(const ProgramArgument& argument) {
  pb::ProgramArgument message;
  std::visit(ArgumentWriter{message}, argument.value);
  return message;
}

void OpToProto(const Op& op, pb::ShardedProgram::Op* message) {
  message->set_target(op.target);
  for (const ProgramArgument& argument : op.args) {
    *message->add_args() = ArgumentToProto(argument);
  }
  for (const auto& [name, argument] : op.kwargs) {
    pb::ShardedProgram::KeywordArgument* kwarg = message->add_kwargs();
    kwarg->set_name(name);
    *kwarg->mutable_value() = ArgumentToProto(argument);
  }
  CopyIds(op.results, message->mutable_results());
  message->set_fqn(op.fqn);
}

void SegmentToProto(const Segment& segment,
                    pb::ShardedProgram::Segment* message) {
  CopyIds(segment.inputs, message->mutable_inputs());
  CopyIds(segment.outputs, message->mutable_outputs());
  for (const Op& op : segment.ops) {
    OpToProto(op, message->add_ops());
  }
  CopyIds(segment.differentiable_inputs,
          message->mutable_differentiable_inputs());
  CopyIds(segment.differentiable_outputs,
          message->mutable_differentiable_outputs());
}

// Writes one alternative of an Instruction.
struct InstructionWriter {
  pb::ShardedProgram::Instruction& out;

  void operator()(const RunSegment& run) {
    out.mutable_run_segment()->set_segment(run.segment);
  }
  void operator()(const RunSegmentBackward& run) {
    auto* message = out.mutable_run_segment_backward();
    message->set_segment(run.segment);
    CopyIds(run.output_gradients, message->mutable_output_gradients());
    CopyIds(run.input_gradients, message->mutable_input_gradients());
  }
  void operator()(const RunWeightGradients& run) {
    auto* message = out.mutable_run_weight_gradients();
    message->set_segment(run.segment);
    CopyIds(run.weights, message->mutable_weights());
    CopyIds(run.gradients, message->mutable_gradients());
  }
  void operator()(const Redistribute& step) {
    pb::ShardedProgram::Redistribute* message = out.mutable_redistribute();
    message->set_kind(ToProto(step.kind));
    message->set_mesh_dim(step.mesh_dim);
    message->set_from_dim(step.from_dim);
    message->set_to_dim(step.to_dim);
    message->set_op(ToProto(step.op));
    message->set_input(step.input);
    message->set_output(step.output);
  }
  void operator()(const Bucket& bucket) {
    pb::ShardedProgram::Bucket* message = out.mutable_bucket();
    message->set_kind(ToProto(bucket.kind));
    message->set_mesh_dim(bucket.mesh_dim);
    message->set_op(ToProto(bucket.op));
    CopyIds(bucket.inputs, message->mutable_inputs());
    CopyIds(bucket.outputs, message->mutable_outputs());
    CopyIds(bucket.dims, message->mutable_dims());
    message->set_async(bucket.async);
    message->set_again(bucket.again);
  }
  void operator()(const Wait& wait) {
    CopyIds(wait.values, out.mutable_wait()->mutable_values());
  }
  void operator()(const Reshard& reshard) {
    pb::ShardedProgram::Reshard* message = out.mutable_reshard();
    CopyIds(reshard.values, message->mutable_values());
    CopyIds(reshard.outputs, message->mutable_outputs());
    message->set_mesh_dim(reshard.mesh_dim);
    message->set_to_dim(reshard.to_dim);
  }
  void operator()(const Accumulate& accumulate) {
    CopyIds(accumulate.inputs, out.mutable_accumulate()->mutable_inputs());
    out.mutable_accumulate()->set_output(accumulate.output);
  }
  void operator()(const Ones& ones) {
    out.mutable_ones()->set_output(ones.output);
  }
  void operator()(const Free& free) {
    CopyIds(free.values, out.mutable_free()->mutable_values());
  }
};

void BindingsToProto(const ShardedProgram& program,
                     pb::ShardedProgram* message) {
  for (const ParameterBinding& binding : program.parameters) {
    auto* out = message->add_parameters();
    out->set_fqn(binding.fqn);
    out->set_value(binding.value);
    out->set_gradient(binding.gradient);
    if (binding.update >= 0) out->set_update(binding.update);
  }
  for (const InputBinding& binding : program.inputs) {
    auto* out = message->add_inputs();
    out->set_value(binding.value);
    out->set_gradient(binding.gradient);
  }
  CopyIds(program.outputs, message->mutable_outputs());
  message->set_loss(program.loss);
}

}  // namespace

absl::StatusOr<RedistributeKind> FromProto(
    v1::ShardedProgram::Redistribute::Kind kind, const FieldPath& field) {
  for (const auto& [wire, value] : kKinds) {
    if (wire == kind) {
      return value;
    }
  }
  return InvalidEnum(field, "a Redistribute.Kind", kind);
}

v1::ShardedProgram::Redistribute::Kind ToProto(RedistributeKind kind) {
  for (const auto& [wire, value] : kKinds) {
    if (value == kind) {
      return wire;
    }
  }
  return pb::ShardedProgram::Redistribute::KIND_UNSPECIFIED;
}

v1::ShardedProgram ToProto(const ShardedProgram& program) {
  pb::ShardedProgram message;
  *message.mutable_mesh() = ToProto(program.mesh);
  for (const Value& value : program.values) {
    pb::ShardedProgram::Value* out = message.add_values();
    out->set_name(value.name);
    *out->mutable_type() = ToProto(value.type);
    *out->mutable_spec() = ToProto(value.spec);
  }
  for (const Segment& segment : program.segments) {
    SegmentToProto(segment, message.add_segments());
  }
  BindingsToProto(program, &message);
  for (const Instruction& instruction : program.instructions) {
    std::visit(InstructionWriter{*message.add_instructions()}, instruction);
  }
  message.set_backward_begin(program.backward_begin);
  if (program.random >= 0) message.set_random(program.random);
  return message;
}

}  // namespace shardplane
