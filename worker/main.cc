// shardplane_worker: holds shards and runs programs for a coordinator.
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/errors.h"
#include "proto/message_process.h"
#include "telemetry/log.h"
#include "worker/daemon.h"
#include "worker/nccl_environment.h"
#include "worker/tensor_memory.h"
#include "worker/torch_executor.h"

ABSL_FLAG(std::string, coordinator, "127.0.0.1:7070",
          "HOST:PORT of the coordinator");
ABSL_FLAG(std::string, listen, "127.0.0.1:0",
          "HOST:PORT of the Worker service; port 0: any free one");
ABSL_FLAG(std::string, http_listen, "127.0.0.1:0",
          "HOST:PORT of /metrics, /livez and /readyz; with --profiling, of "
          "/profile");
ABSL_FLAG(std::string, advertise_host, "",
          "host that others reach this worker by; default: that of --listen");
ABSL_FLAG(std::string, collective_host, "",
          "local address that other workers connect to; default: "
          "--advertise_host");
ABSL_FLAG(std::string, id, "",
          "name of this worker, stable across restarts; default: "
          "worker-PID");
ABSL_FLAG(std::string, ready_file, "",
          "file to write once registered: addresses and pid, as JSON");
ABSL_FLAG(bool, cuda_graphs, false,
          "on a GPU, start training runs, and updates, as CUDA graphs "
          "(docs/gpu.md)");
ABSL_FLAG(std::string, device, "cpu",
          "where tensors live: cpu, cuda or cuda:N");
ABSL_FLAG(std::string, collectives, "auto",
          "what carries them between CPUs: auto (shared memory where all ranks "
          "of a group can, else gloo), shm or gloo; between GPUs: auto (NCCL), "
          "or through the hosts' memory by shm or gloo");
ABSL_FLAG(int, threads, 0,
          "threads of one operator; 0: as LibTorch decides "
          "(OMP_NUM_THREADS, else all cores)");
ABSL_FLAG(std::string, log_format, "text",
          "of the lines on standard error: text or json");
ABSL_FLAG(std::string, log_level, "info",
          "lines below it are not written: debug, info, warning or error");
ABSL_FLAG(bool, nvtx, false,
          "names steps, modules and collectives as NVTX ranges, for profilers "
          "as Nsight Systems");
ABSL_FLAG(bool, profiling, false,
          "GET /profile?steps=N of --http_listen answers with a trace of the "
          "next N training steps (docs/gpu.md)");
ABSL_FLAG(std::string, weights_root, "",
          "folder below which parameters may be read from safetensors files "
          "(docs/weights.md); default: none may");
ABSL_FLAG(absl::Duration, drain_timeout, absl::Seconds(30),
          "on SIGTERM, how long a running call may go on");

namespace shardplane {
namespace {

// From the flags. InvalidArgument, naming the one that is bad.
absl::StatusOr<Log::Options> LogOptions() {
  Log::Options options{.component = "worker",
                       .instance = absl::GetFlag(FLAGS_id)};
  SP_ASSIGN_OR_RETURN(options.format,
                      ParseLogFormat(absl::GetFlag(FLAGS_log_format)));
  SP_ASSIGN_OR_RETURN(options.level,
                      ParseLogLevel(absl::GetFlag(FLAGS_log_level)));
  return options;
}

DaemonOptions FromFlags() {
  return {.coordinator = absl::GetFlag(FLAGS_coordinator),
          .listen = absl::GetFlag(FLAGS_listen),
          .http_listen = absl::GetFlag(FLAGS_http_listen),
          .advertise_host = absl::GetFlag(FLAGS_advertise_host),
          .collective_host = absl::GetFlag(FLAGS_collective_host),
          .id = absl::GetFlag(FLAGS_id),
          .ready_file = absl::GetFlag(FLAGS_ready_file),
          .device = absl::GetFlag(FLAGS_device),
          .collectives = absl::GetFlag(FLAGS_collectives),
          .weights_root = absl::GetFlag(FLAGS_weights_root),
          .threads = absl::GetFlag(FLAGS_threads),
          .cuda_graphs = absl::GetFlag(FLAGS_cuda_graphs),
          .nvtx = absl::GetFlag(FLAGS_nvtx),
          .profiling = absl::GetFlag(FLAGS_profiling),
          .drain_timeout = absl::GetFlag(FLAGS_drain_timeout)};
}

// A binary for CPUs goes on as the one for GPUs, which lies beside it. Returns
// only if it cannot: why.
absl::Status BecomeWorkerForGpus(char** argv) {
  std::error_code error;
  const std::filesystem::path self =
      std::filesystem::read_symlink("/proc/self/exe", error);
  const std::string other = self.parent_path() / "shardplane_worker_cuda";
  execv(other.c_str(), argv);
  return absl::FailedPreconditionError(
      absl::StrCat("--device: this worker is for CPUs, and the one for GPUs, ",
                   other, ", does not start (", std::strerror(errno),
                   "), got: ", absl::GetFlag(FLAGS_device)));
}

int Main(char** argv) {
  if (absl::GetFlag(FLAGS_id).empty()) {
    absl::SetFlag(&FLAGS_id, absl::StrCat("worker-", getpid()));
  }
  const absl::StatusOr<Log::Options> options = LogOptions();
  const Log log(options.ok() ? *options : Log::Options{.component = "worker"});
  const auto refuse = [&log](const absl::Status& status) {
    // Without payloads, which are for programs.
    log.Write(LogLevel::kError,
              absl::StrCat(
                  "cannot start: ",
                  status.ToString(absl::StatusToStringMode::kWithNoExtraData)));
    return 1;
  };
  if (!options.ok()) return refuse(options.status());
  if (absl::StartsWith(absl::GetFlag(FLAGS_device), "cuda") && !IsForGpus()) {
    return refuse(BecomeWorkerForGpus(argv));
  }
  // Blocked before any thread starts, so that only Wait sees them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  SetNcclEnvironment();
  KeepTensorMemory();
  SetUpMessageProcess();
  Daemon daemon(FromFlags(), &log);
  if (const absl::Status status = daemon.Start(); !status.ok()) {
    return refuse(status);
  }
  return daemon.Wait(signals);
}

}  // namespace
}  // namespace shardplane

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "holds shards and runs programs for a Shardplane coordinator");
  absl::ParseCommandLine(argc, argv);
  const int code = shardplane::Main(argv);
  // Profilers write what they still hold when a process ends as others do.
  if (absl::GetFlag(FLAGS_nvtx)) std::exit(code);
  // Not by way of LibTorch's destructors, which take a tenth of a second and
  // only give back memory.
  std::quick_exit(code);
}
