#include "worker/gang_fence.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/errors.h"

namespace shardplane {
namespace {

absl::Status Stale(absl::string_view reason, absl::string_view what,
                   absl::string_view expected, absl::string_view got) {
  return MakeError(
      absl::StatusCode::kAborted,
      absl::StrCat("expected ", what, " ", expected, ", got: ", got),
      {.reason = std::string(reason),
       .metadata = {{"expected", std::string(expected)}}});
}

}  // namespace

absl::Status GangFence::CheckNotOlder(const GangCall& call) const {
  if (call.incarnation != incarnation_) {
    return Stale("STALE_INCARNATION", "a call for incarnation",
                 absl::StrCat(incarnation_), absl::StrCat(call.incarnation));
  }
  if (call.epoch < epoch_) {
    return Stale("STALE_EPOCH", "a call of epoch", absl::StrCat(epoch_),
                 absl::StrCat(call.epoch));
  }
  if (call.epoch == epoch_ && epoch_ > 0 && call.deployment != deployment_) {
    return Stale("STALE_EPOCH", "a call of deployment", deployment_,
                 call.deployment);
  }
  return absl::OkStatus();
}

absl::Status GangFence::Check(const GangCall& call) const {
  SP_RETURN_IF_ERROR(CheckNotOlder(call));
  if (in_gang_ && call.epoch == epoch_) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      absl::StrCat("expected a worker in the gang of ", call.deployment,
                   " with epoch ", call.epoch, ", got: ",
                   in_gang_ ? absl::StrCat("one in epoch ", epoch_)
                            : std::string("one in no gang")),
      {.reason = "NOT_IN_GANG", .metadata = {}});
}

absl::Status GangFence::CheckJoin(const GangCall& call, Join* join) const {
  SP_RETURN_IF_ERROR(CheckNotOlder(call));
  if (call.epoch == 0) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        "gang.epoch: expected one above 0, got: 0",
        {.reason = "FIELD_INVALID", .metadata = {{"field", "gang.epoch"}}});
  }
  if (call.epoch == epoch_ && !in_gang_) {
    return Stale("STALE_EPOCH", "an epoch above", absl::StrCat(epoch_),
                 absl::StrCat(call.epoch, ", which this worker has left"));
  }
  *join = call.epoch == epoch_ ? Join::kAgain : Join::kNew;
  return absl::OkStatus();
}

void GangFence::Enter(const GangCall& call) {
  epoch_ = call.epoch;
  deployment_ = call.deployment;
  in_gang_ = true;
}

absl::Status GangFence::CheckLeave(const GangCall& call) const {
  return CheckNotOlder(call);
}

absl::Status GangFence::CheckAbort(const GangCall& call) const {
  return CheckNotOlder(call);
}

}  // namespace shardplane
