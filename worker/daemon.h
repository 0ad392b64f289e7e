// A worker's process but for its flags: what serves, what registers, and how it
// ends.
#ifndef SHARDPLANE_WORKER_DAEMON_H_
#define SHARDPLANE_WORKER_DAEMON_H_

#include <signal.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "telemetry/http_server.h"
#include "telemetry/log.h"
#include "telemetry/metrics.h"
#include "worker/executor.h"
#include "worker/gang_worker.h"
#include "worker/gpu_metrics.h"
#include "worker/local_steps.h"
#include "worker/membership.h"
#include "worker/nvtx_range.h"
#include "worker/step_profiler.h"
#include "worker/worker_service.h"

namespace shardplane {

// The worker's flags of these names, which say what they mean.
struct DaemonOptions {
  std::string coordinator;
  std::string listen;
  std::string http_listen;
  std::string advertise_host;
  std::string collective_host;
  std::string id;
  std::string ready_file;
  std::string device;
  std::string collectives;
  std::string weights_root;
  int threads = 0;
  bool cuda_graphs = false;
  bool nvtx = false;
  bool profiling = false;
  absl::Duration drain_timeout;
};

// Everything that runs until SIGTERM. Members end in reverse order.
class Daemon {
 public:
  // Borrows `log`.
  Daemon(DaemonOptions options, const Log* log);
  // Errors: InvalidArgument, naming the flag; of a GPU or a port that is not to
  // be had.
  absl::Status Start();
  // Waits for SIGTERM or SIGINT, drains. The process's exit code: 1 where it
  // ended by itself, refused by the coordinator or without its device.
  int Wait(const sigset_t& signals);

 private:
  // The hosts that others reach us by.
  absl::Status FindHosts();
  absl::Status StartServer();
  void StartLocalSteps();
  absl::Status StartHttp();
  void MeasureDevice();
  void StartMembership();
  void TellOfGroup(const GangSpec& gang, const GroupTransport& group);
  void TellOfKernels(const absl::Status& kernels) const;
  void TellOfCapture(const std::string& what, const absl::Status& went) const;
  void EndWithDevice(const absl::Status& failure);
  absl::Status CheckRegistered() const;
  // Writes the ready file once registered, unless `ending` comes first.
  void Announce(const absl::Notification& ending);
  void Drain();

  const DaemonOptions options_;
  const Log& log_;
  const uint64_t incarnation_;
  std::string host_;
  std::string collective_host_;
  std::string device_;
  std::atomic<bool> refused_ = false;
  std::atomic<bool> device_failed_ = false;
  std::atomic<bool> draining_ = false;
  Metrics metrics_{{.component = "worker"}};
  std::unique_ptr<NvtxDomain> nvtx_;        // none without --nvtx
  std::unique_ptr<StepProfiler> profiler_;  // none without --profiling
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<GangWorker> worker_;
  std::unique_ptr<WorkerService> service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<LocalSteps> local_steps_;
  std::string address_;
  std::atomic<const Membership*> registered_ = nullptr;
  std::unique_ptr<GpuMetrics> gpu_metrics_;  // none of a CPU
  std::unique_ptr<HttpServer> http_;
  std::shared_ptr<grpc::Channel> coordinator_;
  std::unique_ptr<Membership> membership_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_DAEMON_H_
