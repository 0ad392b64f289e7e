#include "coordinator/local_step_stream.h"

#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "coordinator/step_wire.h"
#include "google/rpc/status.pb.h"
#include "ipc/file_descriptor.h"
#include "ipc/link.h"
#include "ipc/local_socket.h"
#include "ipc/step_socket.h"
#include "proto/grpc_status.h"
#include "proto/local_message.h"
#include "shardplane/v1/worker.pb.h"

namespace shardplane {
namespace {

class LocalStepStream final : public StepStream, private Link::Handler {
 public:
  LocalStepStream(FileDescriptor socket, std::shared_ptr<StreamCount> count)
      : StepStream(std::move(count), kMaxTogether), link_(std::move(socket)) {}

  // Until the connection ends.
  void Run() {
    link_.ReadOn();
    const absl::Status closed = link_.Run(*this);
    ReadEnded();
    Over(ended_.value_or(absl::UnavailableError(closed.message())));
  }

 private:
  // A larger step lies in memory that the ranks share.
  static constexpr size_t kMaxTogether = Link::kMaxInline - kStepsTag.size();

  bool Write(std::vector<OutgoingStep> message) override {
    if (message[0].bytes > kMaxTogether) {
      const auto& shared = message[0].step->Shared(&EncodeStep);
      if (shared == nullptr) {
        End(absl::ResourceExhaustedError(
            absl::StrCat("expected memory for a step of ", message[0].bytes,
                         " bytes; the system has none")));
        return true;
      }
      return IsWritten(link_.Send({kStepsTag, message[0].head}, shared));
    }
    std::string bytes;
    for (const OutgoingStep& each : message) {
      bytes.append(each.head);
      for (const absl::string_view piece :
           each.step->Encoded(&EncodeStep).pieces) {
        absl::StrAppend(&bytes, piece);
      }
    }
    return IsWritten(link_.Send({kStepsTag, bytes}));
  }
  // What never is, because the connection has ended, is not waited for either.
  static bool IsWritten(Link::Sent sent) { return sent != Link::Sent::kLater; }

  void Cancel() override { link_.Close(); }
  void NothingToWrite() override {}

  void OnMessage(absl::string_view bytes, absl::string_view rest) override {
    if (absl::ConsumePrefix(&bytes, kEndTag)) {
      google::rpc::Status status;
      ended_ = ParseInTwo(bytes, rest, &status)
                   ? FromRpcStatus(status)
                   : absl::InternalError("expected a status");
      link_.Close();
      return;
    }
    if (absl::ConsumePrefix(&bytes, kStepsTag) &&
        ParseInTwo(bytes, rest, &response_)) {
      Answered(response_);
    } else {
      End(absl::InternalError("expected answers to steps, got: other bytes"));
    }
    link_.ReadOn();
  }
  void OnSent() override { Written(true); }

  Link link_;
  // The thread's.
  v1::StepsResponse response_;
  std::optional<absl::Status> ended_;  // what the worker said at last
};

}  // namespace

std::shared_ptr<StepStream> OpenLocalStepStream(
    Incarnation worker, std::shared_ptr<StreamCount> count) {
  absl::StatusOr<FileDescriptor> socket =
      ConnectLocally(StepSocketName(worker.value));
  if (!socket.ok()) return nullptr;
  const auto stream =
      std::make_shared<LocalStepStream>(*std::move(socket), std::move(count));
  // It ends with the stream, which StreamCount counts.
  std::thread([stream] { stream->Run(); }).detach();
  return stream;
}

}  // namespace shardplane
