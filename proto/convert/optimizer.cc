#include "proto/convert/optimizer.h"

#include <string>
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

// The core's checks; it names the hyperparameter, which has the same name here.
absl::Status Check(const OptimizerOptions& options, const FieldPath& field) {
  const absl::Status status = Validate(options);
  if (const auto info = GetErrorInfo(status); info.has_value()) {
    if (const auto it = info->metadata.find("field");
        it != info->metadata.end()) {
      return InField(status, field.Member(it->second));
    }
  }
  return InField(status, field);
}

absl::Status UnknownOptimizer(const std::string& name, const FieldPath& field) {
  if (name.empty()) {
    return MissingField(field);
  }
  const std::string path = field.ToString();
  return MakeError(absl::StatusCode::kUnimplemented,
                   absl::StrCat(path,
                                ": expected an optimizer that this release has "
                                "(SGD), got: ",
                                name),
                   {.reason = "OPTIMIZER_UNKNOWN",
                    .metadata = {{"field", path}, {"optimizer", name}}});
}

// Writes one alternative of OptimizerOptions.
struct OptimizerWriter {
  pb::Optimizer& out;

  void operator()(const SgdOptions& sgd) {
    pb::SgdOptions* message = out.mutable_sgd();
    message->set_lr(sgd.lr);
    message->set_momentum(sgd.momentum);
    message->set_dampening(sgd.dampening);
    message->set_weight_decay(sgd.weight_decay);
    message->set_nesterov(sgd.nesterov);
    message->set_maximize(sgd.maximize);
  }
};

}  // namespace

absl::StatusOr<OptimizerOptions> FromProto(const v1::Optimizer& message,
                                           const FieldPath& field) {
  switch (message.kind_case()) {
    case pb::Optimizer::kSgd: {
      OptimizerOptions options = SgdFromProto(message.sgd());
      SP_RETURN_IF_ERROR(Check(options, field.Member("sgd")));
      return options;
    }
    case pb::Optimizer::kUnknown:
      return UnknownOptimizer(message.unknown(), field.Member("unknown"));
    case pb::Optimizer::KIND_NOT_SET:
      break;
  }
  return MissingOneof(field, "sgd");
}

v1::Optimizer ToProto(const OptimizerOptions& options) {
  pb::Optimizer message;
  std::visit(OptimizerWriter{message}, options);
  return message;
}

}  // namespace shardplane
