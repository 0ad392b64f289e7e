#include "coordinator/coordinator_server.h"

#include <atomic>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "coordinator/coordinator_service.h"
#include "coordinator/registry_service.h"
#include "coordinator/rendezvous_service.h"
#include "coordinator/request_log.h"
#include "coordinator/stream_watch.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/health_check_service_interface.h"
#include "telemetry/rpc_log.h"
#include "telemetry/rpc_metrics.h"

namespace shardplane {
namespace {

constexpr const char* kServices[] = {"shardplane.v1.ShardingCoordinator",
                                     "shardplane.v1.WorkerRegistry",
                                     "shardplane.v1.Rendezvous"};

// "127.0.0.1:0" and port 40123 -> "127.0.0.1:40123".
std::string WithPort(const std::string& listen, int port) {
  return absl::StrCat(listen.substr(0, listen.rfind(':')), ":", port);
}

// Whether another process can call that address: not one that means "all".
bool IsCallable(const std::string& address) {
  return !absl::StartsWith(address, "0.0.0.0:") &&
         !absl::StartsWith(address, "[::]:");
}

}  // namespace

struct CoordinatorServer::State {
  explicit State(Options options_in)
      : options(std::move(options_in)),
        log(RequestLog::Options{.clock = options.coordinator.clock}),
        streams(options.stream_idle_limit, options.coordinator.clock),
        coordinator(CoordinatorOptions()),
        coordinator_service(&coordinator, &log, &streams, Watches()),
        registry_service(&coordinator),
        rendezvous_service(&coordinator.rendezvous()) {}

  Coordinator::Options CoordinatorOptions() {
    Coordinator::Options result = options.coordinator;
    result.metrics = options.metrics;
    result.log = options.log;
    result.rendezvous_address = [this] { return advertised; };
    return result;
  }

  WatchOptions Watches() const {
    WatchOptions watches = options.watches;
    watches.coordinator = options.coordinator.incarnation;
    watches.metrics = options.metrics;
    return watches;
  }

  const Options options;
  std::string address;
  std::string advertised;  // set before the first call is served
  RequestLog log;
  StreamWatch streams;
  Coordinator coordinator;
  CoordinatorService coordinator_service;
  RegistryService registry_service;
  RendezvousService rendezvous_service;
  std::unique_ptr<grpc::Server> server;
  std::atomic<bool> draining{false};
  absl::Notification stop;
  std::thread ticker;
};

CoordinatorServer::CoordinatorServer(std::unique_ptr<State> state)
    : state_(std::move(state)) {}

absl::StatusOr<std::unique_ptr<CoordinatorServer>> CoordinatorServer::Start(
    Options options) {
  auto state = std::make_unique<State>(std::move(options));
  const Options& o = state->options;
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(o.listen, grpc::InsecureServerCredentials(), &port);
  builder.SetMaxReceiveMessageSize(o.max_message_bytes);
  // Two coordinators on one port would each see half of the calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // A peer that vanished without a word is noticed; peers may ask, too.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  builder.AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.RegisterService(&state->coordinator_service);
  builder.RegisterService(&state->registry_service);
  builder.RegisterService(&state->rendezvous_service);
  std::vector<
      std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>>
      interceptors;
  if (o.metrics != nullptr) interceptors.push_back(MakeRpcMetrics(o.metrics));
  if (o.log != nullptr) interceptors.push_back(MakeRpcLog(o.log));
  builder.experimental().SetInterceptorCreators(std::move(interceptors));
  state->server = builder.BuildAndStart();
  if (state->server == nullptr || port == 0) {
    return absl::UnavailableError(absl::StrCat(
        "listen: expected an address that is free, got: ", o.listen));
  }
  state->address = WithPort(o.listen, port);
  state->advertised = !o.advertise.empty()         ? o.advertise
                      : IsCallable(state->address) ? state->address
                                                   : "";
  for (const char* service : kServices) {
    state->server->GetHealthCheckService()->SetServingStatus(service, true);
  }
  State* raw = state.get();
  state->ticker = std::thread([raw] {
    while (!raw->stop.WaitForNotificationWithTimeout(raw->options.tick)) {
      raw->coordinator.Tick();
      raw->streams.Sweep();
    }
  });
  return std::unique_ptr<CoordinatorServer>(
      new CoordinatorServer(std::move(state)));
}

CoordinatorServer::~CoordinatorServer() { Drain(absl::ZeroDuration()); }

void CoordinatorServer::Drain(absl::Duration grace) {
  if (state_->draining.exchange(true)) {
    return;
  }
  state_->server->GetHealthCheckService()->SetServingStatus(false);
  state_->coordinator_service.EndSessions();
  // gRPC waits for every handler, also for one that waits for a worker.
  absl::Notification served;
  std::thread ender([this, grace, &served] {
    if (!served.WaitForNotificationWithTimeout(grace)) {
      state_->coordinator.EndCalls("the coordinator shuts down");
    }
  });
  state_->server->Shutdown(absl::ToChronoTime(absl::Now() + grace));
  state_->server->Wait();
  served.Notify();
  ender.join();
  state_->stop.Notify();
  state_->ticker.join();
}

const std::string& CoordinatorServer::address() const {
  return state_->address;
}

std::shared_ptr<grpc::Channel> CoordinatorServer::InProcessChannel() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // nothing is sent anywhere
  return state_->server->InProcessChannel(arguments);
}

Coordinator& CoordinatorServer::coordinator() { return state_->coordinator; }

absl::Status CoordinatorServer::Serving() const {
  return state_->draining ? absl::UnavailableError("it is shutting down")
                          : absl::OkStatus();
}

}  // namespace shardplane
