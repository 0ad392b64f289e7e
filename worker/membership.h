// A worker's membership: it registers with the coordinator and keeps its lease.
#ifndef SHARDPLANE_WORKER_MEMBERSHIP_H_
#define SHARDPLANE_WORKER_MEMBERSHIP_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "shardplane/v1/coordinator.grpc.pb.h"

namespace shardplane {

// A thread of its own renews the lease at about a third of its time, with
// jitter, and registers again when the coordinator does not know the worker.
// Losing the lease never ends the process: it goes on trying, with back-off.
// Owned by main; thread-safe. The destructor stops without a word to the
// coordinator.
class Membership {
 public:
  struct Options {
    std::shared_ptr<grpc::Channel> channel;  // to the coordinator
    std::string worker_id;
    uint64_t incarnation = 0;
    std::string address;
    std::string http_address;
    std::string device;
    // Another process has taken the name, or the coordinator refuses this
    // worker for good: called once, from the membership's thread.
    std::function<void(const absl::Status&)> on_refused;
    std::function<void(absl::string_view)> log;
    uint32_t random_seed = 0;
  };
  static std::unique_ptr<Membership> Start(Options options);
  ~Membership();

  // OK while the lease is held; else why not. Registered at least once: a
  // worker is ready from then on.
  absl::Status State() const;
  // Waits until registered. DeadlineExceeded, or why it was refused.
  absl::Status WaitRegistered(absl::Duration timeout);

  // Tells the coordinator at once, and with every renewal from now on, that
  // this worker takes no new work.
  void Drain();
  // Says goodbye and stops. What the coordinator answered.
  absl::Status Retire();

  // How long to wait before the next renewal: a third of the lease, a fifth
  // more or less. `uniform` lies in [0, 1): 9 s, 0 -> 2.4 s; 0.5 -> 3 s.
  static absl::Duration RenewAfter(absl::Duration lease, double uniform);
  // Before the next try after `failures` in a row: full jitter under an
  // exponential ceiling from 100 ms to 2 s.
  static absl::Duration RetryAfter(int failures, double uniform);

 private:
  explicit Membership(Options options);

  void Loop();
  // One exchange with the coordinator. How long to wait then.
  absl::Duration Exchange();
  absl::Status Register();
  absl::Status Renew(bool retired);
  absl::Duration Fail(const absl::Status& status, bool renewing);
  double Uniform();
  std::string Uuid();
  void Log(absl::string_view text) const;

  const Options options_;
  const std::unique_ptr<v1::WorkerRegistry::Stub> stub_;
  std::mt19937 random_;  // of the thread
  int failures_ = 0;     // of the thread, in a row

  mutable absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool hurry_ ABSL_GUARDED_BY(mutex_) = false;  // exchange without waiting
  absl::Duration lease_ ABSL_GUARDED_BY(mutex_) = absl::Seconds(10);
  absl::Status state_ ABSL_GUARDED_BY(mutex_) =
      absl::UnavailableError("not registered yet");
  bool refused_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread thread_;  // last: starts when the rest is there
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_MEMBERSHIP_H_
