// shardplane_worker: holds shards and runs programs for a coordinator.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "common/errors.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/health_check_service_interface.h"
#include "proto/message_process.h"
#include "telemetry/http_server.h"
#include "telemetry/log.h"
#include "telemetry/metrics.h"
#include "telemetry/rpc_log.h"
#include "telemetry/rpc_metrics.h"
#include "worker/device_memory.h"
#include "worker/gang_worker.h"
#include "worker/gpu_metrics.h"
#include "worker/local_steps.h"
#include "worker/membership.h"
#include "worker/nccl_environment.h"
#include "worker/nvtx_range.h"
#include "worker/ready_file.h"
#include "worker/rendezvous_client.h"
#include "worker/tensor_memory.h"
#include "worker/torch_executor.h"
#include "worker/transport.h"
#include "worker/worker_service.h"

ABSL_FLAG(std::string, coordinator, "127.0.0.1:7070",
          "HOST:PORT of the coordinator");
ABSL_FLAG(std::string, listen, "127.0.0.1:0",
          "HOST:PORT of the Worker service; port 0: any free one");
ABSL_FLAG(std::string, http_listen, "127.0.0.1:0",
          "HOST:PORT of /metrics, /livez and /readyz");
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
ABSL_FLAG(std::string, weights_root, "",
          "folder below which parameters may be read from safetensors files "
          "(docs/weights.md); default: none may");
ABSL_FLAG(absl::Duration, drain_timeout, absl::Seconds(30),
          "on SIGTERM, how long a running call may go on");

namespace shardplane {
namespace {

// Programs are larger than gRPC's default of 4 MiB a message; tensors travel
// in chunks.
constexpr int kMaxMessageBytes = 256 << 20;

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

// Without payloads, which are for programs.
std::string Text(const absl::Status& status) {
  return status.ToString(absl::StatusToStringMode::kWithNoExtraData);
}

uint64_t RandomIncarnation() {
  std::random_device random;
  // Never 0, and a positive int64 for readers that have no other.
  return ((uint64_t{random()} << 32 | random()) >> 1) | 1;
}

MakeGangStore StoreMaker(std::shared_ptr<grpc::Channel> coordinator) {
  return [coordinator](const std::string& address, const GangCall& call,
                       int rank) {
    v1::GangMember member;
    member.set_deployment(call.deployment);
    member.set_epoch(call.epoch);
    member.set_incarnation(call.incarnation);
    member.set_rank(rank);
    return std::make_shared<RendezvousClient>(
        address.empty()
            ? coordinator
            : grpc::CreateChannel(address, grpc::InsecureChannelCredentials()),
        std::move(member));
  };
}

// Everything that runs until SIGTERM. Members end in reverse order.
class Daemon {
 public:
  // Borrows `log`.
  explicit Daemon(const Log* log) : log_(*log) {}
  absl::Status Start();
  // Waits for SIGTERM or SIGINT, drains. The process's exit code.
  int Wait(const sigset_t& signals);

 private:
  // The hosts that others reach us by, from the flags.
  absl::Status FindHosts();
  absl::Status StartServer();
  void StartLocalSteps();
  absl::Status StartHttp();
  void MeasureDevice();
  void StartMembership();
  void TellOfGroup(const GangSpec& gang, const GroupTransport& group);
  void TellOfKernels(const absl::Status& kernels) const;
  void TellOfCapture(const std::string& what, const absl::Status& went) const;
  absl::Status CheckRegistered() const;
  // Writes the ready file once registered, unless `ending` comes first.
  void Announce(const absl::Notification& ending);
  void Drain();

  const Log& log_;
  const uint64_t incarnation_ = RandomIncarnation();
  std::string host_;
  std::string collective_host_;
  std::string device_;
  std::atomic<bool> refused_ = false;
  std::atomic<bool> draining_ = false;
  Metrics metrics_{{.component = "worker"}};
  std::unique_ptr<NvtxDomain> nvtx_;  // none without --nvtx
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

absl::Status Daemon::StartServer() {
  service_ = std::make_unique<WorkerService>(
      worker_.get(), StoreMaker(coordinator_), &metrics_);
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(absl::GetFlag(FLAGS_listen),
                           grpc::InsecureServerCredentials(), &port);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.RegisterService(service_.get());
  std::vector<
      std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>>
      interceptors;
  interceptors.push_back(MakeRpcMetrics(&metrics_));
  interceptors.push_back(MakeRpcLog(&log_));
  builder.experimental().SetInterceptorCreators(std::move(interceptors));
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port == 0) {
    return absl::UnavailableError(absl::StrCat("--listen: cannot bind, got: ",
                                               absl::GetFlag(FLAGS_listen)));
  }
  server_->GetHealthCheckService()->SetServingStatus("shardplane.v1.Worker",
                                                     true);
  address_ = JoinHostPort(host_, port);
  StartLocalSteps();
  return absl::OkStatus();
}

void Daemon::StartLocalSteps() {
  auto local =
      LocalSteps::Start(incarnation_, worker_.get(),
                        [this](const std::shared_ptr<StepsStream>& stream) {
                          service_->Keep(stream, "local");
                        });
  if (local.ok()) {
    local_steps_ = *std::move(local);
  } else {
    log_.Info(
        absl::StrCat("steps come through gRPC alone: ", Text(local.status())));
  }
}

absl::Status Daemon::CheckRegistered() const {
  const Membership* membership = registered_.load();
  return membership == nullptr ? absl::UnavailableError("not registered yet")
                               : membership->State();
}

absl::Status Daemon::StartHttp() {
  if (const std::string uuid = GpuUuidOf(device_); !uuid.empty()) {
    gpu_metrics_ = std::make_unique<GpuMetrics>(GpuMetrics::Options{
        .uuid = uuid, .metrics = &metrics_, .log = [this](absl::string_view t) {
          log_.Write(LogLevel::kWarning, t);
        }});
  }
  HttpServer::Options options{.listen = absl::GetFlag(FLAGS_http_listen),
                              .metrics = &metrics_,
                              .before_metrics = [this] { MeasureDevice(); }};
  options.ready.push_back({"registered", [this] { return CheckRegistered(); }});
  options.ready.push_back({"serving", [this] {
                             return draining_ ? absl::UnavailableError(
                                                    "the worker drains")
                                              : absl::OkStatus();
                           }});
  SP_ASSIGN_OR_RETURN(http_, HttpServer::Start(std::move(options)));
  return absl::OkStatus();
}

void Daemon::MeasureDevice() {
  const DeviceMemory memory = MeasureDeviceMemory(device_);
  metrics_.Set(Gauge::kDeviceMemoryUsed, {}, static_cast<double>(memory.used));
  metrics_.Set(Gauge::kDeviceMemoryTotal, {},
               static_cast<double>(memory.total));
  if (gpu_metrics_ != nullptr) gpu_metrics_->Measure();
}

absl::Status Daemon::FindHosts() {
  host_ = absl::GetFlag(FLAGS_advertise_host);
  if (host_.empty()) host_ = HostOf(absl::GetFlag(FLAGS_listen));
  if (IsWildcard(host_)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--advertise_host: expected a host, since --listen has none of its "
        "own, got: --listen=",
        absl::GetFlag(FLAGS_listen)));
  }
  collective_host_ = absl::GetFlag(FLAGS_collective_host);
  if (collective_host_.empty()) collective_host_ = host_;
  return absl::OkStatus();
}

void Daemon::StartMembership() {
  membership_ = Membership::Start(
      {.channel = coordinator_,
       .worker_id = absl::GetFlag(FLAGS_id),
       .incarnation = incarnation_,
       .address = address_,
       .http_address = http_->address(),
       .device = device_,
       .on_refused =
           [this](const absl::Status& status) {
             log_.Write(LogLevel::kError, absl::StrCat("refused by the "
                                                       "coordinator: ",
                                                       status.ToString()));
             refused_ = true;
             kill(getpid(), SIGTERM);
           },
       .log = [this](absl::string_view text) { log_.Info(text); },
       .random_seed = static_cast<uint32_t>(incarnation_)});
  registered_ = membership_.get();
}

void Daemon::TellOfGroup(const GangSpec& gang, const GroupTransport& group) {
  log_.Info(absl::StrCat(gang.deployment, ", epoch ", gang.epoch, ", rank ",
                         gang.rank, ": collectives on ", ToString(group)),
            {{"deployment", gang.deployment}});
  metrics_.Add(Counter::kProcessGroups, {ToString(group.transport)});
}

void Daemon::TellOfKernels(const absl::Status& kernels) const {
  if (kernels.ok()) {
    log_.Info("fused operators run as kernels of this GPU");
  } else {
    log_.Write(
        LogLevel::kWarning,
        absl::StrCat("fused operators run as the calls that they stand for: ",
                     kernels.message()));
  }
}

void Daemon::TellOfCapture(const std::string& what,
                           const absl::Status& went) const {
  if (went.ok()) {
    log_.Info(absl::StrCat(what, " run as a CUDA graph"));
  } else {
    log_.Write(
        LogLevel::kWarning,
        absl::StrCat(what, " run operator by operator: ", went.message()));
  }
}

absl::Status Daemon::Start() {
  SP_RETURN_IF_ERROR(FindHosts());
  SP_ASSIGN_OR_RETURN(device_, CheckDevice(absl::GetFlag(FLAGS_device)));
  SP_ASSIGN_OR_RETURN(const TransportChoice transport,
                      ParseTransportChoice(absl::GetFlag(FLAGS_collectives)));
  if (absl::GetFlag(FLAGS_nvtx)) nvtx_ = std::make_unique<NvtxDomain>();
  SP_ASSIGN_OR_RETURN(
      executor_,
      MakeTorchExecutor(
          {.device = device_,
           .collective_hostname = collective_host_,
           .transport = transport,
           .on_group =
               [this](const GangSpec& gang, const GroupTransport& group) {
                 TellOfGroup(gang, group);
               },
           .on_kernels =
               [this](const absl::Status& kernels) { TellOfKernels(kernels); },
           .graphs = absl::GetFlag(FLAGS_cuda_graphs),
           .on_capture =
               [this](const std::string& what, const absl::Status& went) {
                 TellOfCapture(what, went);
               },
           .weights_root = absl::GetFlag(FLAGS_weights_root),
           .threads = absl::GetFlag(FLAGS_threads),
           .nvtx = nvtx_.get()}));
  worker_ = std::make_unique<GangWorker>(incarnation_, executor_.get(),
                                         &metrics_, nvtx_.get());
  coordinator_ = grpc::CreateChannel(absl::GetFlag(FLAGS_coordinator),
                                     grpc::InsecureChannelCredentials());
  SP_RETURN_IF_ERROR(StartServer());
  SP_RETURN_IF_ERROR(StartHttp());
  StartMembership();
  return absl::OkStatus();
}

void Daemon::Announce(const absl::Notification& ending) {
  while (!membership_->WaitRegistered(absl::Milliseconds(200)).ok()) {
    if (ending.HasBeenNotified()) return;
  }
  log_.Info(absl::StrCat("serving on ", address_, ", http ", http_->address()));
  const std::string path = absl::GetFlag(FLAGS_ready_file);
  if (path.empty()) return;
  const absl::Status status =
      WriteReadyFile(path, {address_, http_->address(), getpid()});
  if (!status.ok()) log_.Write(LogLevel::kError, status.ToString());
}

void Daemon::Drain() {
  log_.Info("draining");
  draining_ = true;
  membership_->Drain();
  absl::Notification drained;
  std::thread deadline([&] {
    if (!drained.WaitForNotificationWithTimeout(
            absl::GetFlag(FLAGS_drain_timeout))) {
      worker_->AbortAll("the worker's drain timeout is over");
    }
  });
  worker_->Drain();
  drained.Notify();
  deadline.join();
}

int Daemon::Wait(const sigset_t& signals) {
  // Registering may take as long as the coordinator likes, and SIGTERM must
  // work meanwhile.
  absl::Notification ending;
  std::thread announcer([&] { Announce(ending); });
  int signal = 0;
  sigwait(&signals, &signal);
  ending.Notify();
  announcer.join();
  Drain();
  if (!refused_) {
    const absl::Status retired = membership_->Retire();
    if (!retired.ok()) {
      log_.Write(LogLevel::kWarning,
                 absl::StrCat("retiring: ", retired.ToString()));
    }
  }
  service_->EndStreams();  // else the server would wait for them
  if (local_steps_ != nullptr) local_steps_->AwaitEnd(absl::Milliseconds(500));
  server_->Shutdown(std::chrono::system_clock::now() +
                    std::chrono::milliseconds(500));
  http_.reset();  // its checks look at the membership
  log_.Info("exiting");
  return refused_ ? 1 : 0;
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
    log.Write(LogLevel::kError, absl::StrCat("cannot start: ", Text(status)));
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
  Daemon daemon(&log);
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
