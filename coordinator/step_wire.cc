#include "coordinator/step_wire.h"

#include <variant>

#include "absl/strings/string_view.h"
#include "common/errors.h"
#include "coordinator/worker_messages.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "proto/convert/types.h"
#include "proto/grpc_status.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using google::protobuf::io::CodedOutputStream;
using google::protobuf::io::StringOutputStream;

// The tag of a field of strings, bytes or messages.
uint32_t TagOf(int field) { return static_cast<uint32_t>(field) << 3 | 2; }

size_t FieldSize(int field, size_t size) {
  return CodedOutputStream::VarintSize32(TagOf(field)) +
         CodedOutputStream::VarintSize64(size) + size;
}

void WriteStart(int field, size_t size, CodedOutputStream* out) {
  out->WriteTag(TagOf(field));
  out->WriteVarint64(size);
}

void WriteField(int field, absl::string_view bytes, CodedOutputStream* out) {
  WriteStart(field, bytes.size(), out);
  out->WriteRaw(bytes.data(), static_cast<int>(bytes.size()));
}

// As RunRequest.inputs; the only copy of its bytes that is made here.
struct InputWriter {
  CodedOutputStream* out;
  void operator()(const UploadedTensor& tensor) const {
    WriteField(pb::RunRequest::kInputsFieldNumber,
               ToProto(tensor).SerializeAsString(), out);
  }
  void operator()(const HostTensor& tensor) const {
    const std::string type = ToProto(tensor.type).SerializeAsString();
    WriteStart(
        pb::RunRequest::kInputsFieldNumber,
        FieldSize(pb::Tensor::kTypeFieldNumber, type.size()) +
            FieldSize(pb::Tensor::kInlineFieldNumber, tensor.bytes.size()),
        out);
    WriteField(pb::Tensor::kTypeFieldNumber, type, out);
    WriteField(pb::Tensor::kInlineFieldNumber, tensor.bytes, out);
  }
};

size_t InlineBytes(const RunCall& run) {
  size_t bytes = 0;
  for (const TensorSource& input : run.inputs) {
    const auto* tensor = std::get_if<HostTensor>(&input);
    bytes += tensor == nullptr ? 0 : tensor->bytes.size();
  }
  return bytes;
}

// The scalars of the run, without what is one rank's.
std::string RunWithoutInputs(const RunCall& run) {
  pb::RunRequest message =
      ToProto(GangRef{}, RunCall{.step = run.step,
                                 .program = run.program,
                                 .mode = run.mode,
                                 .inputs = {},
                                 .accumulate = run.accumulate,
                                 .random_step = run.random_step,
                                 .gradient_norm = run.gradient_norm,
                                 .timeline = run.timeline,
                                 .traceparent = run.traceparent});
  message.clear_gang();
  return message.SerializeAsString();
}

}  // namespace

TrainStep::Encoding EncodeStep(const TrainStep& step) {
  TrainStep::Encoding encoding;
  // All but the tensors' bytes is small.
  encoding.bytes.reserve(InlineBytes(step.run()) + 4096);
  {
    StringOutputStream stream(&encoding.bytes);
    CodedOutputStream out(&stream);
    out.WriteString(RunWithoutInputs(step.run()));
    for (const TensorSource& input : step.run().inputs) {
      std::visit(InputWriter{&out}, input);
    }
    encoding.run_bytes = static_cast<size_t>(out.ByteCount());
    pb::CommitRequest commit = ToProto(GangRef{}, step.commit());
    commit.clear_gang();
    commit.clear_step();
    WriteField(pb::StepsRequest::Step::kCommitFieldNumber,
               commit.SerializeAsString(), &out);
  }
  return encoding;
}

std::string EncodeStepHead(const GangRef& gang, uint64_t expected_hash,
                           const TrainStep::Encoding& encoding) {
  pb::RunRequest own;
  *own.mutable_gang() = ToProto(gang);
  own.set_expected_hash(expected_hash);
  const std::string own_bytes = own.SerializeAsString();
  const size_t run_size = own_bytes.size() + encoding.run_bytes;
  const size_t commit_size = encoding.bytes.size() - encoding.run_bytes;
  std::string head;
  {
    StringOutputStream stream(&head);
    CodedOutputStream out(&stream);
    WriteStart(pb::StepsRequest::kStepsFieldNumber,
               FieldSize(pb::StepsRequest::Step::kRunFieldNumber, run_size) +
                   commit_size,
               &out);
    WriteStart(pb::StepsRequest::Step::kRunFieldNumber, run_size, &out);
    out.WriteString(own_bytes);
  }
  return head;
}

absl::StatusOr<StepOutcome> OutcomeFromProto(
    const pb::StepsResponse::Step& response) {
  if (response.has_status()) {
    const absl::Status error = FromRpcStatus(response.status());
    return error.ok()
               ? absl::InternalError("status: expected an error, got: OK")
               : error;
  }
  StepOutcome outcome;
  SP_ASSIGN_OR_RETURN(outcome.run, OutcomeFromProto(response.run()));
  outcome.commit_seconds = response.commit_seconds();
  return outcome;
}

}  // namespace shardplane
