#include "coordinator/rendezvous_service.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "common/errors.h"
#include "coordinator/service_calls.h"
#include "proto/grpc_status.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

absl::StatusOr<RendezvousMember> MemberOf(const pb::GangMember& message) {
  SP_ASSIGN_OR_RETURN(
      DeploymentId deployment,
      ParseDeploymentName(message.deployment(), "member.deployment"));
  return RendezvousMember{std::move(deployment), GangEpoch{message.epoch()},
                          Incarnation{message.incarnation()}, message.rank()};
}

pb::StoreCheckResponse ToProto(const Rendezvous::Found& found) {
  pb::StoreCheckResponse response;
  response.set_found(found.found);
  response.set_total_keys(found.total_keys);
  return response;
}

template <typename Keys>
std::vector<std::string> KeysOf(const Keys& keys) {
  return std::vector<std::string>(keys.begin(), keys.end());
}

}  // namespace

grpc::Status RendezvousService::StoreSet(grpc::ServerContext*,
                                         const pb::StoreSetRequest* request,
                                         google::protobuf::Empty*) {
  const auto set = [&]() -> absl::Status {
    SP_ASSIGN_OR_RETURN(const RendezvousMember member,
                        MemberOf(request->member()));
    return rendezvous_->Set(member, request->key(), request->value());
  };
  return ToGrpcStatus(set());
}

grpc::Status RendezvousService::StoreGet(grpc::ServerContext* context,
                                         const pb::StoreGetRequest* request,
                                         pb::StoreGetResponse* response) {
  const auto get = [&]() -> absl::StatusOr<pb::StoreGetResponse> {
    SP_ASSIGN_OR_RETURN(const RendezvousMember member,
                        MemberOf(request->member()));
    const absl::Time deadline =
        std::min(MakeContext(context).deadline,
                 absl::Now() + absl::Milliseconds(request->timeout_ms()));
    SP_ASSIGN_OR_RETURN(
        std::vector<std::string> values,
        rendezvous_->Get(member, KeysOf(request->keys()), deadline));
    pb::StoreGetResponse found;
    for (std::string& value : values) {
      found.add_values(std::move(value));
    }
    return found;
  };
  return Reply(get(), response);
}

grpc::Status RendezvousService::StoreAdd(grpc::ServerContext*,
                                         const pb::StoreAddRequest* request,
                                         pb::StoreAddResponse* response) {
  const auto add = [&]() -> absl::StatusOr<pb::StoreAddResponse> {
    SP_ASSIGN_OR_RETURN(const RendezvousMember member,
                        MemberOf(request->member()));
    SP_ASSIGN_OR_RETURN(
        const int64_t value,
        rendezvous_->Add(member, request->key(), request->amount()));
    pb::StoreAddResponse sum;
    sum.set_value(value);
    return sum;
  };
  return Reply(add(), response);
}

grpc::Status RendezvousService::StoreCompareSet(
    grpc::ServerContext*, const pb::StoreCompareSetRequest* request,
    pb::StoreGetResponse* response) {
  const auto compare_set = [&]() -> absl::StatusOr<pb::StoreGetResponse> {
    SP_ASSIGN_OR_RETURN(const RendezvousMember member,
                        MemberOf(request->member()));
    SP_ASSIGN_OR_RETURN(
        std::string value,
        rendezvous_->CompareSet(member, request->key(), request->expected(),
                                request->desired()));
    pb::StoreGetResponse present;
    present.add_values(std::move(value));
    return present;
  };
  return Reply(compare_set(), response);
}

grpc::Status RendezvousService::StoreDelete(
    grpc::ServerContext*, const pb::StoreDeleteRequest* request,
    pb::StoreCheckResponse* response) {
  const auto remove = [&]() -> absl::StatusOr<pb::StoreCheckResponse> {
    SP_ASSIGN_OR_RETURN(const RendezvousMember member,
                        MemberOf(request->member()));
    SP_ASSIGN_OR_RETURN(const Rendezvous::Found found,
                        rendezvous_->Delete(member, request->key()));
    return ToProto(found);
  };
  return Reply(remove(), response);
}

grpc::Status RendezvousService::StoreCheck(grpc::ServerContext*,
                                           const pb::StoreCheckRequest* request,
                                           pb::StoreCheckResponse* response) {
  const auto check = [&]() -> absl::StatusOr<pb::StoreCheckResponse> {
    SP_ASSIGN_OR_RETURN(const RendezvousMember member,
                        MemberOf(request->member()));
    SP_ASSIGN_OR_RETURN(const Rendezvous::Found found,
                        rendezvous_->Check(member, KeysOf(request->keys())));
    return ToProto(found);
  };
  return Reply(check(), response);
}

}  // namespace shardplane
