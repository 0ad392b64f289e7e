#include "client/fake_coordinator.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"

namespace shardplane {

FakeCoordinator::FakeCoordinator() {
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                           &port);
  builder.SetMaxReceiveMessageSize(-1);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  address_ = absl::StrCat("127.0.0.1:", port);
}

FakeCoordinator::~FakeCoordinator() {
  Release();
  server_->Shutdown(absl::ToChronoTime(absl::Now()));
}

void FakeCoordinator::FailNext(const grpc::Status& status) {
  absl::MutexLock lock(&mu_);
  failures_.push_back(status);
}

void FakeCoordinator::EndTrainAt(uint64_t step, const grpc::Status& status) {
  absl::MutexLock lock(&mu_);
  ends_[step] = status;
}

void FakeCoordinator::SetDownload(
    std::vector<v1::DownloadTensorResponse> messages) {
  absl::MutexLock lock(&mu_);
  download_ = std::move(messages);
}

void FakeCoordinator::Hold() {
  absl::MutexLock lock(&mu_);
  hold_ = true;
}

void FakeCoordinator::Release() {
  absl::MutexLock lock(&mu_);
  hold_ = false;
}

void FakeCoordinator::WaitUntilHeld() {
  absl::MutexLock lock(&mu_);
  const auto held = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return held_ > 0;
  };
  mu_.Await(absl::Condition(&held));
}

void FakeCoordinator::WaitUntilCancelled() {
  absl::MutexLock lock(&mu_);
  const auto seen = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return cancelled_ > 0;
  };
  mu_.Await(absl::Condition(&seen));
}

void FakeCoordinator::WaitForTrainMessages(size_t count) {
  absl::MutexLock lock(&mu_);
  const auto came = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return train_messages_.size() >= count;
  };
  mu_.Await(absl::Condition(&came));
}

std::vector<v1::StepRequest> FakeCoordinator::steps() const {
  absl::MutexLock lock(&mu_);
  return steps_;
}

std::vector<FakeUpload> FakeCoordinator::uploads() const {
  absl::MutexLock lock(&mu_);
  return uploads_;
}

std::vector<int> FakeCoordinator::train_messages() const {
  absl::MutexLock lock(&mu_);
  return train_messages_;
}

grpc::Status FakeCoordinator::NextStatus() {
  absl::MutexLock lock(&mu_);
  if (failures_.empty()) {
    return grpc::Status::OK;
  }
  const grpc::Status status = failures_.front();
  failures_.pop_front();
  return status;
}

void FakeCoordinator::WaitWhileHeld(grpc::ServerContext* context) {
  // gRPC's synchronous services are told of a cancellation by nobody: ask.
  constexpr absl::Duration kAsk = absl::Milliseconds(5);
  absl::MutexLock lock(&mu_);
  held_ += hold_ ? 1 : 0;
  const auto released = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return !hold_;
  };
  while (!mu_.AwaitWithTimeout(absl::Condition(&released), kAsk)) {
    if (context->IsCancelled()) {
      ++cancelled_;
      return;
    }
  }
}

grpc::Status FakeCoordinator::GetDeployment(
    grpc::ServerContext*, const v1::GetDeploymentRequest* request,
    v1::Deployment* response) {
  response->set_name(request->name());
  return NextStatus();
}

grpc::Status FakeCoordinator::Step(grpc::ServerContext* context,
                                   const v1::StepRequest* request,
                                   v1::StepResult* response) {
  {
    absl::MutexLock lock(&mu_);
    steps_.push_back(*request);
  }
  WaitWhileHeld(context);
  response->set_number(request->step());
  return NextStatus();
}

grpc::Status FakeCoordinator::Train(
    grpc::ServerContext* context,
    grpc::ServerReaderWriter<v1::TrainResponse, v1::TrainRequest>* stream) {
  WaitWhileHeld(context);
  if (grpc::Status status = NextStatus(); !status.ok()) {
    return status;
  }
  v1::TrainRequest request;
  while (stream->Read(&request)) {
    WaitWhileHeld(context);
    v1::TrainResponse response;
    const grpc::Status* end = nullptr;
    absl::ReleasableMutexLock lock(&mu_);
    train_messages_.push_back(request.steps_size());
    for (const v1::StepRequest& step : request.steps()) {
      if (const auto it = ends_.find(step.step()); it != ends_.end()) {
        end = &it->second;
        break;
      }
      response.add_steps()->set_number(step.step());
    }
    const grpc::Status status = end == nullptr ? grpc::Status::OK : *end;
    lock.Release();
    if (response.steps_size() > 0) {
      stream->Write(response);
    }
    if (end != nullptr) {
      return status;
    }
  }
  return grpc::Status::OK;
}

grpc::Status FakeCoordinator::UploadTensor(
    grpc::ServerContext*, grpc::ServerReader<v1::UploadTensorRequest>* reader,
    v1::UploadTensorResponse*) {
  const grpc::Status status = NextStatus();
  FakeUpload upload;
  v1::UploadTensorRequest message;
  while (reader->Read(&message)) {
    if (message.has_header()) {
      upload.header = message.header();
      if (!status.ok()) {
        break;
      }
    } else {
      upload.chunks.push_back(message.chunk());
    }
  }
  absl::MutexLock lock(&mu_);
  uploads_.push_back(std::move(upload));
  return status;
}

grpc::Status FakeCoordinator::DownloadTensor(
    grpc::ServerContext*, const v1::DownloadTensorRequest*,
    grpc::ServerWriter<v1::DownloadTensorResponse>* writer) {
  std::vector<v1::DownloadTensorResponse> messages;
  {
    absl::MutexLock lock(&mu_);
    messages = download_;
  }
  for (const v1::DownloadTensorResponse& message : messages) {
    writer->Write(message);
  }
  return NextStatus();
}

}  // namespace shardplane
