#include "worker/local_steps.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "google/rpc/status.pb.h"
#include "ipc/link.h"
#include "ipc/step_socket.h"
#include "proto/grpc_status.h"
#include "proto/local_message.h"

namespace shardplane {

class LocalSteps::Stream final : public StepsStream, private Link::Handler {
 public:
  Stream(FileDescriptor socket, GangWorker* worker)
      : StepsStream(worker), link_(std::move(socket)) {}

  // Until the connection ends.
  void Run() {
    Begin();
    // Whichever way it ends: the client is gone.
    (void)link_.Run(*this);
    ReadDone(false);
    over_.Notify();
  }
  void Close() { link_.Close(); }
  const absl::Notification& over() const { return over_; }

 private:
  void Read(v1::StepsRequest* request) override {
    request_ = request;
    link_.ReadOn();
  }
  void Write(const v1::StepsResponse* response) override {
    const Link::Sent sent =
        link_.Send({kStepsTag, response->SerializeAsString()});
    if (sent != Link::Sent::kLater) WriteDone(sent == Link::Sent::kNow);
  }
  // The client closes when it has read this; until then nothing that it sends
  // may lie here unread, or it would lose what it has not read.
  void Finish(const absl::Status& status) override {
    link_.Send({kEndTag, ToRpcStatus(status).SerializeAsString()});
    finished_ = true;
    link_.ReadOn();
  }

  void OnMessage(absl::string_view bytes, absl::string_view rest) override {
    if (finished_) {
      link_.ReadOn();
      return;
    }
    const bool is_steps = absl::ConsumePrefix(&bytes, kStepsTag) &&
                          ParseInTwo(bytes, rest, request_);
    if (!is_steps) {
      End(absl::InternalError("expected steps, got: other bytes"));
    }
    ReadDone(is_steps);
  }
  void OnSent() override {
    if (!finished_) WriteDone(true);
  }

  v1::StepsRequest* request_ = nullptr;  // while it reads
  std::atomic<bool> finished_ = false;
  absl::Notification over_;
  Link link_;
};

absl::StatusOr<std::unique_ptr<LocalSteps>> LocalSteps::Start(
    uint64_t incarnation, GangWorker* worker, OnStream on_stream) {
  absl::StatusOr<LocalListener> listener =
      ListenLocally(StepSocketName(incarnation), /*backlog=*/8);
  if (!listener.ok()) return listener.status();
  FileDescriptor stop(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop.valid()) return absl::UnavailableError("local steps: no eventfd");
  return std::unique_ptr<LocalSteps>(new LocalSteps(
      *std::move(listener), std::move(stop), worker, std::move(on_stream)));
}

LocalSteps::~LocalSteps() {
  StopAccepting();
  for (const Connection& each : connections_) each.stream->Close();
  Join(/*all=*/true);
}

void LocalSteps::StopAccepting() {
  if (!acceptor_.joinable()) return;
  const uint64_t one = 1;
  (void)!write(stop_.get(), &one, sizeof(one));
  acceptor_.join();
}

void LocalSteps::AwaitEnd(absl::Duration timeout) {
  StopAccepting();
  const absl::Time deadline = absl::Now() + timeout;
  for (const Connection& each : connections_) {
    each.stream->over().WaitForNotificationWithDeadline(deadline);
  }
}

void LocalSteps::Join(bool all) {
  std::erase_if(connections_, [all](Connection& each) {
    if (!all && !each.stream->over().HasBeenNotified()) return false;
    each.thread.join();
    return true;
  });
}

void LocalSteps::Accept() {
  constexpr std::chrono::hours kLong(1);
  for (;;) {
    AwaitReadable({listener_.socket.get(), stop_.get()}, kLong);
    if (AwaitReadable({stop_.get()}, std::chrono::milliseconds(0))) return;
    absl::StatusOr<std::optional<FileDescriptor>> socket =
        AcceptLocal(listener_.socket);
    if (!socket.ok()) {
      // No file for it: not at once again.
      AwaitReadable({stop_.get()}, std::chrono::milliseconds(100));
      continue;
    }
    if (!socket->has_value()) continue;
    Join(/*all=*/false);
    const auto stream = std::make_shared<Stream>(**std::move(socket), worker_);
    on_stream_(stream);
    connections_.push_back({stream, std::thread([stream] { stream->Run(); })});
  }
}

}  // namespace shardplane
