#include "telemetry/http_server.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"
#include "civetweb.h"
#include "telemetry/gzip.h"
#include "telemetry/metrics.h"

namespace shardplane {
namespace {

constexpr const char* kExposition = "text/plain; version=0.0.4; charset=utf-8";
// Below it a packet holds all; above, compressing takes less than sending.
constexpr size_t kGzipFromBytes = 1400;
constexpr int kGzipLevel = 1;

struct Request {
  absl::string_view path;
  bool verbose = false;
};

HttpResponse NotFound(absl::string_view path) {
  return {404, absl::StrCat("no such path; there are /metrics, /livez and "
                            "/readyz; got: ",
                            path, "\n")};
}

// A route, and how many calls of it are under way.
struct CountedRoute {
  explicit CountedRoute(HttpRoute route_in) : route(std::move(route_in)) {}

  bool Fits(absl::string_view path) const {
    return absl::EndsWith(route.prefix, "/")
               ? absl::StartsWith(path, route.prefix)
               : path == route.prefix;
  }
  HttpResponse Answer(const HttpRequest& request) {
    const bool taken = calls.fetch_add(1) >= route.max_calls;
    HttpResponse response =
        taken ? HttpResponse{503, "too many such requests at a time\n"}
              : route.handle(request);
    calls.fetch_sub(1);
    if (taken) response.headers.push_back({"Retry-After", "2"});
    return response;
  }

  const HttpRoute route;
  std::atomic<int> calls = 0;
};

// One line of a verbose answer, as Kubernetes' own servers write it.
std::string CheckLine(const HealthCheck& check, const absl::Status& status) {
  if (status.ok()) return absl::StrCat("[+]", check.name, " ok\n");
  return absl::StrCat("[-]", check.name, " failed: ", status.ToString(), "\n");
}

// Runs `checks`, all of them: an operator wants to see every failing one.
// Lines of passing ones are shown only on request; failing ones always.
HttpResponse RunChecks(absl::Span<const HealthCheck> checks,
                       const Request& request) {
  HttpResponse response;
  for (const HealthCheck& check : checks) {
    const absl::Status status = check.check();
    if (!status.ok()) response.code = 503;
    if (request.verbose || !status.ok()) {
      absl::StrAppend(&response.body, CheckLine(check, status));
    }
  }
  const absl::string_view verdict = response.code == 200 ? "ok\n" : "not ok\n";
  absl::StrAppend(&response.body, verdict);
  return response;
}

// `rest` is what follows "/livez": "", "/" or "/NAME".
HttpResponse Health(const std::vector<HealthCheck>& checks,
                    absl::string_view rest, const Request& request) {
  absl::ConsumePrefix(&rest, "/");
  if (rest.empty()) return RunChecks(checks, request);
  for (const HealthCheck& check : checks) {
    if (check.name == rest) return RunChecks({&check, 1}, request);
  }
  return NotFound(request.path);
}

bool IsName(absl::string_view name) {
  if (name.empty()) return false;
  for (const char c : name) {
    if (!absl::ascii_islower(c) && !absl::ascii_isdigit(c) && c != '-') {
      return false;
    }
  }
  return true;
}

// Puts "ping" in front: a server that answers is a first check.
absl::Status PrepareChecks(std::vector<HealthCheck>& checks) {
  checks.insert(checks.begin(), {"ping", [] { return absl::OkStatus(); }});
  absl::btree_set<absl::string_view> seen;
  for (const HealthCheck& check : checks) {
    if (!IsName(check.name)) {
      return absl::InvalidArgumentError(
          absl::StrCat("a health check's name is made of [a-z0-9-]; got: \"",
                       check.name, "\""));
    }
    if (!seen.insert(check.name).second) {
      return absl::InvalidArgumentError(absl::StrCat(
          "health checks need names of their own; got: ", check.name,
          " twice"));
    }
  }
  return absl::OkStatus();
}

// HOST of HOST:PORT, for checks and for the address that is shown.
absl::StatusOr<std::string> ParseHost(absl::string_view listen) {
  const size_t colon = listen.rfind(':');
  uint32_t port = 0;
  if (colon == absl::string_view::npos || colon == 0 ||
      !absl::SimpleAtoi(listen.substr(colon + 1), &port) || port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the HTTP server listens on HOST:PORT; got: \"", listen, "\""));
  }
  return std::string(listen.substr(0, colon));
}

bool HasVerbose(const char* query) {
  if (query == nullptr) return false;
  for (absl::string_view parameter : absl::StrSplit(query, '&')) {
    if (parameter == "verbose" || absl::StartsWith(parameter, "verbose=")) {
      return true;
    }
  }
  return false;
}

// Those that no route can take.
bool IsOwnPath(absl::string_view path) {
  return path == "/metrics" || absl::StartsWith(path, "/livez") ||
         absl::StartsWith(path, "/readyz");
}

absl::string_view Header(const mg_connection* connection, const char* name) {
  const char* value = mg_get_header(connection, name);
  return value == nullptr ? "" : value;
}

void Compress(const mg_connection* connection, HttpResponse& response) {
  if (response.body.size() < kGzipFromBytes) return;
  response.headers.push_back({"Vary", "Accept-Encoding"});
  if (!AcceptsGzip(Header(connection, "Accept-Encoding"))) return;
  std::string packed = Gzip(response.body, kGzipLevel);
  if (packed.empty()) return;
  response.body = std::move(packed);
  response.headers.push_back({"Content-Encoding", "gzip"});
}

bool HasHeader(const HttpResponse& response, absl::string_view name) {
  return std::any_of(response.headers.begin(), response.headers.end(),
                     [name](const auto& header) {
                       return absl::EqualsIgnoreCase(header.first, name);
                     });
}

void Send(mg_connection* connection, absl::string_view method,
          const HttpResponse& response) {
  std::string head = absl::StrCat(
      "HTTP/1.1 ", response.code, " ",
      mg_get_response_code_text(connection, response.code),
      "\r\nContent-Type: ", response.content_type,
      "\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n");
  // Of a 304 it would be the length of what is not sent.
  if (response.code != 304) {
    absl::StrAppend(&head, "Content-Length: ", response.body.size(), "\r\n");
  }
  if (!HasHeader(response, "Cache-Control")) {
    absl::StrAppend(&head, "Cache-Control: no-store\r\n");
  }
  for (const auto& [name, value] : response.headers) {
    absl::StrAppend(&head, name, ": ", value, "\r\n");
  }
  absl::StrAppend(&head, "\r\n");
  mg_write(connection, head.data(), head.size());
  if (method != "HEAD") {
    mg_write(connection, response.body.data(), response.body.size());
  }
}

// No log files: a failure to start is the caller's to report.
int DropMessage(const mg_connection*, const char*) { return 1; }

absl::StatusOr<mg_context*> StartCivetweb(const std::string& listen,
                                          int threads,
                                          int (*handle)(mg_connection*),
                                          void* user_data) {
  const std::string num_threads = absl::StrCat(threads);
  const std::array<const char*, 9> settings = {"listening_ports",
                                               listen.c_str(),
                                               "num_threads",
                                               num_threads.c_str(),
                                               "request_timeout_ms",
                                               "5000",
                                               "enable_directory_listing",
                                               "no",
                                               nullptr};
  mg_callbacks callbacks = {};
  // Not mg_set_request_handler: that one comes after the start, and a probe
  // may come between.
  callbacks.begin_request = handle;
  callbacks.log_message = DropMessage;
  mg_init_data init = {};
  init.callbacks = &callbacks;
  init.user_data = user_data;
  init.configuration_options = const_cast<const char**>(settings.data());
  std::array<char, 256> text = {};
  mg_error_data error = {};
  error.text = text.data();
  error.text_buffer_size = text.size();
  mg_context* context = mg_start2(&init, &error);
  if (context != nullptr) return context;
  return absl::UnavailableError(
      absl::StrCat("cannot serve HTTP on ", listen, "; got: ", text.data()));
}

}  // namespace

struct HttpServer::State {
  ~State() {
    if (context != nullptr) Stop();
  }

  // civetweb looks at its stop flag when a connection comes, or every 2 s:
  // connections are made until it has stopped.
  void Stop() {
    std::atomic<bool> stopped = false;
    std::thread waker([this, &stopped] {
      while (!stopped) {
        std::array<char, 256> error = {};
        mg_connection* const connection = mg_connect_client(
            host.c_str(), port, /*use_ssl=*/0, error.data(), error.size());
        if (connection != nullptr) mg_close_connection(connection);
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
    });
    mg_stop(context);
    stopped = true;
    waker.join();
  }

  // Null: none.
  CountedRoute* RouteOf(absl::string_view path) const {
    CountedRoute* found = nullptr;
    for (const auto& route : routes) {
      if (route->Fits(path) &&
          (found == nullptr ||
           found->route.prefix.size() < route->route.prefix.size())) {
        found = route.get();
      }
    }
    return found;
  }

  // Two for probes and scrapes, so that a slow scrape does not fail a probe.
  int Threads() const {
    int threads = 2;
    for (const auto& route : routes) threads += route->route.max_calls;
    return threads;
  }

  HttpResponse Answer(const Request& request) const {
    absl::string_view rest = request.path;
    if (rest == "/metrics" && options.metrics != nullptr) {
      if (options.before_metrics) options.before_metrics();
      return {200, options.metrics->Text(), kExposition};
    }
    if (absl::ConsumePrefix(&rest, "/livez")) {
      return Health(options.live, rest, request);
    }
    if (absl::ConsumePrefix(&rest, "/readyz")) {
      return Health(options.ready, rest, request);
    }
    return NotFound(request.path);
  }

  HttpResponse AnswerGet(const mg_connection* connection,
                         const mg_request_info& info) const {
    CountedRoute* const route = RouteOf(info.local_uri);
    const char* query = info.query_string;
    if (route == nullptr || IsOwnPath(info.local_uri)) {
      return Answer({info.local_uri, HasVerbose(query)});
    }
    HttpResponse response =
        route->Answer({info.local_uri, query == nullptr ? "" : query,
                       Header(connection, "If-None-Match")});
    Compress(connection, response);
    return response;
  }

  static int Handle(mg_connection* connection) {
    const mg_request_info& info = *mg_get_request_info(connection);
    const absl::string_view method = info.request_method;
    HttpResponse response;
    if (method == "GET" || method == "HEAD") {
      response = static_cast<const State*>(info.user_data)
                     ->AnswerGet(connection, info);
    } else {
      response = {405, absl::StrCat("GET and HEAD only; got: ", method, "\n")};
    }
    Send(connection, method, response);
    return response.code;
  }

  Options options;
  std::vector<std::unique_ptr<CountedRoute>> routes;
  std::string address;
  std::string host;  // without the brackets of IPv6
  int port = 0;
  mg_context* context = nullptr;
};

HttpServer::HttpServer(std::unique_ptr<State> state)
    : state_(std::move(state)) {}

HttpServer::~HttpServer() = default;

const std::string& HttpServer::address() const { return state_->address; }

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(Options options) {
  absl::StatusOr<std::string> host = ParseHost(options.listen);
  if (!host.ok()) return host.status();
  for (std::vector<HealthCheck>* checks : {&options.live, &options.ready}) {
    if (absl::Status status = PrepareChecks(*checks); !status.ok()) {
      return status;
    }
  }
  auto state = std::make_unique<State>();
  for (HttpRoute& route : options.routes) {
    state->routes.push_back(std::make_unique<CountedRoute>(std::move(route)));
  }
  state->options = std::move(options);
  static const unsigned initialized = mg_init_library(0);
  static_cast<void>(initialized);
  absl::StatusOr<mg_context*> context = StartCivetweb(
      state->options.listen, state->Threads(), &State::Handle, state.get());
  if (!context.ok()) return context.status();
  state->context = *context;
  mg_server_port port = {};
  mg_get_server_ports(state->context, 1, &port);
  state->address = absl::StrCat(*host, ":", port.port);
  state->host =
      std::string(absl::StripSuffix(absl::StripPrefix(*host, "["), "]"));
  state->port = port.port;
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(state)));
}

}  // namespace shardplane
