#include "coordinator/step_inputs.h"

#include <variant>

#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {
namespace {

// What goes inline to a worker, all inputs together; a message has 4 MiB.
constexpr size_t kMaxInlineTotal = size_t{3} << 20;

const TensorType& TypeOf(const TensorSource& source) {
  return std::visit(
      [](const auto& tensor) -> const TensorType& { return tensor.type; },
      source);
}

absl::Status Mismatch(const std::string& field, const std::string& expected,
                      const std::string& got) {
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat(field, ": expected ", expected, ", got: ", got),
                   {.reason = "TENSOR_TYPE_MISMATCH",
                    .metadata = {{"field", field}, {"expected", expected}}});
}

// The tensors of one list, which the program takes from `first` on.
absl::Status CheckList(const DeploymentProgram& program, int first, int count,
                       absl::Span<const TensorSource> sources,
                       const std::string& list, const UploadBook& uploads) {
  if (static_cast<int>(sources.size()) != count) {
    return Mismatch(list, absl::StrCat(count, " tensors"),
                    absl::StrCat(sources.size()));
  }
  for (int i = 0; i < count; ++i) {
    const std::string field = absl::StrCat(list, "[", i, "]");
    const InputBinding& binding = program.program.inputs[first + i];
    const TensorType& expected = program.program.values[binding.value].type;
    if (TypeOf(sources[i]) != expected) {
      return Mismatch(field, ToString(expected), ToString(TypeOf(sources[i])));
    }
    if (const auto* upload = std::get_if<UploadedTensor>(&sources[i])) {
      SP_RETURN_IF_ERROR(uploads.Check(upload->id, expected, field));
    }
  }
  return absl::OkStatus();
}

size_t InlineBytes(absl::Span<const TensorSource> sources) {
  size_t bytes = 0;
  for (const TensorSource& source : sources) {
    if (const auto* tensor = std::get_if<HostTensor>(&source)) {
      bytes += tensor->bytes.size();
    }
  }
  return bytes;
}

}  // namespace

absl::Status CheckInputs(const DeploymentProgram& program,
                         absl::Span<const TensorSource> inputs,
                         absl::Span<const TensorSource> targets,
                         absl::string_view prefix, const UploadBook& uploads) {
  const int num_targets =
      static_cast<int>(program.program.inputs.size()) - program.num_inputs;
  SP_RETURN_IF_ERROR(CheckList(program, 0, program.num_inputs, inputs,
                               absl::StrCat(prefix, "inputs"), uploads));
  SP_RETURN_IF_ERROR(CheckList(program, program.num_inputs, num_targets,
                               targets, absl::StrCat(prefix, "targets"),
                               uploads));
  const size_t bytes = InlineBytes(inputs) + InlineBytes(targets);
  if (bytes > kMaxInlineTotal) {
    return MakeError(
        absl::StatusCode::kResourceExhausted,
        absl::StrCat(prefix, "inputs: expected at most ", kMaxInlineTotal,
                     " bytes inline, all together; upload larger tensors with "
                     "UploadTensor, got: ",
                     bytes),
        {.reason = "INLINE_TOO_LARGE",
         .metadata = {{"field", absl::StrCat(prefix, "inputs")},
                      {"expected", absl::StrCat(kMaxInlineTotal)},
                      {"remedy", "call UploadTensor"}}});
  }
  return absl::OkStatus();
}

std::vector<std::string> UploadsOf(absl::Span<const TensorSource> sources) {
  std::vector<std::string> ids;
  for (const TensorSource& source : sources) {
    if (const auto* upload = std::get_if<UploadedTensor>(&source)) {
      ids.push_back(upload->id);
    }
  }
  return ids;
}

}  // namespace shardplane
