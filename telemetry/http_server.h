// The plaintext HTTP port of a daemon: metrics for Prometheus, health for
// probes. It is a port of its own because a kubelet speaks no mTLS.
#ifndef SHARDPLANE_TELEMETRY_HTTP_SERVER_H_
#define SHARDPLANE_TELEMETRY_HTTP_SERVER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "telemetry/metrics.h"

namespace shardplane {

// One named reason to be ready or not. `check` is called on the server's
// threads, from several at once, and must not block.
struct HealthCheck {
  std::string name;  // of [a-z0-9-]: the sub-path, as in /readyz/registered
  std::function<absl::Status()> check;
};

// Serves
//   /metrics          text exposition of `metrics`
//   /livez, /readyz   200 "ok" if all its checks pass, else 503; with ?verbose
//                     one line a check: "[+]serving ok", "[-]registered failed:
//                     UNAVAILABLE: ..."
//   /livez/NAME, /readyz/NAME   that check alone; 404 if there is none
// GET and HEAD only. The destructor stops the server and waits for requests
// that are under way. Example of an address: "127.0.0.1:40123".
class HttpServer {
 public:
  struct Options {
    // HOST:PORT, HOST an IP address ("[::1]:0" for IPv6). Port 0: any free one.
    std::string listen = "127.0.0.1:0";
    // Outlives the server; null: /metrics is 404.
    const Metrics* metrics = nullptr;
    std::vector<HealthCheck> live;   // beside the built-in "ping"
    std::vector<HealthCheck> ready;  // beside the built-in "ping"
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
