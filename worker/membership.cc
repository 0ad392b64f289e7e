#include "worker/membership.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "proto/grpc_status.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

constexpr absl::Duration kMinRetry = absl::Milliseconds(100);
constexpr absl::Duration kMaxRetry = absl::Seconds(2);
constexpr absl::Duration kMinLease = absl::Milliseconds(50);

void SetDeadline(grpc::ClientContext& context, absl::Duration timeout) {
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
}

// What trying again does not mend.
bool IsFinal(const absl::Status& status, bool renewing) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return true;
    case absl::StatusCode::kAborted:
      // At registration, an older process of the same name may still hold its
      // lease; later, a newer one has taken the name.
      return renewing;
    default:
      return false;
  }
}

}  // namespace

absl::Duration Membership::RenewAfter(absl::Duration lease, double uniform) {
  return std::max(lease, kMinLease) / 3 * (0.8 + 0.4 * uniform);
}

absl::Duration Membership::RetryAfter(int failures, double uniform) {
  absl::Duration ceiling = kMinRetry;
  for (int i = 1; i < failures && ceiling < kMaxRetry; ++i) ceiling *= 2;
  return std::min(ceiling, kMaxRetry) * uniform;
}

std::unique_ptr<Membership> Membership::Start(Options options) {
  return std::unique_ptr<Membership>(new Membership(std::move(options)));
}

Membership::Membership(Options options)
    : options_(std::move(options)),
      stub_(pb::WorkerRegistry::NewStub(options_.channel)),
      random_(options_.random_seed),
      thread_([this] { Loop(); }) {}

Membership::~Membership() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

absl::Status Membership::State() const {
  absl::MutexLock lock(&mutex_);
  return state_;
}

absl::Status Membership::WaitRegistered(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const auto decided = [this] {
    mutex_.AssertHeld();
    return state_.ok() || refused_;
  };
  if (mutex_.AwaitWithTimeout(absl::Condition(&decided), timeout)) {
    return state_;
  }
  return absl::DeadlineExceededError(absl::StrCat(
      "expected to be registered within ", absl::FormatDuration(timeout),
      ", got: ", state_.ToString()));
}

void Membership::Drain() {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
  hurry_ = true;
}

absl::Status Membership::Retire() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
  return Renew(/*retired=*/true);
}

void Membership::Loop() {
  while (true) {
    const absl::Duration wait = Exchange();
    absl::MutexLock lock(&mutex_);
    const auto woken = [this] {
      mutex_.AssertHeld();
      return stopping_ || hurry_;
    };
    mutex_.AwaitWithTimeout(absl::Condition(&woken), wait);
    if (stopping_ || refused_) return;
    hurry_ = false;
  }
}

absl::Duration Membership::Exchange() {
  bool registered;
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return absl::ZeroDuration();
    registered = state_.ok();
  }
  absl::Status status = registered ? Renew(/*retired=*/false) : Register();
  if (registered && absl::IsNotFound(status)) {
    Log("the coordinator does not know this worker: registering again");
    registered = false;
    status = Register();
  }
  if (!status.ok()) return Fail(status, registered);
  failures_ = 0;
  absl::MutexLock lock(&mutex_);
  if (!state_.ok()) Log("registered");
  state_ = absl::OkStatus();
  return RenewAfter(lease_, Uniform());
}

absl::Duration Membership::Fail(const absl::Status& status, bool renewing) {
  ++failures_;
  if (failures_ == 1) Log(absl::StrCat("lease: ", status.ToString()));
  const bool final = IsFinal(status, renewing);
  {
    absl::MutexLock lock(&mutex_);
    // One renewal that fails is no lost lease: the next one comes in time.
    if (!renewing || failures_ >= 3 || final) state_ = status;
    refused_ = final;
  }
  if (final && options_.on_refused) options_.on_refused(status);
  return RetryAfter(failures_, Uniform());
}

absl::Status Membership::Register() {
  pb::RegisterWorkerRequest request;
  request.set_worker_id(options_.worker_id);
  request.set_incarnation(options_.incarnation);
  request.set_address(options_.address);
  request.set_http_address(options_.http_address);
  request.set_device(options_.device);
  request.set_request_id(Uuid());
  pb::RegisterWorkerResponse response;
  grpc::ClientContext context;
  SetDeadline(context, absl::Seconds(5));
  const grpc::Status status =
      stub_->RegisterWorker(&context, request, &response);
  if (!status.ok()) return FromGrpcStatus(status);
  absl::MutexLock lock(&mutex_);
  lease_ = absl::Milliseconds(response.lease_ms());
  return absl::OkStatus();
}

absl::Status Membership::Renew(bool retired) {
  pb::RenewLeaseRequest request;
  request.set_worker_id(options_.worker_id);
  request.set_incarnation(options_.incarnation);
  request.set_retired(retired);
  absl::Duration timeout;
  {
    absl::MutexLock lock(&mutex_);
    request.set_draining(draining_);
    timeout = std::max(lease_ / 3, absl::Milliseconds(500));
  }
  pb::RenewLeaseResponse response;
  grpc::ClientContext context;
  SetDeadline(context, timeout);
  const grpc::Status status = stub_->RenewLease(&context, request, &response);
  if (!status.ok()) return FromGrpcStatus(status);
  absl::MutexLock lock(&mutex_);
  if (response.lease_ms() > 0) {
    lease_ = absl::Milliseconds(response.lease_ms());
  }
  return absl::OkStatus();
}

// A UUID4. Each try has its own: registering twice does no harm, and the answer
// to an earlier try says nothing about a coordinator that has forgotten us.
std::string Membership::Uuid() {
  const uint64_t high = (uint64_t{random_()} << 32 | random_());
  const uint64_t low = (uint64_t{random_()} << 32 | random_());
  return absl::StrFormat("%08x-%04x-4%03x-%04x-%012x", high >> 32,
                         high >> 16 & 0xffff, high & 0xfff,
                         0x8000 | (low >> 48 & 0x3fff), low & 0xffffffffffff);
}

double Membership::Uniform() {
  return std::uniform_real_distribution<double>(0, 1)(random_);
}

void Membership::Log(absl::string_view text) const {
  if (options_.log) options_.log(text);
}

}  // namespace shardplane
