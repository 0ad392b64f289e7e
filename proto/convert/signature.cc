// Signatures: the half of convert/program.h that clients see.
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "proto/convert/module.h"
#include "proto/convert/program.h"
#include "proto/convert/types.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

using InputSpecs = google::protobuf::RepeatedPtrField<pb::InputSpec>;
using LossKind = std::variant<LossReduction, Graph>;

constexpr std::pair<pb::Loss::Reduction, LossReduction> kReductions[] = {
    {pb::Loss::REDUCTION_SUM, LossReduction::kSum},
    {pb::Loss::REDUCTION_MEAN, LossReduction::kMean},
};

absl::StatusOr<LossKind> ReductionFromProto(pb::Loss::Reduction reduction,
                                            const FieldPath& field) {
  for (const auto& [wire, value] : kReductions) {
    if (wire == reduction) {
      return LossKind(value);
    }
  }
  return InvalidEnum(field, "a Loss.Reduction", reduction);
}

absl::StatusOr<LossKind> LossFromProto(const pb::Loss& message,
                                       const FieldPath& field) {
  switch (message.kind_case()) {
    case pb::Loss::kReduction:
      return ReductionFromProto(message.reduction(), field.Member("reduction"));
    case pb::Loss::kGraph: {
      SP_ASSIGN_OR_RETURN(Graph graph,
                          FromProto(message.graph(), field.Member("graph")));
      return LossKind(std::move(graph));
    }
    case pb::Loss::KIND_NOT_SET:
      break;
  }
  return MissingOneof(field, "reduction, graph");
}

void LossToProto(const LossKind& loss, pb::Loss* message) {
  if (const Graph* graph = std::get_if<Graph>(&loss)) {
    *message->mutable_graph() = ToProto(*graph);
    return;
  }
  for (const auto& [wire, value] : kReductions) {
    if (value == std::get<LossReduction>(loss)) {
      message->set_reduction(wire);
    }
  }
}

absl::StatusOr<std::vector<InputSpec>> InputsFromProto(
    const InputSpecs& messages, const FieldPath& field,
    absl::string_view name) {
  std::vector<InputSpec> specs;
  for (int i = 0; i < messages.size(); ++i) {
    SP_ASSIGN_OR_RETURN(InputSpec spec,
                        FromProto(messages[i], field.Element(name, i)));
    specs.push_back(std::move(spec));
  }
  return specs;
}

}  // namespace

absl::StatusOr<InputSpec> FromProto(const v1::InputSpec& message,
                                    const FieldPath& field) {
  InputSpec spec;
  SP_ASSIGN_OR_RETURN(spec.type,
                      FromProto(message.type(), field.Member("type")));
  if (message.requires_grad() && !CarriesGradient(spec.type.dtype)) {
    return InvalidField(
        field.Member("requires_grad"),
        absl::StrCat("an input can carry a gradient only with a floating "
                     "or complex dtype, got: ",
                     ToString(spec.type.dtype)));
  }
  spec.requires_grad = message.requires_grad();
  spec.name = message.name();
  return spec;
}

v1::InputSpec ToProto(const InputSpec& spec) {
  pb::InputSpec message;
  *message.mutable_type() = ToProto(spec.type);
  message.set_requires_grad(spec.requires_grad);
  message.set_name(spec.name);
  return message;
}

absl::StatusOr<Signature> FromProto(const v1::ProgramSignature& message,
                                    const FieldPath& field) {
  Signature signature;
  SP_ASSIGN_OR_RETURN(signature.inputs,
                      InputsFromProto(message.inputs(), field, "inputs"));
  if (message.has_loss()) {
    SP_ASSIGN_OR_RETURN(signature.loss,
                        LossFromProto(message.loss(), field.Member("loss")));
  } else if (!message.targets().empty()) {
    return InvalidField(field.Member("targets"),
                        absl::StrCat("expected none without a loss, got: ",
                                     message.targets_size()));
  }
  SP_ASSIGN_OR_RETURN(signature.targets,
                      InputsFromProto(message.targets(), field, "targets"));
  return signature;
}

v1::ProgramSignature ToProto(const Signature& signature) {
  pb::ProgramSignature message;
  for (const InputSpec& spec : signature.inputs) {
    *message.add_inputs() = ToProto(spec);
  }
  if (signature.loss.has_value()) {
    LossToProto(*signature.loss, message.mutable_loss());
  }
  for (const InputSpec& spec : signature.targets) {
    *message.add_targets() = ToProto(spec);
  }
  return message;
}

v1::OutputSpec ToProto(const TensorType& type, const DTensorSpec& spec) {
  pb::OutputSpec message;
  *message.mutable_type() = ToProto(type);
  *message.mutable_spec() = ToProto(spec);
  return message;
}

}  // namespace shardplane
