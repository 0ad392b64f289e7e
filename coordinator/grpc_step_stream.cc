#include "coordinator/grpc_step_stream.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "coordinator/step_wire.h"
#include "grpcpp/client_context.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/client_callback.h"
#include "grpcpp/support/slice.h"
#include "proto/grpc_status.h"
#include "shardplane/v1/worker.pb.h"

namespace shardplane {
namespace {

// A worker takes messages of up to 4 MiB; the largest step has a little over
// 3 of them.
constexpr size_t kMaxMessageBytes = size_t{7} << 19;

// A slice of bytes that belong to `step`.
grpc::Slice SharedSlice(const std::shared_ptr<const TrainStep>& step,
                        absl::string_view bytes) {
  auto* const owner = new std::shared_ptr<const TrainStep>(step);
  return grpc::Slice(
      const_cast<char*>(bytes.data()), bytes.size(),
      [](void* held) {
        delete static_cast<std::shared_ptr<const TrainStep>*>(held);
      },
      owner);
}

class GrpcStepStream final
    : public StepStream,
      public grpc::ClientBidiReactor<grpc::ByteBuffer, v1::StepsResponse> {
 public:
  explicit GrpcStepStream(std::shared_ptr<StreamCount> count)
      : StepStream(std::move(count), kMaxMessageBytes) {}

  void Start(const std::shared_ptr<grpc::Channel>& channel) {
    self_ = shared_from_this();
    grpc::TemplatedGenericStub<grpc::ByteBuffer, v1::StepsResponse> stub(
        channel);
    stub.PrepareBidiStreamingCall(&context_, "/shardplane.v1.Worker/Steps", {},
                                  this);
    // gRPC may end the call once nobody outside starts anything any more.
    AddHold();
    StartRead(&response_);
    StartCall();
  }

  // gRPC's calls.
  void OnWriteDone(bool ok) override { Written(ok); }
  void OnReadDone(bool ok) override {
    if (!ok) {
      ReadEnded();
      return;
    }
    Answered(response_);
    StartRead(&response_);  // fails where the call was cancelled
  }
  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<StepStream> self = std::move(self_);
    Over(FromGrpcStatus(status));
  }

 private:
  bool Write(std::vector<OutgoingStep> message) override {
    std::vector<grpc::Slice> slices;
    for (OutgoingStep& each : message) {
      slices.emplace_back(each.head);
      for (const absl::string_view piece :
           each.step->Encoded(&EncodeStep).pieces) {
        slices.push_back(SharedSlice(each.step, piece));
      }
    }
    message_ = grpc::ByteBuffer(slices.data(), slices.size());
    StartWrite(&message_);
    return false;
  }
  void Cancel() override { context_.TryCancel(); }
  void NothingToWrite() override { RemoveHold(); }

  grpc::ClientContext context_;
  std::shared_ptr<StepStream> self_;  // until OnDone
  v1::StepsResponse response_;        // the reader's
  grpc::ByteBuffer message_;          // the writer's
};

}  // namespace

std::shared_ptr<StepStream> OpenGrpcStepStream(
    const std::shared_ptr<grpc::Channel>& channel,
    std::shared_ptr<StreamCount> count) {
  const auto stream = std::make_shared<GrpcStepStream>(std::move(count));
  stream->Start(channel);
  return stream;
}

}  // namespace shardplane
