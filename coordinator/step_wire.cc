#include "coordinator/step_wire.h"

#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
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

void AppendStart(int field, size_t size, std::string* out) {
  StringOutputStream stream(out);
  CodedOutputStream coded(&stream);
  coded.WriteTag(TagOf(field));
  coded.WriteVarint64(size);
}

void AppendField(int field, absl::string_view bytes, std::string* out) {
  AppendStart(field, bytes.size(), out);
  absl::StrAppend(out, bytes);
}

// Collects pieces: text that is written here, and tensors where they lie.
class PieceWriter {
 public:
  explicit PieceWriter(TrainStep::Encoding* encoding) : encoding_(*encoding) {}

  std::string* text() { return &text_; }
  // Small ones go along with the text.
  void AddTensor(absl::string_view bytes) {
    constexpr size_t kLarge = 4096;
    if (bytes.size() < kLarge) {
      absl::StrAppend(&text_, bytes);
      return;
    }
    Flush();
    AddPiece(bytes);
  }
  void Flush() {
    if (text_.empty()) return;
    AddPiece(encoding_.written.emplace_back(std::exchange(text_, "")));
  }
  size_t bytes() const { return encoding_.bytes + text_.size(); }

 private:
  void AddPiece(absl::string_view piece) {
    encoding_.pieces.push_back(piece);
    encoding_.bytes += piece.size();
  }
  TrainStep::Encoding& encoding_;
  std::string text_;
};

// As RunRequest.inputs.
struct InputWriter {
  PieceWriter* out;
  void operator()(const UploadedTensor& tensor) const {
    AppendField(pb::RunRequest::kInputsFieldNumber,
                ToProto(tensor).SerializeAsString(), out->text());
  }
  void operator()(const HostTensor& tensor) const {
    const std::string type = ToProto(tensor.type).SerializeAsString();
    AppendStart(
        pb::RunRequest::kInputsFieldNumber,
        FieldSize(pb::Tensor::kTypeFieldNumber, type.size()) +
            FieldSize(pb::Tensor::kInlineFieldNumber, tensor.bytes.size()),
        out->text());
    AppendField(pb::Tensor::kTypeFieldNumber, type, out->text());
    AppendStart(pb::Tensor::kInlineFieldNumber, tensor.bytes.size(),
                out->text());
    out->AddTensor(tensor.bytes);
  }
};

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
  PieceWriter out(&encoding);
  out.text()->append(RunWithoutInputs(step.run()));
  for (const TensorSource& input : step.run().inputs) {
    std::visit(InputWriter{&out}, input);
  }
  encoding.run_bytes = out.bytes();
  pb::CommitRequest commit = ToProto(GangRef{}, step.commit());
  commit.clear_gang();
  commit.clear_step();
  AppendField(pb::StepsRequest::Step::kCommitFieldNumber,
              commit.SerializeAsString(), out.text());
  out.Flush();
  return encoding;
}

std::string EncodeStepHead(const GangRef& gang, uint64_t expected_hash,
                           const TrainStep::Encoding& encoding) {
  pb::RunRequest own;
  *own.mutable_gang() = ToProto(gang);
  own.set_expected_hash(expected_hash);
  const std::string own_bytes = own.SerializeAsString();
  const size_t run_size = own_bytes.size() + encoding.run_bytes;
  const size_t commit_size = encoding.bytes - encoding.run_bytes;
  std::string head;
  AppendStart(pb::StepsRequest::kStepsFieldNumber,
              FieldSize(pb::StepsRequest::Step::kRunFieldNumber, run_size) +
                  commit_size,
              &head);
  AppendStart(pb::StepsRequest::Step::kRunFieldNumber, run_size, &head);
  return head + own_bytes;
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
