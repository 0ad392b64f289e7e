#include "coordinator/train_session.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/errors.h"
#include "coordinator/messages.h"
#include "coordinator/service_calls.h"
#include "proto/convert/field_path.h"
#include "proto/grpc_status.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

absl::Status ShuttingDown() {
  return MakeError(
      absl::StatusCode::kUnavailable, "the coordinator shuts down",
      {.reason = "SHUTTING_DOWN", .metadata = {{"retry_ms", "1000"}}});
}

absl::Status CheckStep(const pb::StepRequest& request,
                       const std::string& deployment) {
  if (!request.has_train()) {
    return InvalidField("action", "expected train, got: another or none");
  }
  if (request.deployment() != deployment) {
    return InvalidField(
        "deployment", absl::StrCat("expected the first step's, \"", deployment,
                                   "\", got: \"", request.deployment(), "\""));
  }
  return absl::OkStatus();
}

}  // namespace

std::shared_ptr<TrainSession> TrainSession::Start(
    Coordinator* coordinator, StreamWatch* streams,
    grpc::CallbackServerContext* context) {
  const std::shared_ptr<TrainSession> session(
      new TrainSession(coordinator, streams, context));
  session->self_ = session;
  TrainSession* const raw = session.get();
  raw->StartRead(&raw->reading_);
  raw->beginner_ = std::thread([raw] { raw->BeginSteps(); });
  raw->finisher_ = std::thread([raw] { raw->FinishSteps(); });
  return session;
}

TrainSession::TrainSession(Coordinator* coordinator, StreamWatch* streams,
                           grpc::CallbackServerContext* context)
    : coordinator_(coordinator), traceparent_(TraceparentOf(*context)) {
  watched_.emplace(streams, [context] { context->TryCancel(); });
}

TrainSession::~TrainSession() = default;

void TrainSession::End() {
  absl::MutexLock lock(&mu_);
  ending_ = true;
}

bool TrainSession::over() const {
  absl::MutexLock lock(&mu_);
  return over_;
}

void TrainSession::Join() {
  beginner_.join();
  finisher_.join();
}

void TrainSession::OnReadDone(bool ok) {
  absl::MutexLock lock(&mu_);
  if (!ok) {
    read_all_ = true;
    return;
  }
  request_ = std::move(reading_);
  reading_.Clear();
  if (watched_.has_value()) {
    watched_->Touch();
  }
}

void TrainSession::OnCancel() {
  absl::MutexLock lock(&mu_);
  gone_ = true;
}

void TrainSession::OnDone() { self_.reset(); }

void TrainSession::BeginSteps() {
  bool more = true;
  while (more) {
    std::optional<pb::TrainRequest> request = NextRequest();
    more = request.has_value();
    for (int i = 0; more && i < request->steps_size(); ++i) {
      more = Begin(std::move(*request->mutable_steps(i)));
    }
  }
  absl::MutexLock lock(&mu_);
  begun_all_ = true;
}

bool TrainSession::Begin(pb::StepRequest request) {
  {
    // Not after: a step may wait for its turn, and its client does so too.
    absl::MutexLock lock(&mu_);
    if (++open_ == 1) {
      watched_->SetBusy(true);
    }
  }
  Begun begun{request.step(), BeginStep(std::move(request))};
  const bool ok = begun.step.ok();
  absl::MutexLock lock(&mu_);
  if (!ok && (gone_ || ending_)) {
    CloseOne();  // it was given up, or as good as
    return false;
  }
  begun_.push_back(std::move(begun));
  return ok;
}

void TrainSession::CloseOne() {
  if (--open_ == 0) {
    watched_->SetBusy(false);
  }
}

std::optional<pb::TrainRequest> TrainSession::NextRequest() {
  std::optional<pb::TrainRequest> request;
  {
    absl::MutexLock lock(&mu_);
    const auto ready = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return Stopping() || read_all_ || request_.has_value();
    };
    mu_.Await(absl::Condition(&ready));
    if (Stopping() || !request_.has_value()) {
      return std::nullopt;
    }
    request = std::exchange(request_, std::nullopt);
    if (read_all_) {
      return request;
    }
  }
  StartRead(&reading_);  // the next, while this one's steps begin
  return request;
}

absl::StatusOr<std::unique_ptr<TrainUnderWay>> TrainSession::BeginStep(
    pb::StepRequest request) {
  if (deployment_.empty()) {
    deployment_ = request.deployment();
  }
  SP_RETURN_IF_ERROR(CheckStep(request, deployment_));
  std::string digest = DigestOf(request);
  SP_ASSIGN_OR_RETURN(StepCall call,
                      StepCallFromProto(std::move(request), std::move(digest)));
  call.traceparent = traceparent_;
  return coordinator_->BeginTrain(
      std::move(call),
      {.deadline = absl::Now() + kLongestWait, .cancelled = [this] {
         absl::MutexLock lock(&mu_);
         return Stopping();
       }});
}

void TrainSession::FinishSteps() {
  while (std::optional<Begun> begun = NextBegun()) {
    Deliver(begun->number, Finished(*begun));
  }
  Close();
}

absl::StatusOr<pb::StepResult> TrainSession::Finished(Begun& begun) {
  SP_RETURN_IF_ERROR(begun.step.status());
  const DeploymentId deployment = (*begun.step)->deployment->id;
  SP_ASSIGN_OR_RETURN(const StepAnswer answer,
                      coordinator_->FinishTrain(*std::move(begun.step)));
  return ToProto(deployment, answer);
}

std::optional<TrainSession::Begun> TrainSession::NextBegun() {
  absl::MutexLock lock(&mu_);
  const auto ready = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return begun_all_ || !begun_.empty();
  };
  mu_.Await(absl::Condition(&ready));
  if (begun_.empty()) {
    return std::nullopt;
  }
  Begun begun = std::move(begun_.front());
  begun_.pop_front();
  return begun;
}

void TrainSession::Deliver(uint64_t number,
                           absl::StatusOr<pb::StepResult> result) {
  bool write = false;
  {
    absl::MutexLock lock(&mu_);
    CloseOne();
    if (!status_.ok()) {
      return;  // it was behind one that has failed
    }
    if (!result.ok()) {
      status_ = WithMetadata(result.status(), "step", absl::StrCat(number));
      return;
    }
    *collected_.add_steps() = *std::move(result);
    // A message costs more than a result: those that are there go together.
    write = (!NextIsOver() || collected_.steps_size() >= kTogether) &&
            TakeMessage();
  }
  if (write) {
    StartWrite(&message_);
  }
}

bool TrainSession::NextIsOver() const {
  return !begun_.empty() && begun_.front().step.ok() &&
         Coordinator::IsOver(**begun_.front().step);
}

bool TrainSession::TakeMessage() {
  if (writing_ || gone_ || collected_.steps_size() == 0) {
    return false;
  }
  message_.Clear();
  message_.Swap(&collected_);
  writing_ = true;
  return true;
}

void TrainSession::OnWriteDone(bool ok) {
  bool write = false;
  {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    gone_ |= !ok;
    write = TakeMessage();
  }
  if (write) {
    StartWrite(&message_);
  }
}

// Waits for the message that is on its way; true: another was begun.
bool TrainSession::WriteMore() {
  {
    absl::MutexLock lock(&mu_);
    const auto written = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return !writing_;
    };
    mu_.Await(absl::Condition(&written));
    if (!TakeMessage()) {
      return false;
    }
  }
  StartWrite(&message_);
  return true;
}

void TrainSession::Close() {
  while (WriteMore()) {
  }
  absl::Status status;
  {
    absl::MutexLock lock(&mu_);
    const bool cut_short = !read_all_ || request_.has_value();
    status = gone_           ? absl::CancelledError("the client has gone")
             : !status_.ok() ? status_
             : ending_ && cut_short ? ShuttingDown()
                                    : absl::OkStatus();
    // From now on `context` may go.
    watched_.reset();
  }
  Finish(ToGrpcStatus(status));
  absl::MutexLock lock(&mu_);
  over_ = true;
}

TrainSession* TrainSessions::Start(grpc::CallbackServerContext* context) {
  const std::shared_ptr<TrainSession> session =
      TrainSession::Start(coordinator_, streams_, context);
  std::vector<std::shared_ptr<TrainSession>> over;
  bool ending = false;
  {
    absl::MutexLock lock(&mu_);
    for (auto it = sessions_.begin(); it != sessions_.end();) {
      const auto next = std::next(it);
      if ((*it)->over()) {
        over.push_back(std::move(*it));
        sessions_.erase(it);
      }
      it = next;
    }
    sessions_.push_back(session);
    ending = ending_;
  }
  if (ending) {
    session->End();
  }
  for (const std::shared_ptr<TrainSession>& each : over) {
    each->Join();
  }
  return session.get();  // which owns itself
}

void TrainSessions::End() {
  std::list<std::shared_ptr<TrainSession>> sessions;
  {
    absl::MutexLock lock(&mu_);
    ending_ = true;
    sessions = sessions_;
  }
  for (const std::shared_ptr<TrainSession>& session : sessions) {
    session->End();
  }
}

TrainSessions::~TrainSessions() {
  absl::MutexLock lock(&mu_);
  for (const std::shared_ptr<TrainSession>& session : sessions_) {
    session->Join();
  }
}

}  // namespace shardplane
