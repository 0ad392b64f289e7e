#include "client/client.h"

#include <optional>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/client_call.h"
#include "client/error_info.h"
#include "google/protobuf/util/json_util.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/support/channel_arguments.h"
#include "proto/convert/types.h"
#include "proto/grpc_status.h"
#include "proto/tensor_stream.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using Stub = pb::ShardingCoordinator::Stub;

grpc::ChannelArguments ChannelArguments() {
  grpc::ChannelArguments arguments;
  // Large outputs and reports come in one message.
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  // A coordinator that vanished without a word is noticed.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  // Calls are tried again here, where request ids and RetryInfo are known.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  return arguments;
}

double RandomFraction() {
  thread_local absl::BitGen random;
  return absl::Uniform<double>(random, 0.0, 1.0);
}

// What the coordinator has sent is not a tensor: nothing of it is the
// caller's fault.
absl::Status Damaged(const absl::Status& status) {
  const google::rpc::ErrorInfo info = ErrorInfoOf(status);
  const auto field = info.metadata().find("field");
  return ClientError(absl::StatusCode::kDataLoss, info.reason(),
                     field == info.metadata().end() ? "" : field->second,
                     status.message());
}

// `read` takes a message and returns false at the end of the stream.
template <typename Read>
absl::StatusOr<DownloadedTensor> ReceiveTensor(Read&& read) {
  pb::DownloadTensorResponse first;
  read(&first);  // at the end of the stream it stays without a header
  if (absl::Status status = CheckIsHeader(first); !status.ok()) {
    return Damaged(status);
  }
  const auto type = FromProto(first.header().type(), "header.type");
  if (!type.ok()) {
    return Damaged(type.status());
  }
  auto tensor = ReceiveChunks<pb::DownloadTensorResponse>(*type, read);
  if (!tensor.ok()) {
    return Damaged(tensor.status());
  }
  return DownloadedTensor{.type = first.header().type(),
                          .spec = first.header().spec(),
                          .bytes = std::move(tensor->bytes)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(
    const std::string& address, ClientOptions options) {
  const std::shared_ptr<grpc::Channel> channel = grpc::CreateCustomChannel(
      address,
      options.credentials != nullptr ? options.credentials
                                     : grpc::InsecureChannelCredentials(),
      ChannelArguments());
  if (!channel->WaitForConnected(
          absl::ToChronoTime(absl::Now() + options.connect_timeout))) {
    return ClientError(
        absl::StatusCode::kUnavailable, "NOT_CONNECTED", "address",
        absl::StrCat("address: expected a coordinator that answers within ",
                     absl::FormatDuration(options.connect_timeout),
                     ", got: none at ", address));
  }
  return std::unique_ptr<Client>(new Client(std::move(options), channel));
}

Client::Client(ClientOptions options, std::shared_ptr<grpc::Channel> channel)
    : options_(std::move(options)),
      channel_(std::move(channel)),
      stub_(pb::ShardingCoordinator::NewStub(channel_)) {}

absl::Status Client::Retried(
    absl::Duration timeout,
    absl::FunctionRef<absl::Status(grpc::ClientContext*)> attempt) {
  std::optional<Backoff> backoff;  // made when it is needed
  const absl::Time start = absl::Now();
  while (true) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
    absl::Status status = attempt(&context);
    if (status.ok()) {
      return status;
    }
    if (!backoff.has_value()) {
      backoff.emplace(options_.backoff, start);
    }
    const std::optional<absl::Duration> wait =
        backoff->Next(status, absl::Now(), RandomFraction());
    if (!wait.has_value()) {
      return status;
    }
    options_.sleep(*wait);
  }
}

absl::StatusOr<pb::Deployment> Client::CreateDeployment(
    pb::CreateDeploymentRequest request) {
  return Call(&Stub::CreateDeployment, WithRequestId(std::move(request)),
              options_.call_timeout);
}

absl::Status Client::DeleteDeployment(pb::DeleteDeploymentRequest request) {
  return Call(&Stub::DeleteDeployment, WithRequestId(std::move(request)),
              options_.call_timeout)
      .status();
}

absl::StatusOr<pb::Deployment> Client::MaterializeDeployment(
    pb::MaterializeDeploymentRequest request) {
  return Call(&Stub::MaterializeDeployment, WithRequestId(std::move(request)),
              options_.call_timeout);
}

absl::StatusOr<pb::Program> Client::CreateProgram(
    pb::CreateProgramRequest request) {
  return Call(&Stub::CreateProgram, WithRequestId(std::move(request)),
              options_.call_timeout);
}

absl::StatusOr<pb::ForwardResponse> Client::Forward(
    pb::ForwardRequest request) {
  return Call(&Stub::Forward, WithRequestId(std::move(request)),
              options_.step_timeout);
}

absl::StatusOr<pb::StepResult> Client::Step(pb::StepRequest request) {
  return Call(&Stub::Step, WithRequestId(std::move(request)),
              options_.step_timeout);
}

std::unique_ptr<TrainStream> Client::Train(const TrainStreamOptions& options) {
  return std::make_unique<TrainStream>(stub_.get(), options);
}

absl::Status Client::Upload(pb::UploadTensorRequest::Header header,
                            absl::string_view bytes) {
  pb::UploadTensorRequest first;
  *first.mutable_header() = WithRequestId(std::move(header));
  return Retried(options_.transfer_timeout, [&](grpc::ClientContext* context) {
    pb::UploadTensorResponse response;
    const auto writer = stub_->UploadTensor(context, &response);
    const auto write = [&](const pb::UploadTensorRequest& message) {
      return writer->Write(message);
    };
    // A write that fails leaves its reason in the status.
    if (write(first) && SendChunks<pb::UploadTensorRequest>(bytes, write)) {
      writer->WritesDone();
    }
    return FromGrpcStatus(writer->Finish());
  });
}

absl::StatusOr<DownloadedTensor> Client::Download(
    const pb::DownloadTensorRequest& request) {
  absl::StatusOr<DownloadedTensor> tensor;
  const auto attempt = [&](grpc::ClientContext* context) {
    const auto reader = stub_->DownloadTensor(context, request);
    bool ended = false;
    tensor = ReceiveTensor([&](pb::DownloadTensorResponse* message) {
      ended = !reader->Read(message);
      return !ended;
    });
    if (!ended) {
      context->TryCancel();  // what is still to come is of no use
      reader->Finish();
      return tensor.status();
    }
    // The stream's own error says why it has ended early.
    absl::Status status = FromGrpcStatus(reader->Finish());
    return status.ok() ? tensor.status() : status;
  };
  absl::Status status = Retried(options_.transfer_timeout, attempt);
  return status.ok() ? std::move(tensor) : status;
}

absl::StatusOr<pb::CreateDeploymentRequest> ParseCreateDeployment(
    const std::string& json) {
  pb::CreateDeploymentRequest request;
  const auto status =
      google::protobuf::util::JsonStringToMessage(json, &request);
  if (!status.ok()) {
    return ClientError(
        absl::StatusCode::kInvalidArgument, "JSON_INVALID", "",
        absl::StrCat("expected a CreateDeploymentRequest as JSON, got: ",
                     status.ToString()));
  }
  return request;
}

}  // namespace shardplane
