#include "worker/rendezvous_client.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "proto/grpc_status.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using std::chrono::milliseconds;

constexpr milliseconds kShortCall{10'000};
// The server answers a wait that ran out before the client gives it up.
constexpr milliseconds kGrace{2'000};

absl::Status CancelledStore() {
  return absl::CancelledError("the gang's rendezvous was given up");
}

}  // namespace

RendezvousClient::RendezvousClient(std::shared_ptr<grpc::Channel> channel,
                                   pb::GangMember member)
    : stub_(pb::Rendezvous::NewStub(std::move(channel))),
      member_(std::move(member)) {}

absl::Status RendezvousClient::Call(
    milliseconds timeout,
    absl::FunctionRef<grpc::Status(grpc::ClientContext*)> call) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + timeout);
  {
    absl::MutexLock lock(&mutex_);
    if (cancelled_) return CancelledStore();
    running_.insert(&context);
  }
  absl::Status status = FromGrpcStatus(call(&context));
  absl::MutexLock lock(&mutex_);
  running_.erase(&context);
  return cancelled_ && !status.ok() ? CancelledStore() : status;
}

absl::Status RendezvousClient::Set(const std::string& key, std::string value) {
  pb::StoreSetRequest request;
  *request.mutable_member() = member_;
  request.set_key(key);
  request.set_value(std::move(value));
  google::protobuf::Empty response;
  return Call(kShortCall, [&](grpc::ClientContext* context) {
    return stub_->StoreSet(context, request, &response);
  });
}

absl::StatusOr<std::vector<std::string>> RendezvousClient::Get(
    const std::vector<std::string>& keys, milliseconds timeout) {
  pb::StoreGetRequest request;
  *request.mutable_member() = member_;
  for (const std::string& key : keys) request.add_keys(key);
  request.set_timeout_ms(timeout.count());
  pb::StoreGetResponse response;
  SP_RETURN_IF_ERROR(Call(timeout + kGrace, [&](grpc::ClientContext* context) {
    return stub_->StoreGet(context, request, &response);
  }));
  if (response.values_size() != static_cast<int>(keys.size())) {
    return absl::InternalError(
        absl::StrCat("StoreGet: expected ", keys.size(),
                     " values, got: ", response.values_size()));
  }
  return std::vector<std::string>(response.values().begin(),
                                  response.values().end());
}

absl::StatusOr<int64_t> RendezvousClient::Add(const std::string& key,
                                              int64_t amount) {
  pb::StoreAddRequest request;
  *request.mutable_member() = member_;
  request.set_key(key);
  request.set_amount(amount);
  pb::StoreAddResponse response;
  SP_RETURN_IF_ERROR(Call(kShortCall, [&](grpc::ClientContext* context) {
    return stub_->StoreAdd(context, request, &response);
  }));
  return response.value();
}

absl::StatusOr<std::string> RendezvousClient::CompareSet(
    const std::string& key, const std::string& expected,
    const std::string& desired) {
  pb::StoreCompareSetRequest request;
  *request.mutable_member() = member_;
  request.set_key(key);
  request.set_expected(expected);
  request.set_desired(desired);
  pb::StoreGetResponse response;
  SP_RETURN_IF_ERROR(Call(kShortCall, [&](grpc::ClientContext* context) {
    return stub_->StoreCompareSet(context, request, &response);
  }));
  if (response.values_size() != 1) {
    return absl::InternalError(absl::StrCat(
        "StoreCompareSet: expected 1 value, got: ", response.values_size()));
  }
  return response.values(0);
}

absl::StatusOr<bool> RendezvousClient::Delete(const std::string& key) {
  pb::StoreDeleteRequest request;
  *request.mutable_member() = member_;
  request.set_key(key);
  pb::StoreCheckResponse response;
  SP_RETURN_IF_ERROR(Call(kShortCall, [&](grpc::ClientContext* context) {
    return stub_->StoreDelete(context, request, &response);
  }));
  return response.found();
}

absl::StatusOr<bool> RendezvousClient::Check(
    const std::vector<std::string>& keys) {
  pb::StoreCheckRequest request;
  *request.mutable_member() = member_;
  for (const std::string& key : keys) request.add_keys(key);
  pb::StoreCheckResponse response;
  SP_RETURN_IF_ERROR(Call(kShortCall, [&](grpc::ClientContext* context) {
    return stub_->StoreCheck(context, request, &response);
  }));
  return response.found();
}

absl::StatusOr<int64_t> RendezvousClient::NumKeys() {
  pb::StoreCheckRequest request;
  *request.mutable_member() = member_;
  pb::StoreCheckResponse response;
  SP_RETURN_IF_ERROR(Call(kShortCall, [&](grpc::ClientContext* context) {
    return stub_->StoreCheck(context, request, &response);
  }));
  return response.total_keys();
}

void RendezvousClient::Cancel() {
  absl::MutexLock lock(&mutex_);
  cancelled_ = true;
  for (grpc::ClientContext* context : running_) context->TryCancel();
}

}  // namespace shardplane
