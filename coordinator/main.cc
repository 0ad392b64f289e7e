// shardplane_coordinator: the process.
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/errors.h"
#include "common/link_costs.h"
#include "coordinator/coordinator_server.h"
#include "coordinator/grpc_worker_client.h"
#include "coordinator/http_api.h"
#include "coordinator/status_page.h"
#include "proto/message_process.h"
#include "telemetry/http_server.h"
#include "telemetry/log.h"
#include "telemetry/metrics.h"

ABSL_FLAG(std::string, listen, "127.0.0.1:0",
          "HOST:PORT of the gRPC services; port 0 is any free one");
ABSL_FLAG(std::string, advertise, "",
          "HOST:PORT at which workers reach the gRPC services; by default the "
          "address that is bound, or what each worker was started with");
ABSL_FLAG(std::string, http_listen, "127.0.0.1:0",
          "HOST:PORT of /metrics, /livez and /readyz, and of the status page");
ABSL_FLAG(bool, status_page, true,
          "serve the status page and its JSON API, which show whoever reaches "
          "the HTTP port what there is");
ABSL_FLAG(std::string, ready_file, "",
          "written, as JSON with the addresses, once the process serves");
ABSL_FLAG(int64_t, lease_ms, 10'000,
          "how long a worker may be silent, in milliseconds");
ABSL_FLAG(bool, local_steps, true,
          "send steps to workers of this machine over local sockets instead of "
          "gRPC, where they can be reached so (docs/performance.md)");
ABSL_FLAG(std::string, link_costs, "shm",
          "what collectives are taken to cost where a deployment does not say: "
          "shm, gloo, nccl, or measured as latency_us=NUMBER,us_per_mib=NUMBER "
          "(docs/meshes.md)");
ABSL_FLAG(bool, fused_operators, false,
          "compile programs with operators that do the work of several, such "
          "as silu(gate) * up (docs/gpu.md)");
ABSL_FLAG(std::string, log_format, "text",
          "of the lines on standard error: text or json");
ABSL_FLAG(std::string, log_level, "info",
          "lines below it are not written: debug, info, warning or error");
ABSL_FLAG(int64_t, drain_ms, 20'000,
          "how long calls may go on after SIGTERM, in milliseconds");

namespace shardplane {
namespace {

// A UUID of version 4.
std::string RandomUid() {
  thread_local absl::BitGen random;
  const uint64_t high = absl::Uniform<uint64_t>(random);
  const uint64_t low = absl::Uniform<uint64_t>(random);
  return absl::StrFormat("%08x-%04x-4%03x-%04x-%012x", high >> 32,
                         (high >> 16) & 0xffff, high & 0xfff,
                         0x8000 | (low >> 50), low & 0xffffffffffff);
}

std::string RandomId() { return RandomUid().substr(0, 8); }

CoordinatorServer::Options ServerOptions(const LinkCosts& costs,
                                         Metrics* metrics, const Log* log) {
  const int64_t start_ms = absl::ToUnixMillis(absl::Now());
  CoordinatorServer::Options options;
  options.listen = absl::GetFlag(FLAGS_listen);
  options.advertise = absl::GetFlag(FLAGS_advertise);
  options.metrics = metrics;
  options.log = log;
  options.coordinator.lease = absl::Milliseconds(absl::GetFlag(FLAGS_lease_ms));
  options.tick = std::min(options.tick, options.coordinator.lease / 8);
  options.coordinator.incarnation =
      Incarnation{static_cast<uint64_t>(start_ms)};
  // Larger than any epoch of an earlier start, unless that one formed a
  // thousand gangs a millisecond.
  options.coordinator.first_epoch =
      GangEpoch{static_cast<uint64_t>(start_ms) * 1000};
  options.coordinator.link_costs = costs;
  options.coordinator.fused_operators = absl::GetFlag(FLAGS_fused_operators);
  options.coordinator.connect = [](const std::string& address) {
    return ConnectToWorker(address, absl::GetFlag(FLAGS_local_steps));
  };
  options.coordinator.clock = &absl::Now;
  options.coordinator.random_id = &RandomId;
  options.coordinator.random_uid = &RandomUid;
  return options;
}

HttpServer::Options HttpOptions(CoordinatorServer* server, Metrics* metrics,
                                HttpApi* api) {
  HttpServer::Options options{
      .listen = absl::GetFlag(FLAGS_http_listen),
      .metrics = metrics,
      .ready = {{"serving", [server] { return server->Serving(); }}}};
  if (absl::GetFlag(FLAGS_status_page)) {
    options.routes = api->Routes();
    options.routes.push_back(StatusPageRoute());
  }
  return options;
}

// Complete or not there: written beside, then renamed.
bool WriteReadyFile(const std::string& path, const std::string& address,
                    const std::string& http_address) {
  if (path.empty()) {
    return true;
  }
  const std::string temporary = absl::StrCat(path, ".", getpid());
  std::ofstream file(temporary);
  file << absl::StrFormat(
      "{\"address\":\"%s\",\"http_address\":\"%s\",\"pid\":%d}\n", address,
      http_address, getpid());
  file.close();
  return file.good() && std::rename(temporary.c_str(), path.c_str()) == 0;
}

int Fail(const Log& log, absl::string_view what, const absl::Status& status) {
  log.Write(LogLevel::kError, absl::StrCat(what, ": ", status.ToString()));
  return 1;
}

// From the flags. InvalidArgument, naming the one that is bad.
absl::StatusOr<Log::Options> LogOptions() {
  Log::Options options{.component = "coordinator"};
  SP_ASSIGN_OR_RETURN(options.format,
                      ParseLogFormat(absl::GetFlag(FLAGS_log_format)));
  SP_ASSIGN_OR_RETURN(options.level,
                      ParseLogLevel(absl::GetFlag(FLAGS_log_level)));
  return options;
}

int Main() {
  SetUpMessageProcess();
  const absl::StatusOr<Log::Options> log_options = LogOptions();
  const Log log(log_options.ok() ? *log_options
                                 : Log::Options{.component = "coordinator"});
  if (!log_options.ok()) return Fail(log, "--log", log_options.status());
  if (absl::GetFlag(FLAGS_lease_ms) < 1) {
    return Fail(log, "--lease_ms",
                absl::InvalidArgumentError(
                    absl::StrCat("expected a positive number, got: ",
                                 absl::GetFlag(FLAGS_lease_ms))));
  }
  const absl::StatusOr<LinkCosts> costs =
      ParseLinkCosts(absl::GetFlag(FLAGS_link_costs));
  if (!costs.ok()) return Fail(log, "--link_costs", costs.status());
  // Before the first thread starts, so that none of them gets the signals.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  Metrics metrics({.component = "coordinator"});
  absl::StatusOr<std::unique_ptr<CoordinatorServer>> server =
      CoordinatorServer::Start(ServerOptions(*costs, &metrics, &log));
  if (!server.ok()) {
    return Fail(log, "gRPC", server.status());
  }
  CoordinatorServer* const serving = server->get();
  HttpApi api({.channel = serving->InProcessChannel()});
  const absl::StatusOr<std::unique_ptr<HttpServer>> http =
      HttpServer::Start(HttpOptions(serving, &metrics, &api));
  if (!http.ok()) {
    return Fail(log, "HTTP", http.status());
  }
  const std::string ready_file = absl::GetFlag(FLAGS_ready_file);
  if (!WriteReadyFile(ready_file, serving->address(), (*http)->address())) {
    return Fail(log, "--ready_file",
                absl::InvalidArgumentError(
                    absl::StrCat("expected a path that can be written, "
                                 "got: ",
                                 ready_file)));
  }
  log.Info(absl::StrCat("serving at ", serving->address(), ", http at ",
                        (*http)->address()));
  int signal = 0;
  sigwait(&signals, &signal);
  log.Info("draining");
  api.EndWaits();
  serving->Drain(absl::Milliseconds(absl::GetFlag(FLAGS_drain_ms)));
  return 0;
}

}  // namespace
}  // namespace shardplane

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("coordinates a cluster of Shardplane workers");
  absl::ParseCommandLine(argc, argv);
  return shardplane::Main();
}
