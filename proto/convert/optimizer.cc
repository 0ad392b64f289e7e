#include "proto/convert/optimizer.h"

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

SgdOptions SgdFromProto(const pb::SgdOptions& message) {
  return {.lr = message.lr(),
          .momentum = message.momentum(),
          .dampening = message.dampening(),
          .weight_decay = message.weight_decay(),
          .nesterov = message.nesterov(),
          .maximize = message.maximize()};
}

AdamOptions AdamFromProto(AdamKind kind, const pb::AdamOptions& message) {
  AdamOptions adam{.kind = kind,
                   .weight_decay = kind == AdamKind::kAdamW ? 0.01 : 0,
                   .amsgrad = message.amsgrad(),
                   .maximize = message.maximize()};
  if (message.has_lr()) adam.lr = message.lr();
  if (message.has_beta1()) adam.beta1 = message.beta1();
  if (message.has_beta2()) adam.beta2 = message.beta2();
  if (message.has_eps()) adam.eps = message.eps();
  if (message.has_weight_decay()) adam.weight_decay = message.weight_decay();
  return adam;
}

// Of an Optimizer or a ParameterGroup; nullopt if none is given that both
// have.
template <typename Message>
std::optional<Hyperparameters> ValuesFromProto(const Message& message) {
  if (message.has_sgd()) return SgdFromProto(message.sgd());
  if (message.has_adam()) {
    return AdamFromProto(AdamKind::kAdam, message.adam());
  }
  if (message.has_adamw()) {
    return AdamFromProto(AdamKind::kAdamW, message.adamw());
  }
  return std::nullopt;
}

int64_t PatternCount(const pb::Optimizer& message) {
  int64_t count = message.groups_size();
  for (const pb::ParameterGroup& group : message.groups()) {
    count += group.patterns_size();
  }
  return count;
}

absl::Status UnknownOptimizer(const std::string& name, const FieldPath& field) {
  if (name.empty()) {
    return MissingField(field);
  }
  const std::string path = field.ToString();
  return MakeError(absl::StatusCode::kUnimplemented,
                   absl::StrCat(path,
                                ": expected an optimizer that this release has "
                                "(SGD, Adam, AdamW), got: ",
                                name),
                   {.reason = "OPTIMIZER_UNKNOWN",
                    .metadata = {{"field", path}, {"optimizer", name}}});
}

// Writes hyperparameters into an Optimizer or a ParameterGroup.
template <typename Message>
struct ValuesWriter {
  Message& out;

  void operator()(const SgdOptions& sgd) {
    pb::SgdOptions* message = out.mutable_sgd();
    message->set_lr(sgd.lr);
    message->set_momentum(sgd.momentum);
    message->set_dampening(sgd.dampening);
    message->set_weight_decay(sgd.weight_decay);
    message->set_nesterov(sgd.nesterov);
    message->set_maximize(sgd.maximize);
  }
  void operator()(const AdamOptions& adam) {
    pb::AdamOptions* message =
        adam.kind == AdamKind::kAdam ? out.mutable_adam() : out.mutable_adamw();
    message->set_lr(adam.lr);
    message->set_beta1(adam.beta1);
    message->set_beta2(adam.beta2);
    message->set_eps(adam.eps);
    message->set_weight_decay(adam.weight_decay);
    message->set_amsgrad(adam.amsgrad);
    message->set_maximize(adam.maximize);
  }
};

}  // namespace

absl::StatusOr<OptimizerOptions> FromProto(const v1::Optimizer& message,
                                           const FieldPath& field) {
  if (message.kind_case() == pb::Optimizer::kUnknown) {
    return UnknownOptimizer(message.unknown(), field.Member("unknown"));
  }
  std::optional<Hyperparameters> values = ValuesFromProto(message);
  if (!values.has_value()) return MissingOneof(field, "sgd, adam, adamw");
  OptimizerOptions options{.values = *std::move(values)};
  SP_RETURN_IF_ERROR(CheckCount(field.Member("groups"), PatternCount(message),
                                kMaxGroupPatterns));
  for (int i = 0; i < message.groups_size(); ++i) {
    const pb::ParameterGroup& group = message.groups(i);
    values = ValuesFromProto(group);
    if (!values.has_value()) {
      return MissingOneof(field.Element("groups", i), "sgd, adam, adamw");
    }
    options.groups.push_back(
        {.patterns = {group.patterns().begin(), group.patterns().end()},
         .values = *std::move(values)});
  }
  SP_RETURN_IF_ERROR(InOptimizer(Validate(options), field));
  return options;
}

v1::Optimizer ToProto(const OptimizerOptions& options) {
  pb::Optimizer message;
  std::visit(ValuesWriter<pb::Optimizer>{message}, options.values);
  for (const ParameterGroup& group : options.groups) {
    pb::ParameterGroup& out = *message.add_groups();
    for (const std::string& pattern : group.patterns) {
      out.add_patterns(pattern);
    }
    std::visit(ValuesWriter<pb::ParameterGroup>{out}, group.values);
  }
  return message;
}

absl::Status InOptimizer(const absl::Status& status, const FieldPath& field) {
  if (const auto info = GetErrorInfo(status); info.has_value()) {
    if (const auto it = info->metadata.find("field");
        it != info->metadata.end()) {
      return InField(status, field.Member(it->second));
    }
  }
  return InField(status, field);
}

absl::Status CheckClipNorm(double clip_norm, const FieldPath& field) {
  if (clip_norm > 0) return absl::OkStatus();
  return InvalidField(field,
                      absl::StrCat("expected more than 0, got: ", clip_norm));
}

}  // namespace shardplane
