#include "worker/daemon.h"

#include <unistd.h>

#include <chrono>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "telemetry/rpc_log.h"
#include "telemetry/rpc_metrics.h"
#include "worker/device_memory.h"
#include "worker/kineto_profiler.h"
#include "worker/profile_route.h"
#include "worker/ready_file.h"
#include "worker/rendezvous_client.h"
#include "worker/torch_executor.h"
#include "worker/transport.h"

namespace shardplane {
namespace {

// Programs are larger than gRPC's default of 4 MiB a message; tensors travel
// in chunks.
constexpr int kMaxMessageBytes = 256 << 20;

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

}  // namespace

Daemon::Daemon(DaemonOptions options, const Log* log)
    : options_(std::move(options)),
      log_(*log),
      incarnation_(RandomIncarnation()) {}

absl::Status Daemon::StartServer() {
  service_ = std::make_unique<WorkerService>(
      worker_.get(), StoreMaker(coordinator_), &metrics_);
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(options_.listen, grpc::InsecureServerCredentials(),
                           &port);
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
    return absl::UnavailableError(
        absl::StrCat("--listen: cannot bind, got: ", options_.listen));
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
    log_.Info(absl::StrCat(
        "steps come through gRPC alone: ",
        local.status().ToString(absl::StatusToStringMode::kWithNoExtraData)));
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
  HttpServer::Options options{.listen = options_.http_listen,
                              .metrics = &metrics_,
                              .before_metrics = [this] { MeasureDevice(); }};
  options.ready.push_back({"registered", [this] { return CheckRegistered(); }});
  options.ready.push_back({"serving", [this] {
                             return draining_ ? absl::UnavailableError(
                                                    "the worker drains")
                                              : absl::OkStatus();
                           }});
  if (profiler_ != nullptr) {
    options.routes.push_back(ProfileRoute(profiler_.get()));
  }
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
  host_ = options_.advertise_host;
  if (host_.empty()) host_ = HostOf(options_.listen);
  if (IsWildcard(host_)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--advertise_host: expected a host, since --listen has none of its "
        "own, got: --listen=",
        options_.listen));
  }
  collective_host_ = options_.collective_host;
  if (collective_host_.empty()) collective_host_ = host_;
  return absl::OkStatus();
}

void Daemon::StartMembership() {
  membership_ = Membership::Start(
      {.channel = coordinator_,
       .worker_id = options_.id,
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

void Daemon::EndWithDevice(const absl::Status& failure) {
  if (device_failed_.exchange(true)) return;
  log_.Write(LogLevel::kError,
             absl::StrCat(
                 device_, " has failed, which only a new process can use: ",
                 failure.ToString(absl::StatusToStringMode::kWithNoExtraData)));
  kill(getpid(), SIGTERM);
}

absl::Status Daemon::Start() {
  SP_RETURN_IF_ERROR(FindHosts());
  SP_ASSIGN_OR_RETURN(device_, CheckDevice(options_.device));
  SP_ASSIGN_OR_RETURN(const TransportChoice transport,
                      ParseTransportChoice(options_.collectives));
  if (options_.nvtx) nvtx_ = std::make_unique<NvtxDomain>();
  if (options_.profiling) {
    profiler_ = std::make_unique<StepProfiler>(MakeKinetoProfiler(device_));
  }
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
           .graphs = options_.cuda_graphs,
           .on_capture =
               [this](const std::string& what, const absl::Status& went) {
                 TellOfCapture(what, went);
               },
           .on_device_failed =
               [this](const absl::Status& failure) { EndWithDevice(failure); },
           .weights_root = options_.weights_root,
           .threads = options_.threads,
           .nvtx = nvtx_.get()}));
  worker_ = std::make_unique<GangWorker>(
      incarnation_, executor_.get(), &metrics_, nvtx_.get(), profiler_.get());
  coordinator_ = grpc::CreateChannel(options_.coordinator,
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
  const std::string path = options_.ready_file;
  if (path.empty()) return;
  const absl::Status status =
      WriteReadyFile(path, {address_, http_->address(), getpid()});
  if (!status.ok()) log_.Write(LogLevel::kError, status.ToString());
}

void Daemon::Drain() {
  log_.Info("draining");
  draining_ = true;
  if (profiler_ != nullptr) profiler_->Close();  // else http_ would wait
  membership_->Drain();
  absl::Notification drained;
  std::thread deadline([&] {
    if (!drained.WaitForNotificationWithTimeout(options_.drain_timeout)) {
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
  return refused_ || device_failed_ ? 1 : 0;
}

}  // namespace shardplane
