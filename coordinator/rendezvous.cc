#include "coordinator/rendezvous.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {
namespace {

absl::Status StaleMember(const RendezvousMember& member,
                         absl::string_view expected) {
  return MakeError(
      absl::StatusCode::kAborted,
      absl::StrCat(ResourceName(member.deployment), ": expected ", expected,
                   ", got: epoch ", member.epoch.value, ", rank ", member.rank,
                   ", incarnation ", member.incarnation.value),
      {.reason = "GANG_MEMBER_STALE",
       .metadata = {{"resource", ResourceName(member.deployment)},
                    {"expected", std::string(expected)}}});
}

absl::Status Closed(const RendezvousMember& member, const std::string& why) {
  return MakeError(
      absl::StatusCode::kAborted,
      absl::StrCat("the gang of ", ResourceName(member.deployment), ", epoch ",
                   member.epoch.value, ", was closed: ", why),
      {.reason = "GANG_CLOSED",
       .metadata = {{"resource", ResourceName(member.deployment)}}});
}

}  // namespace

void Rendezvous::Open(const DeploymentId& deployment, GangEpoch epoch,
                      std::vector<Incarnation> incarnations_by_rank) {
  absl::MutexLock lock(&mu_);
  std::shared_ptr<Gang>& gang = gangs_[deployment];
  if (gang != nullptr) {
    gang->closed = "a newer gang was opened";
  }
  gang = std::make_shared<Gang>();
  gang->epoch = epoch;
  gang->incarnations = std::move(incarnations_by_rank);
}

void Rendezvous::Close(const DeploymentId& deployment, GangEpoch epoch,
                       const std::string& reason) {
  absl::MutexLock lock(&mu_);
  const auto it = gangs_.find(deployment);
  if (it != gangs_.end() && it->second->epoch == epoch) {
    it->second->closed = reason;
    gangs_.erase(it);
  }
}

absl::StatusOr<std::shared_ptr<Rendezvous::Gang>> Rendezvous::Admit(
    const RendezvousMember& member) {
  const auto it = gangs_.find(member.deployment);
  if (it == gangs_.end()) {
    return StaleMember(member, "a gang that is open");
  }
  const Gang& gang = *it->second;
  if (gang.epoch != member.epoch) {
    return StaleMember(member, absl::StrCat("epoch ", gang.epoch.value));
  }
  if (member.rank < 0 ||
      member.rank >= static_cast<int>(gang.incarnations.size()) ||
      gang.incarnations[member.rank] != member.incarnation) {
    return StaleMember(member, "the incarnation that was given the rank");
  }
  return it->second;
}

absl::Status Rendezvous::Put(Gang& gang, const std::string& key,
                             std::string value) {
  const auto it = gang.values.find(key);
  const size_t old =
      it == gang.values.end() ? 0 : key.size() + it->second.size();
  const size_t bytes = gang.bytes - old + key.size() + value.size();
  if (bytes > kMaxBytes || gang.values.size() >= kMaxKeys) {
    return MakeError(
        absl::StatusCode::kResourceExhausted,
        absl::StrCat("a gang's store holds at most ", kMaxKeys, " keys and ",
                     kMaxBytes, " bytes, got: key \"", key, "\" on top of ",
                     gang.values.size(), " keys and ", gang.bytes, " bytes"),
        {.reason = "RENDEZVOUS_FULL"});
  }
  gang.bytes = bytes;
  gang.values[key] = std::move(value);
  return absl::OkStatus();
}

absl::Status Rendezvous::Set(const RendezvousMember& member,
                             const std::string& key, std::string value) {
  absl::MutexLock lock(&mu_);
  SP_ASSIGN_OR_RETURN(const std::shared_ptr<Gang> gang, Admit(member));
  return Put(*gang, key, std::move(value));
}

absl::StatusOr<std::vector<std::string>> Rendezvous::Get(
    const RendezvousMember& member, absl::Span<const std::string> keys,
    absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  SP_ASSIGN_OR_RETURN(const std::shared_ptr<Gang> gang, Admit(member));
  const auto missing = [&] {
    return std::find_if(keys.begin(), keys.end(), [&](const std::string& key) {
      return !gang->values.contains(key);
    });
  };
  const auto done = [&] {
    return !gang->closed.empty() || missing() == keys.end();
  };
  const bool in_time = mu_.AwaitWithDeadline(absl::Condition(&done), deadline);
  if (!gang->closed.empty()) {
    return Closed(member, gang->closed);
  }
  if (!in_time) {
    return MakeError(
        absl::StatusCode::kDeadlineExceeded,
        absl::StrCat("rank ", member.rank, " of ",
                     ResourceName(member.deployment),
                     " waited in vain for another rank to set a key, got: \"",
                     *missing(), "\""),
        {.reason = "RENDEZVOUS_TIMEOUT"});
  }
  std::vector<std::string> values;
  for (const std::string& key : keys) {
    values.push_back(gang->values.at(key));
  }
  return values;
}

absl::StatusOr<int64_t> Rendezvous::Add(const RendezvousMember& member,
                                        const std::string& key,
                                        int64_t amount) {
  absl::MutexLock lock(&mu_);
  SP_ASSIGN_OR_RETURN(const std::shared_ptr<Gang> gang, Admit(member));
  int64_t value = 0;
  const auto it = gang->values.find(key);
  if (it != gang->values.end() && !absl::SimpleAtoi(it->second, &value)) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        absl::StrCat("key: expected one that holds a number, "
                     "got: \"",
                     key, "\""),
        {.reason = "NOT_A_NUMBER", .metadata = {{"field", "key"}}});
  }
  // Wraps as unsigned numbers do: a stranger's amount must not overflow.
  value = static_cast<int64_t>(static_cast<uint64_t>(value) +
                               static_cast<uint64_t>(amount));
  SP_RETURN_IF_ERROR(Put(*gang, key, absl::StrCat(value)));
  return value;
}

absl::StatusOr<std::string> Rendezvous::CompareSet(
    const RendezvousMember& member, const std::string& key,
    const std::string& expected, const std::string& desired) {
  absl::MutexLock lock(&mu_);
  SP_ASSIGN_OR_RETURN(const std::shared_ptr<Gang> gang, Admit(member));
  const auto it = gang->values.find(key);
  const bool missing = it == gang->values.end();
  if (missing ? expected.empty() : it->second == expected) {
    SP_RETURN_IF_ERROR(Put(*gang, key, desired));
    return desired;
  }
  return missing ? expected : it->second;
}

absl::StatusOr<Rendezvous::Found> Rendezvous::Delete(
    const RendezvousMember& member, const std::string& key) {
  absl::MutexLock lock(&mu_);
  SP_ASSIGN_OR_RETURN(const std::shared_ptr<Gang> gang, Admit(member));
  const auto it = gang->values.find(key);
  const bool found = it != gang->values.end();
  if (found) {
    gang->bytes -= key.size() + it->second.size();
    gang->values.erase(it);
  }
  return Found{found, static_cast<int64_t>(gang->values.size())};
}

absl::StatusOr<Rendezvous::Found> Rendezvous::Check(
    const RendezvousMember& member, absl::Span<const std::string> keys) {
  absl::MutexLock lock(&mu_);
  SP_ASSIGN_OR_RETURN(const std::shared_ptr<Gang> gang, Admit(member));
  const bool found = std::all_of(
      keys.begin(), keys.end(),
      [&](const std::string& key) { return gang->values.contains(key); });
  return Found{found, static_cast<int64_t>(gang->values.size())};
}

}  // namespace shardplane
