#include "worker/shm/shm_work.h"

#include <exception>
#include <string>

#include "c10/util/Exception.h"
#include "common/errors.h"

namespace shardplane {

absl::StatusOr<ShmChannel::Ticket> SharedShmChannel::Start(ShmCall call) {
  absl::MutexLock lock(&mutex_);
  absl::StatusOr<ShmChannel::Ticket> ticket =
      channel_->Start(std::move(call.transfer));
  if (ticket.ok())
    kept_.push_back({*ticket, std::move(call.inputs), std::move(call.outputs)});
  return ticket;
}

absl::Status SharedShmChannel::Run(ShmTransfer transfer,
                                   std::chrono::milliseconds timeout) {
  absl::MutexLock lock(&mutex_);
  SP_ASSIGN_OR_RETURN(const ShmChannel::Ticket ticket,
                      channel_->Start(std::move(transfer)));
  absl::Status status = channel_->Wait(ticket, timeout);
  if (status.ok()) ReleaseUpTo(ticket);
  return status;
}

absl::Status SharedShmChannel::Wait(ShmChannel::Ticket ticket,
                                    std::chrono::milliseconds timeout) {
  absl::MutexLock lock(&mutex_);
  absl::Status status = channel_->Wait(ticket, timeout);
  if (status.ok()) ReleaseUpTo(ticket);
  return status;
}

absl::StatusOr<bool> SharedShmChannel::Test(ShmChannel::Ticket ticket) {
  absl::MutexLock lock(&mutex_);
  absl::StatusOr<bool> done = channel_->Test(ticket);
  if (done.ok() && *done) ReleaseUpTo(ticket);
  return done;
}

void SharedShmChannel::ReleaseUpTo(ShmChannel::Ticket ticket) {
  while (!kept_.empty() && kept_.front().ticket <= ticket) kept_.pop_front();
}

ShmWork::ShmWork(int rank, c10d::OpType op,
                 std::shared_ptr<SharedShmChannel> channel,
                 ShmChannel::Ticket ticket, ShmTensors outputs,
                 std::chrono::milliseconds timeout)
    : c10d::Work(rank, op),
      channel_(std::move(channel)),
      ticket_(ticket),
      outputs_(std::move(outputs)),
      timeout_(timeout) {}

bool ShmWork::Completed() { return c10d::Work::isCompleted(); }

bool ShmWork::isCompleted() {
  if (Completed()) return true;
  const absl::StatusOr<bool> done = channel_->Test(ticket_);
  if (done.ok()) {
    if (*done) finish();
    return *done;
  }
  try {
    ThrowShmError(done.status());
  } catch (...) {
    finish(std::current_exception());
  }
  return true;
}

bool ShmWork::wait(std::chrono::milliseconds timeout) {
  if (Completed()) {
    if (!isSuccess()) std::rethrow_exception(exception());
    return true;
  }
  const absl::Status status =
      channel_->Wait(ticket_, timeout == kNoTimeout ? timeout_ : timeout);
  if (status.ok()) {
    finish();
    return true;
  }
  try {
    ThrowShmError(status);
  } catch (...) {
    finishAndThrow(std::current_exception());
  }
  return false;
}

void ThrowShmError(const absl::Status& status) {
  const std::string message(status.message());
  if (absl::IsInvalidArgument(status)) C10_THROW_ERROR(ValueError, message);
  C10_THROW_ERROR(DistBackendError, message);
}

}  // namespace shardplane
