#include "worker/gang_worker.h"

#include <chrono>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/errors.h"

namespace shardplane {
namespace {

absl::Status OutOfTurn(uint64_t committed, uint64_t got) {
  return MakeError(
      absl::StatusCode::kAborted,
      absl::StrCat("expected a step after ", committed, ", got: ", got),
      {.reason = "STEP_OUT_OF_TURN",
       .metadata = {{"expected", absl::StrCat(committed + 1)}}});
}

absl::Status CollectivesDiffer(uint64_t expected, uint64_t got) {
  const std::string expected_hex = absl::StrCat(absl::Hex(expected));
  return MakeError(
      absl::StatusCode::kInternal,
      absl::StrCat("collectives that ran: expected hash ", expected_hex,
                   ", as the program says, got: ", absl::Hex(got)),
      {.reason = "COLLECTIVES_DIFFER",
       .metadata = {{"expected", expected_hex}}});
}

absl::Status PeerFailed(uint64_t step) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      absl::StrCat("step ", step,
                   ": expected all ranks to run it and to commit it; got: "
                   "another rank that cannot"),
      {.reason = "PEER_FAILED", .metadata = {}});
}

using Clock = std::chrono::steady_clock;

int64_t NanosOf(std::chrono::nanoseconds duration) { return duration.count(); }

int64_t UnixNanos() { return absl::ToUnixNanos(absl::Now()); }

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

GangWorker::GangWorker(uint64_t incarnation, Executor* executor,
                       Metrics* metrics, const NvtxDomain* nvtx,
                       StepProfiler* profiler)
    : executor_(executor),
      metrics_(metrics),
      nvtx_(nvtx),
      profiler_(profiler),
      fence_(incarnation) {
  if (metrics_ == nullptr) return;
  // Rates know nothing of a series' first value: they are there from now on.
  for (const char* result : {"ok", "failed"}) {
    metrics_->Add(Counter::kSteps, {"train", result}, 0);
  }
}

absl::Status GangWorker::Check(const GangCall& call) const {
  absl::MutexLock lock(&mutex_);
  return fence_.Check(call);
}

absl::Status GangWorker::CheckInTurn(const GangCall& call) const {
  SP_RETURN_IF_ERROR(Check(call));
  return joined_.value_or(absl::OkStatus());
}

template <typename Function>
std::invoke_result_t<Function> GangWorker::InTurn(const GangCall& call,
                                                  Function function) {
  SP_RETURN_IF_ERROR(Check(call));
  return thread_.Call([&]() -> std::invoke_result_t<Function> {
    SP_RETURN_IF_ERROR(CheckInTurn(call));
    return function();
  });
}

template <typename T, typename Function>
absl::StatusOr<T> GangWorker::Once(const GangCall& call, Answer<T>& answer,
                                   Function function) {
  return InTurn(call, [&]() -> absl::StatusOr<T> {
    if (!call.request_id.empty() && call.request_id == answer.request_id) {
      return *answer.result;
    }
    absl::StatusOr<T> result = function();
    answer = {call.request_id, result};
    return result;
  });
}

absl::Status GangWorker::Join(const GangCall& call, const GangSpec& spec,
                              std::shared_ptr<GangStore> store) {
  std::shared_ptr<GangStore> older;
  GangFence::Join join = GangFence::Join::kAgain;
  {
    absl::MutexLock lock(&mutex_);
    SP_RETURN_IF_ERROR(fence_.CheckJoin(call, &join));
    if (draining_) {
      return MakeError(absl::StatusCode::kUnavailable,
                       "expected a worker that takes work, got: one that "
                       "drains",
                       {.reason = "WORKER_DRAINING", .metadata = {}});
    }
    if (join == GangFence::Join::kNew) {
      fence_.Enter(call);
      older = std::exchange(store_, store);
    }
  }
  if (join == GangFence::Join::kNew) {
    executor_->Abort(absl::StrCat("superseded by epoch ", call.epoch));
    if (older != nullptr) older->Cancel();
  }
  return thread_.Call([&]() -> absl::Status {
    SP_RETURN_IF_ERROR(Check(call));
    if (join == GangFence::Join::kNew) {
      last_run_ = {};
      last_materialize_ = {};
      last_step_ = {};
      committed_step_ = 0;
      timelines_.Clear();
      progress_.bytes_done = 0;
      progress_.bytes_total = 0;
      joined_ = executor_->JoinGang(spec, std::move(store));
    }
    return joined_.value_or(absl::OkStatus());
  });
}

absl::Status GangWorker::Leave(const GangCall& call) {
  std::shared_ptr<GangStore> store;
  {
    absl::MutexLock lock(&mutex_);
    SP_RETURN_IF_ERROR(fence_.CheckLeave(call));
    if (!fence_.in_gang()) return absl::OkStatus();
    fence_.Leave();
    store = std::move(store_);
  }
  // What still runs is for a gang that nobody waits for.
  executor_->Abort("the gang was left");
  if (store != nullptr) store->Cancel();
  return thread_.Call([&]() -> absl::Status {
    joined_.reset();
    return executor_->LeaveGang();
  });
}

absl::Status GangWorker::Stage(const GangCall& call, const std::string& key,
                               HostTensor tensor) {
  return InTurn(call, [&] { return executor_->Stage(key, std::move(tensor)); });
}

absl::StatusOr<RanCollectives> GangWorker::Materialize(
    const GangCall& call, const MaterializeSpec& spec) {
  return Once(call, last_materialize_, [&] {
    const Clock::time_point start = Clock::now();
    absl::StatusOr<RanCollectives> ran =
        executor_->Materialize(spec, &progress_);
    if (ran.ok()) CountMaterialize(*ran, SecondsSince(start));
    return ran;
  });
}

absl::Status GangWorker::LoadProgram(const GangCall& call,
                                     const std::string& id,
                                     const ShardedProgram& program) {
  return InTurn(call, [&] { return executor_->LoadProgram(id, program); });
}

absl::StatusOr<RunResult> GangWorker::Run(const GangCall& call, GangRun run) {
  return Once(call, last_run_, [&] { return RunNow(std::move(run)); });
}

absl::StatusOr<RunResult> GangWorker::RunChecked(GangRun& run) {
  for (auto& [key, tensor] : run.inline_inputs) {
    SP_RETURN_IF_ERROR(executor_->Stage(key, std::move(tensor)));
  }
  SP_ASSIGN_OR_RETURN(RunResult result, executor_->Run(run.spec));
  if (result.ran.hash == run.expected_hash) return result;
  executor_->Discard().IgnoreError();
  return CollectivesDiffer(run.expected_hash, result.ran.hash);
}

absl::StatusOr<RunResult> GangWorker::RunNow(GangRun run) {
  if (run.step != 0 && run.step <= committed_step_) {
    return OutOfTurn(committed_step_, run.step);
  }
  const NvtxRange shown(run.step == 0 ? nullptr : nvtx_, "step", run.step);
  absl::StatusOr<RunResult> result = RunChecked(run);
  Count(run, result);
  return result;
}

void GangWorker::Step(GangCall call, absl::StatusOr<GangStep> step,
                      StepDone done) {
  thread_.Post([this, call = std::move(call), step = std::move(step),
                received = UnixNanos(), done = std::move(done)]() mutable {
    done(StepInTurn(call, std::move(step), received));
  });
}

absl::StatusOr<StepOutcome> GangWorker::StepInTurn(
    const GangCall& call, absl::StatusOr<GangStep> step, int64_t received) {
  SP_RETURN_IF_ERROR(CheckInTurn(call));
  SP_RETURN_IF_ERROR(step.status());
  const uint64_t number = step->run.step;
  if (number == last_step_.step && number == committed_step_ &&
      !call.request_id.empty() && call.request_id == last_step_.request_id) {
    return last_step_.outcome;
  }
  if (number != committed_step_ + 1) return OutOfTurn(committed_step_, number);
  SP_ASSIGN_OR_RETURN(StepOutcome outcome, StepNow(*step, received));
  committed_step_ = number;
  last_step_ = {number, call.request_id, outcome};
  return outcome;
}

absl::StatusOr<StepOutcome> GangWorker::StepNow(GangStep& step,
                                                int64_t received) {
  const NvtxRange shown(nvtx_, "step", step.run.step);
  const ProfiledStep profiled(profiler_);
  const bool asked = std::exchange(step.run.spec.timeline, true);
  step.run.spec.timeline_by_operator = asked;
  step.run.spec.keep_products =
      step.commit.optimizer.has_value() && OnlyAdds(*step.commit.optimizer) &&
      !step.run.spec.gradient_norm && !step.run.spec.accumulate;
  absl::StatusOr<RunResult> ran = RunChecked(step.run);
  const Clock::time_point start = Clock::now();
  absl::Status status = Agree(step, ran);
  const Clock::time_point agreed = Clock::now();
  if (status.ok()) {
    status = executor_->Commit(step.commit.optimizer, step.commit.clip_norm);
  }
  if (!status.ok()) {
    if (ran.ok()) executor_->Discard().IgnoreError();
    ran = status;
  }
  Count(step.run, ran);
  SP_RETURN_IF_ERROR(status);
  const double commit_seconds = SecondsSince(start);
  timelines_.Add(
      {.step = step.run.step,
       .program = step.run.spec.program,
       .traceparent = step.run.traceparent,
       .received_unix = received,
       .run = asked ? ran->timeline : std::exchange(ran->timeline, {}),
       .run_nanos = static_cast<int64_t>(ran->seconds * 1e9),
       .agree_nanos = NanosOf(agreed - start),
       .update_nanos = NanosOf(Clock::now() - agreed)});
  if (metrics_ != nullptr) {
    metrics_->Observe(Histogram::kStepDuration, {"commit"},
                      absl::Seconds(commit_seconds));
  }
  return StepOutcome{*std::move(ran), commit_seconds};
}

absl::Status GangWorker::Agree(const GangStep& step,
                               absl::StatusOr<RunResult>& ran) {
  absl::Status mine = ran.status();
  if (mine.ok()) {
    mine = executor_->CheckCommit(step.commit.optimizer, step.commit.clip_norm);
  }
  absl::StatusOr<Agreement> agreement =
      executor_->Agree(mine.ok() ? Verdict::kCommit : Verdict::kDiscard);
  SP_RETURN_IF_ERROR(mine);
  SP_RETURN_IF_ERROR(agreement.status());
  for (CollectiveCount& count : agreement->counts) {
    ran->ran.counts.push_back(std::move(count));
  }
  for (CarriedBytes& carried : agreement->carried) {
    ran->ran.carried.push_back(std::move(carried));
  }
  return agreement->verdict == Verdict::kCommit ? absl::OkStatus()
                                                : PeerFailed(step.run.step);
}

absl::Status GangWorker::Commit(const GangCall& call,
                                const GangCommit& commit) {
  return InTurn(call, [&] { return CommitNow(commit); });
}

absl::Status GangWorker::CommitNow(const GangCommit& commit) {
  if (commit.step != 0 && commit.step <= committed_step_) {
    return absl::OkStatus();
  }
  if (commit.abandon) return executor_->Discard();
  if (commit.load_state.has_value()) {
    SP_RETURN_IF_ERROR(executor_->LoadState(*commit.load_state));
  } else if (commit.reset_optimizer) {
    SP_RETURN_IF_ERROR(executor_->ResetOptimizer());
  } else {
    SP_RETURN_IF_ERROR(executor_->Commit(commit.optimizer, commit.clip_norm));
  }
  committed_step_ = commit.step;
  return absl::OkStatus();
}

absl::StatusOr<ShardedTensor> GangWorker::Read(const GangCall& call,
                                               const TensorKey& key) {
  return InTurn(call, [&] { return executor_->Read(key); });
}

absl::Status GangWorker::Abort(const GangCall& call, absl::string_view reason) {
  std::shared_ptr<GangStore> store;
  {
    absl::MutexLock lock(&mutex_);
    SP_RETURN_IF_ERROR(fence_.CheckAbort(call));
    store = store_;
  }
  executor_->Abort(reason);
  if (store != nullptr) store->Cancel();
  return absl::OkStatus();
}

absl::StatusOr<std::pair<int64_t, int64_t>> GangWorker::Progress(
    const GangCall& call) const {
  SP_RETURN_IF_ERROR(Check(call));
  return std::pair<int64_t, int64_t>(progress_.bytes_done,
                                     progress_.bytes_total);
}

absl::StatusOr<StepTimeline> GangWorker::Timeline(const GangCall& call,
                                                  uint64_t step) const {
  SP_RETURN_IF_ERROR(Check(call));
  return timelines_.Find(step);
}

void GangWorker::Drain() {
  {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
  }
  thread_.Call([] { return true; });
}

void GangWorker::AbortAll(absl::string_view reason) {
  std::shared_ptr<GangStore> store;
  {
    absl::MutexLock lock(&mutex_);
    store = store_;
  }
  executor_->Abort(reason);
  if (store != nullptr) store->Cancel();
}

bool GangWorker::in_gang() const {
  absl::MutexLock lock(&mutex_);
  return fence_.in_gang();
}

void GangWorker::Count(const GangRun& run,
                       const absl::StatusOr<RunResult>& result) {
  if (metrics_ == nullptr) return;
  static constexpr const char* kPhases[] = {"forward", "train", "norm"};
  const char* phase = kPhases[static_cast<int>(run.spec.mode)];
  metrics_->Add(Counter::kSteps, {phase, result.ok() ? "ok" : "failed"});
  if (!result.ok()) return;
  metrics_->Observe(Histogram::kStepDuration, {phase},
                    absl::Seconds(result->seconds));
  Count(result->ran);
  const auto& seconds = result->collective_seconds.by_kind;
  for (size_t kind = 0; kind < seconds.size(); ++kind) {
    if (seconds[kind] == 0) continue;
    metrics_->Observe(Histogram::kCollectiveWait,
                      {ToString(static_cast<RedistributeKind>(kind))},
                      absl::Seconds(seconds[kind]));
  }
}

void GangWorker::Count(const RanCollectives& ran) {
  for (const CollectiveCount& count : ran.counts) {
    metrics_->Add(Counter::kCollectives, {count.kind, count.phase},
                  static_cast<double>(count.count));
  }
  for (const CarriedBytes& carried : ran.carried) {
    metrics_->Add(Counter::kCollectiveBytes,
                  {carried.kind, ToString(carried.transport)},
                  static_cast<double>(carried.bytes));
  }
}

void GangWorker::CountMaterialize(const RanCollectives& ran, double seconds) {
  if (metrics_ == nullptr) return;
  metrics_->Observe(Histogram::kMaterializeDuration, {},
                    absl::Seconds(seconds));
  Count(ran);
  for (const CollectiveCount& count : ran.counts) {
    metrics_->Add(Counter::kMaterializeBytes, {count.kind},
                  static_cast<double>(count.bytes));
  }
  if (const int64_t read = progress_.bytes_read; read > 0) {
    metrics_->Add(Counter::kMaterializeBytes, {"read"},
                  static_cast<double>(read));
  }
}

}  // namespace shardplane
