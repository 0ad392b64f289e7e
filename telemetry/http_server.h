// The plaintext HTTP port of a daemon: metrics for Prometheus, health for
// probes. It is a port of its own because a kubelet speaks no mTLS.
#ifndef SHARDPLANE_TELEMETRY_HTTP_SERVER_H_
#define SHARDPLANE_TELEMETRY_HTTP_SERVER_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "telemetry/metrics.h"

namespace shardplane {

// One named reason to be ready or not. `check` is called on the server's
// threads, from several at once, and must not block.
struct HealthCheck {
  std::string name;  // of [a-z0-9-]: the sub-path, as in /readyz/registered
  std::function<absl::Status()> check;
};

// A GET as a route's handler sees it; valid during the call.
struct HttpRequest {
  absl::string_view path;           // decoded: "/v1/workers"
  absl::string_view query;          // as it came: "page_size=10&x=%20"
  absl::string_view if_none_match;  // the header, or ""
};

struct HttpResponse {
  int code = 200;
  std::string body = {};
  std::string content_type = "text/plain; charset=utf-8";
  // Beside Content-Type, Content-Length, Cache-Control ("no-store", unless it
  // is here), X-Content-Type-Options and Connection.
  std::vector<std::pair<std::string, std::string>> headers = {};
};

// What else a server answers: the path that is `prefix` or, where that ends in
// "/", all that begin with it. "/v1/" has "/v1/workers", "/" what no longer
// prefix has.
struct HttpRoute {
  std::string prefix;
  // Called on the server's threads, from several at once.
  std::function<HttpResponse(const HttpRequest&)> handle;
  // So many calls at one time; what comes beyond them is answered 503 with
  // Retry-After at once. What waits takes a thread that probes need.
  int max_calls = 4;
};

// Serves
//   /metrics          text exposition of `metrics`
//   /livez, /readyz   200 "ok" if all its checks pass, else 503; with ?verbose
//                     one line a check: "[+]serving ok", "[-]registered failed:
//                     UNAVAILABLE: ..."
//   /livez/NAME, /readyz/NAME   that check alone; 404 if there is none
//   `routes`          what their handlers say, as gzip where that is asked for
//                     and pays
// GET and HEAD only. There are as many threads as the routes may take together
// and two more, so that neither a probe nor a scrape waits for them. The
// destructor stops the server and waits for requests that are under way.
// Example of an address: "127.0.0.1:40123".
class HttpServer {
 public:
  struct Options {
    // HOST:PORT, HOST an IP address ("[::1]:0" for IPv6). Port 0: any free one.
    std::string listen = "127.0.0.1:0";
    // Outlives the server; null: /metrics is 404.
    const Metrics* metrics = nullptr;
    // Called before each answer of /metrics, for what is only measured then.
    std::function<void()> before_metrics;
    std::vector<HealthCheck> live;   // beside the built-in "ping"
    std::vector<HealthCheck> ready;  // beside the built-in "ping"
    // The longest prefix that fits answers.
    std::vector<HttpRoute> routes;
  };

  // INVALID_ARGUMENT: `listen` is no HOST:PORT, or a check's name is bad, given
  // twice or "ping". UNAVAILABLE: the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(Options options);

  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // HOST:PORT with the port that was bound.
  const std::string& address() const;

 private:
  struct State;
  explicit HttpServer(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_TELEMETRY_HTTP_SERVER_H_
