#include "coordinator/gang.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {
namespace {

// The process is not there: gRPC's own word, without a worker's ErrorInfo.
bool IsConnectionLost(const absl::Status& status) {
  return absl::IsUnavailable(status) && !GetErrorInfo(status).has_value();
}

// Errors after which collectives cannot go on.
bool BreaksGang(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsCancelled(status) || absl::IsAborted(status);
}

// The rank did well; it was told of another that did not.
bool IsPeersFault(const absl::Status& status) {
  if (!absl::IsFailedPrecondition(status)) return false;
  const std::optional<ErrorInfo> info = GetErrorInfo(status);
  return info.has_value() && info->reason == "PEER_FAILED";
}

// The smaller, the likelier the cause of what others report.
int Blame(const absl::Status& status) {
  return IsConnectionLost(status) ? 0
         : IsPeersFault(status)   ? 3
         : BreaksGang(status)     ? 2
                                  : 1;
}

absl::Status InRank(const absl::Status& status, const Gang::Member& member,
                    int rank) {
  ErrorInfo info = GetErrorInfo(status).value_or(
      ErrorInfo{.reason = IsConnectionLost(status) ? "WORKER_LOST"
                          : absl::IsDeadlineExceeded(status)
                              ? "WORKER_TIMEOUT"
                              : absl::StatusCodeToString(status.code()),
                .metadata = {}});
  info.metadata["worker"] = ResourceName(member.worker);
  info.metadata["rank"] = absl::StrCat(rank);
  return MakeError(
      status.code(),
      absl::StrCat("worker ", member.worker.value, " (rank ", rank, ")",
                   IsConnectionLost(status) ? " is gone: " : ": ",
                   status.message()),
      info);
}

}  // namespace

Gang::Gang(DeploymentId deployment, GangEpoch epoch,
           std::vector<Member> members, Options options)
    : deployment_(std::move(deployment)),
      epoch_(epoch),
      members_(std::move(members)),
      options_(options),
      gone_(members_.size()) {}

GangRef Gang::RefOf(int rank, const std::string& request_id) const {
  return {deployment_, epoch_, members_[rank].incarnation, request_id};
}

absl::Status Gang::Broken() const {
  absl::MutexLock lock(&mu_);
  return broken_.empty()
             ? absl::OkStatus()
             : MakeError(absl::StatusCode::kUnavailable, broken_,
                         {.reason = "GANG_ENDED",
                          .metadata = {{"resource", ResourceName(deployment_)},
                                       {"retry_ms", "1000"}}});
}

void Gang::Break(const std::string& reason) {
  {
    absl::MutexLock lock(&mu_);
    if (broken_.empty()) {
      broken_ = reason;
    }
  }
  streams_.Cancel();
}

void Gang::Forget(int rank) {
  absl::MutexLock lock(&mu_);
  gone_[rank] = true;
}

// Whether a rank that is still there has not come back.
bool Gang::Waits(const FanOut& fan_out) const {
  for (int rank = 0; rank < size(); ++rank) {
    if (!fan_out.done[rank] && !gone_[rank]) {
      return true;
    }
  }
  return false;
}

void Gang::Start(FanOut& fan_out, const CallSpec& spec, const RankCall& call) {
  fan_out.statuses.resize(members_.size());
  fan_out.done.resize(members_.size());
  fan_out.pending = size();
  const CallOptions options{spec.timeout, &fan_out.cancellation,
                            spec.traceparent};
  for (int rank = 0; rank < size(); ++rank) {
    call(rank, *members_[rank].client, RefOf(rank, spec.request_id), options,
         [this, &fan_out, rank](absl::Status status) {
           absl::MutexLock lock(&mu_);
           fan_out.failed |= !status.ok();
           fan_out.statuses[rank] = std::move(status);
           fan_out.done[rank] = true;
           --fan_out.pending;
         });
  }
}

bool Gang::AwaitByThemselves(FanOut& fan_out) {
  absl::MutexLock lock(&mu_);
  const auto done = [&fan_out] { return fan_out.pending == 0; };
  const auto trouble = [this, &fan_out]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return fan_out.pending == 0 || fan_out.failed || !broken_.empty();
  };
  mu_.Await(absl::Condition(&trouble));
  // A worker that is gone cannot be waited for, and neither can its peers.
  const bool lost =
      !broken_.empty() || std::any_of(fan_out.statuses.begin(),
                                      fan_out.statuses.end(), IsConnectionLost);
  return mu_.AwaitWithTimeout(absl::Condition(&done),
                              lost ? absl::ZeroDuration() : options_.grace);
}

void Gang::AbortOthers(FanOut& fan_out) {
  std::vector<int> running;
  std::string reason = "another rank has failed";
  int aborts = 0;
  {
    absl::MutexLock lock(&mu_);
    for (int rank = 0; rank < size(); ++rank) {
      if (!fan_out.done[rank]) {
        running.push_back(rank);
      } else if (!fan_out.statuses[rank].ok()) {
        reason = absl::StrCat(
            "rank ", rank, " has failed: ", fan_out.statuses[rank].message());
      }
    }
    reason = broken_.empty() ? reason : broken_;
    // Of several calls under way the first one's Abort ends them all.
    if (aborted_) {
      running.clear();
    }
    aborted_ |= !running.empty();
    aborts = static_cast<int>(running.size());
  }
  for (const int rank : running) {
    members_[rank].client->Abort(
        RefOf(rank, ""), reason,
        {options_.abort_timeout, &fan_out.cancellation},
        [this, &aborts](const absl::Status&) {
          absl::MutexLock lock(&mu_);
          --aborts;
        });
  }
  const auto done = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return !Waits(fan_out);
  };
  const auto all_done = [&] { return fan_out.pending == 0 && aborts == 0; };
  {
    absl::MutexLock lock(&mu_);
    mu_.AwaitWithTimeout(absl::Condition(&done), options_.abort_timeout);
  }
  fan_out.cancellation.Cancel();
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(&all_done));
}

std::unique_ptr<Gang::FanOut> Gang::Begin(const CallSpec& spec,
                                          const RankCall& call) {
  auto fan_out = std::make_unique<FanOut>();
  fan_out->refused = Broken();
  if (fan_out->refused.ok()) {
    Start(*fan_out, spec, call);
  }
  return fan_out;
}

bool Gang::IsOver(const FanOut& fan_out) const {
  absl::MutexLock lock(&mu_);
  return fan_out.pending == 0;
}

std::optional<CallFailure> Gang::Finish(std::unique_ptr<FanOut> fan_out) {
  if (!fan_out->refused.ok()) {
    return CallFailure{.status = fan_out->refused,
                       .health = GangHealth::kBroken,
                       .ended = true};
  }
  const bool by_themselves = AwaitByThemselves(*fan_out);
  if (!by_themselves) {
    AbortOthers(*fan_out);
  }
  std::vector<int> ranks(members_.size());
  std::iota(ranks.begin(), ranks.end(), 0);
  std::optional<CallFailure> failure = Judge(ranks, fan_out->statuses);
  if (failure.has_value() && !by_themselves) {
    failure->health = GangHealth::kBroken;
    failure->ended = true;
  }
  return failure;
}

void Gang::TryAll(const CallSpec& spec, const RankCall& call) {
  std::vector<bool> gone;
  {
    absl::MutexLock lock(&mu_);
    gone = gone_;
  }
  FanOut fan_out;
  Start(fan_out, spec,
        [&](int rank, WorkerClient& client, const GangRef& gang,
            const CallOptions& options, WorkerClient::Done done) {
          gone[rank] ? done(absl::OkStatus())
                     : call(rank, client, gang, options, std::move(done));
        });
  const auto done = [&fan_out] { return fan_out.pending == 0; };
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(&done));
}

void Gang::Ask(absl::Duration timeout, const Question& question) {
  std::vector<bool> gone;
  {
    absl::MutexLock lock(&mu_);
    gone = gone_;
  }
  for (int rank = 0; rank < size(); ++rank) {
    if (!gone[rank]) {
      question(rank, *members_[rank].client, RefOf(rank, ""),
               {.timeout = timeout});
    }
  }
}

std::optional<CallFailure> Gang::Read(const CallSpec& spec,
                                      absl::Span<const int> ranks,
                                      const TensorKey& key,
                                      std::vector<LocalTensor>* tensors) {
  if (absl::Status broken = Broken(); !broken.ok()) {
    return CallFailure{.status = broken, .health = GangHealth::kBroken};
  }
  // All are started before the first is drained.
  std::vector<std::unique_ptr<TensorFlow>> flows;
  for (const int rank : ranks) {
    flows.push_back(members_[rank].client->ReadTensor(
        RefOf(rank, spec.request_id), key, {spec.timeout, &streams_}));
  }
  std::vector<absl::Status> statuses;
  for (const auto& flow : flows) {
    absl::StatusOr<LocalTensor> tensor = flow->Finish();
    statuses.push_back(tensor.status());
    if (tensor.ok()) {
      tensors->push_back(*std::move(tensor));
    }
  }
  return Judge(ranks, statuses);
}

std::vector<std::unique_ptr<TensorSink>> Gang::Stage(
    const CallSpec& spec, absl::Span<const int> ranks, const std::string& key,
    const TensorType& type) {
  std::vector<std::unique_ptr<TensorSink>> sinks;
  for (const int rank : ranks) {
    sinks.push_back(members_[rank].client->StageTensor(
        RefOf(rank, spec.request_id), key, type, {spec.timeout, &streams_}));
  }
  return sinks;
}

std::optional<CallFailure> Gang::Judge(
    absl::Span<const int> ranks, absl::Span<const absl::Status> statuses) {
  CallFailure failure;
  const absl::Status* culprit = nullptr;
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (statuses[i].ok()) {
      ++failure.succeeded;
      continue;
    }
    if (IsConnectionLost(statuses[i])) {
      failure.lost.push_back(ranks[i]);
    }
    if (BreaksGang(statuses[i])) {
      failure.health = GangHealth::kBroken;
    }
    if (culprit == nullptr || Blame(statuses[i]) < Blame(*culprit)) {
      culprit = &statuses[i];
      failure.rank = ranks[i];
    }
  }
  if (culprit == nullptr) {
    return std::nullopt;
  }
  const absl::Status broken = Broken();
  failure.status = failure.lost.empty() && !broken.ok()
                       ? broken
                       : InRank(*culprit, members_[failure.rank], failure.rank);
  return failure;
}

}  // namespace shardplane
