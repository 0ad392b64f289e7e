#include "proto/convert/plan.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "proto/convert/types.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

using Layouts = google::protobuf::RepeatedPtrField<pb::OptionalPlacement>;
using NamedLayouts = google::protobuf::Map<std::string, pb::OptionalPlacement>;
using OptionalLayout = std::optional<Placement>;

absl::StatusOr<OptionalLayout> OptionalFromProto(
    const pb::OptionalPlacement& message, const FieldPath& field) {
  if (!message.has_placement()) {
    return OptionalLayout();
  }
  SP_ASSIGN_OR_RETURN(
      Placement placement,
      FromProto(message.placement(), field.Member("placement")));
  return OptionalLayout(placement);
}

void OptionalToProto(const OptionalLayout& layout,
                     pb::OptionalPlacement* message) {
  if (layout.has_value()) {
    *message->mutable_placement() = ToProto(*layout);
  }
}

// "desired_input_layouts has not the length of input_layouts", as PyTorch's
// constructors assert it.
absl::Status LengthsDiffer(const FieldPath& field, absl::string_view claimed,
                           absl::string_view desired, int num_claimed,
                           int num_desired) {
  return InvalidField(
      field.Member(desired),
      absl::StrCat("expected as many as in ", claimed, ", which has ",
                   num_claimed, ", got: ", num_desired));
}

// The names of the two fields that make up layout changes.
struct LayoutFields {
  absl::string_view claimed;
  absl::string_view desired;
};

absl::StatusOr<std::vector<LayoutChange>> ChangesFromProto(
    const Layouts& claimed, const Layouts& desired, const FieldPath& field,
    const LayoutFields& names) {
  if (claimed.size() != desired.size()) {
    return LengthsDiffer(field, names.claimed, names.desired, claimed.size(),
                         desired.size());
  }
  std::vector<LayoutChange> changes(claimed.size());
  for (int i = 0; i < claimed.size(); ++i) {
    SP_ASSIGN_OR_RETURN(
        changes[i].claimed,
        OptionalFromProto(claimed[i], field.Element(names.claimed, i)));
    SP_ASSIGN_OR_RETURN(
        changes[i].desired,
        OptionalFromProto(desired[i], field.Element(names.desired, i)));
  }
  return changes;
}

void ChangesToProto(const std::vector<LayoutChange>& changes, Layouts* claimed,
                    Layouts* desired) {
  for (const LayoutChange& change : changes) {
    OptionalToProto(change.claimed, claimed->Add());
    OptionalToProto(change.desired, desired->Add());
  }
}

using NamedChanges = absl::btree_map<std::string, LayoutChange>;

// PyTorch compares the numbers of keys only; a key of one side alone is a
// claim without a wish, or a wish without a claim.
absl::StatusOr<NamedChanges> KwargsFromProto(
    const pb::PrepareModuleInput& message, const FieldPath& field) {
  const NamedLayouts& claimed = message.input_kwarg_layouts();
  const NamedLayouts& desired = message.desired_input_kwarg_layouts();
  NamedChanges changes;
  if (claimed.empty()) {
    return changes;
  }
  if (claimed.size() != desired.size()) {
    return LengthsDiffer(
        field, "input_kwarg_layouts", "desired_input_kwarg_layouts",
        static_cast<int>(claimed.size()), static_cast<int>(desired.size()));
  }
  for (const auto& [name, layout] : claimed) {
    SP_ASSIGN_OR_RETURN(
        changes[name].claimed,
        OptionalFromProto(layout, field.Entry("input_kwarg_layouts", name)));
  }
  for (const auto& [name, layout] : desired) {
    SP_ASSIGN_OR_RETURN(
        changes[name].desired,
        OptionalFromProto(layout,
                          field.Entry("desired_input_kwarg_layouts", name)));
  }
  return changes;
}

absl::StatusOr<PrepareModuleInput> InputFromProto(
    const pb::PrepareModuleInput& message, const FieldPath& field) {
  PrepareModuleInput style;
  // Without a claim PyTorch hands inputs through, whatever is desired.
  if (!message.input_layouts().empty()) {
    SP_ASSIGN_OR_RETURN(
        style.inputs,
        ChangesFromProto(message.input_layouts(),
                         message.desired_input_layouts(), field,
                         {"input_layouts", "desired_input_layouts"}));
  }
  SP_ASSIGN_OR_RETURN(style.kwargs, KwargsFromProto(message, field));
  return style;
}

void InputToProto(const PrepareModuleInput& style,
                  pb::PrepareModuleInput* message) {
  ChangesToProto(style.inputs, message->mutable_input_layouts(),
                 message->mutable_desired_input_layouts());
  for (const auto& [name, change] : style.kwargs) {
    OptionalToProto(change.claimed,
                    &(*message->mutable_input_kwarg_layouts())[name]);
    OptionalToProto(change.desired,
                    &(*message->mutable_desired_input_kwarg_layouts())[name]);
  }
}

absl::StatusOr<PrepareModuleOutput> OutputFromProto(
    const pb::PrepareModuleOutput& message, const FieldPath& field) {
  if (message.output_layouts().empty()) {
    return MissingField(field.Member("output_layouts"));
  }
  PrepareModuleOutput style;
  SP_ASSIGN_OR_RETURN(
      style.outputs,
      ChangesFromProto(message.output_layouts(),
                       message.desired_output_layouts(), field,
                       {"output_layouts", "desired_output_layouts"}));
  return style;
}

void OutputToProto(const PrepareModuleOutput& style,
                   pb::PrepareModuleOutput* message) {
  ChangesToProto(style.outputs, message->mutable_output_layouts(),
                 message->mutable_desired_output_layouts());
}

absl::StatusOr<PrepareModuleInputOutput> InputOutputFromProto(
    const pb::PrepareModuleInputOutput& message, const FieldPath& field) {
  PrepareModuleInputOutput style;
  SP_ASSIGN_OR_RETURN(style.input,
                      InputFromProto(message.input(), field.Member("input")));
  SP_ASSIGN_OR_RETURN(
      style.output, OutputFromProto(message.output(), field.Member("output")));
  return style;
}

// Colwise and Rowwise: the same fields, other defaults (those of Style{}).
template <typename Style, typename Message>
absl::StatusOr<Style> LinearFromProto(const Message& message,
                                      const FieldPath& field) {
  Style style;
  if (message.has_input_layouts()) {
    SP_ASSIGN_OR_RETURN(
        style.input_layouts,
        FromProto(message.input_layouts(), field.Member("input_layouts")));
  }
  if (message.has_output_layouts()) {
    SP_ASSIGN_OR_RETURN(
        style.output_layouts,
        FromProto(message.output_layouts(), field.Member("output_layouts")));
  }
  return style;
}

// Of what is cut: several tensors, one after the other.
template <typename Style, typename Message>
absl::StatusOr<Style> PackedFromProto(const Message& message,
                                      const FieldPath& field) {
  SP_ASSIGN_OR_RETURN(Style style, LinearFromProto<Style>(message, field));
  for (int i = 0; i < message.block_sizes_size(); ++i) {
    if (message.block_sizes(i) < 1) {
      return InvalidField(
          field.Element("block_sizes", i),
          absl::StrCat("expected a size > 0, got: ", message.block_sizes(i)));
    }
    style.block_sizes.push_back(message.block_sizes(i));
  }
  return style;
}

template <typename Style, typename Message>
void LinearToProto(const Style& style, Message* message) {
  *message->mutable_input_layouts() = ToProto(style.input_layouts);
  *message->mutable_output_layouts() = ToProto(style.output_layouts);
}

template <typename Style, typename Message>
void PackedToProto(const Style& style, Message* message) {
  LinearToProto(style, message);
  message->mutable_block_sizes()->Add(style.block_sizes.begin(),
                                      style.block_sizes.end());
}

using StyleKind = decltype(ParallelStyle::kind);

template <typename Style>
absl::StatusOr<StyleKind> AsKind(absl::StatusOr<Style> style) {
  if (!style.ok()) {
    return std::move(style).status();
  }
  return StyleKind(*std::move(style));
}

StyleKind SequenceFromProto(const pb::SequenceParallel& message) {
  SequenceParallel style;
  if (message.has_sequence_dim()) style.sequence_dim = message.sequence_dim();
  return style;
}

StyleKind ReshardFromProto(const pb::InputReshard& message) {
  InputReshard style{std::nullopt};
  if (message.has_input_reshard_dim()) {
    style.input_reshard_dim = message.input_reshard_dim();
  }
  return style;
}

absl::StatusOr<PairwiseParallel> PairwiseFromProto(
    const pb::PairwiseParallel& message, const FieldPath& field) {
  PairwiseParallel style;
  if (message.has_input_layouts()) {
    SP_ASSIGN_OR_RETURN(
        style.input_layouts,
        FromProto(message.input_layouts(), field.Member("input_layouts")));
  }
  if (message.has_output_layouts()) {
    SP_ASSIGN_OR_RETURN(
        style.output_layouts,
        FromProto(message.output_layouts(), field.Member("output_layouts")));
  }
  return style;
}

StyleKind PairwiseSequenceFromProto(
    const pb::PairwiseSequenceParallel& message) {
  PairwiseSequenceParallel style;
  if (message.has_sequence_dim()) style.sequence_dim = message.sequence_dim();
  return style;
}

StyleKind LossFromProto(const pb::LossParallel& message) {
  LossParallel style;
  if (message.has_class_dim()) style.class_dim = message.class_dim();
  return style;
}

absl::StatusOr<StyleKind> UnknownFromProto(const std::string& name,
                                           const FieldPath& field) {
  if (name.empty()) {
    return MissingField(field);
  }
  return StyleKind(UnknownStyle{name});
}

absl::StatusOr<StyleKind> KindFromProto(const pb::ParallelStyle& message,
                                        const FieldPath& field) {
  switch (message.kind_case()) {
    case pb::ParallelStyle::kColwise:
      return AsKind(PackedFromProto<ColwiseParallel>(message.colwise(),
                                                     field.Member("colwise")));
    case pb::ParallelStyle::kRowwise:
      return AsKind(PackedFromProto<RowwiseParallel>(message.rowwise(),
                                                     field.Member("rowwise")));
    case pb::ParallelStyle::kSequence:
      return SequenceFromProto(message.sequence());
    case pb::ParallelStyle::kPrepareModuleInput:
      return AsKind(InputFromProto(message.prepare_module_input(),
                                   field.Member("prepare_module_input")));
    case pb::ParallelStyle::kPrepareModuleOutput:
      return AsKind(OutputFromProto(message.prepare_module_output(),
                                    field.Member("prepare_module_output")));
    case pb::ParallelStyle::kPrepareModuleInputOutput:
      return AsKind(
          InputOutputFromProto(message.prepare_module_input_output(),
                               field.Member("prepare_module_input_output")));
    case pb::ParallelStyle::kInputReshard:
      return ReshardFromProto(message.input_reshard());
    case pb::ParallelStyle::kPairwise:
      return AsKind(
          PairwiseFromProto(message.pairwise(), field.Member("pairwise")));
    case pb::ParallelStyle::kPairwiseSequence:
      return PairwiseSequenceFromProto(message.pairwise_sequence());
    case pb::ParallelStyle::kLoss:
      return LossFromProto(message.loss());
    case pb::ParallelStyle::kUnknown:
      return UnknownFromProto(message.unknown(), field.Member("unknown"));
    case pb::ParallelStyle::KIND_NOT_SET:
      break;
  }
  return MissingOneof(field,
                      "colwise, rowwise, sequence, prepare_module_input, "
                      "prepare_module_output, prepare_module_input_output, "
                      "input_reshard, pairwise, pairwise_sequence, loss");
}

// Writes one alternative of a ParallelStyle.
struct StyleWriter {
  pb::ParallelStyle& out;

  void operator()(const ColwiseParallel& style) {
    PackedToProto(style, out.mutable_colwise());
  }
  void operator()(const RowwiseParallel& style) {
    PackedToProto(style, out.mutable_rowwise());
  }
  void operator()(const SequenceParallel& style) {
    out.mutable_sequence()->set_sequence_dim(style.sequence_dim);
  }
  void operator()(const PrepareModuleInput& style) {
    InputToProto(style, out.mutable_prepare_module_input());
  }
  void operator()(const PrepareModuleOutput& style) {
    OutputToProto(style, out.mutable_prepare_module_output());
  }
  void operator()(const PrepareModuleInputOutput& style) {
    pb::PrepareModuleInputOutput* both =
        out.mutable_prepare_module_input_output();
    InputToProto(style.input, both->mutable_input());
    OutputToProto(style.output, both->mutable_output());
  }
  void operator()(const InputReshard& style) {
    pb::InputReshard* message = out.mutable_input_reshard();
    if (style.input_reshard_dim) {
      message->set_input_reshard_dim(*style.input_reshard_dim);
    }
  }
  void operator()(const PairwiseParallel& style) {
    pb::PairwiseParallel* message = out.mutable_pairwise();
    *message->mutable_input_layouts() = ToProto(style.input_layouts);
    *message->mutable_output_layouts() = ToProto(style.output_layouts);
  }
  void operator()(const PairwiseSequenceParallel& style) {
    out.mutable_pairwise_sequence()->set_sequence_dim(style.sequence_dim);
  }
  void operator()(const LossParallel& style) {
    out.mutable_loss()->set_class_dim(style.class_dim);
  }
  void operator()(const UnknownStyle& style) { out.set_unknown(style.name); }
};

}  // namespace

absl::StatusOr<ParallelStyle> FromProto(const v1::ParallelStyle& message,
                                        const FieldPath& field) {
  SP_ASSIGN_OR_RETURN(StyleKind kind, KindFromProto(message, field));
  return ParallelStyle{std::move(kind), message.mesh_dim()};
}

v1::ParallelStyle ToProto(const ParallelStyle& style) {
  pb::ParallelStyle message;
  std::visit(StyleWriter{message}, style.kind);
  message.set_mesh_dim(style.mesh_dim);
  return message;
}

}  // namespace shardplane
