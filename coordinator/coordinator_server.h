// The coordinator's gRPC server with all its services.
#ifndef SHARDPLANE_COORDINATOR_COORDINATOR_SERVER_H_
#define SHARDPLANE_COORDINATOR_COORDINATOR_SERVER_H_

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "coordinator/coordinator.h"
#include "coordinator/watch_streams.h"
#include "grpcpp/channel.h"
#include "telemetry/log.h"
#include "telemetry/metrics.h"

namespace shardplane {

// ShardingCoordinator, WorkerRegistry, Rendezvous, health and reflection on one
// port. Calls that wait keep a thread each; gRPC starts another when all are
// taken, so that they never keep a lease renewal waiting. The destructor stops.
class CoordinatorServer {
 public:
  struct Options {
    std::string listen = "127.0.0.1:0";
    // host:port that workers reach the Rendezvous service at. "": the bound
    // address, or what each worker knows where that is no address to call.
    std::string advertise;
    absl::Duration stream_idle_limit = absl::Minutes(2);
    absl::Duration tick = absl::Milliseconds(250);
    int max_message_bytes = 32 << 20;
    Metrics* metrics = nullptr;  // outlives the server
    const Log* log = nullptr;    // the same; may be null
    // Whose coordinator and metrics are filled in.
    WatchOptions watches = {};
    Coordinator::Options coordinator;  // rendezvous_address is filled in
  };

  // Unavailable: the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<CoordinatorServer>> Start(
      Options options);
  ~CoordinatorServer();
  CoordinatorServer(const CoordinatorServer&) = delete;
  CoordinatorServer& operator=(const CoordinatorServer&) = delete;

  // Takes no new calls, waits at most `grace` for those that run, then ends
  // them. Health says NOT_SERVING from the start.
  void Drain(absl::Duration grace);

  const std::string& address() const;  // host:port, as bound
  // To its own services, for calls from within the process; of no use when the
  // server has gone.
  std::shared_ptr<grpc::Channel> InProcessChannel();
  Coordinator& coordinator();
  absl::Status Serving() const;  // Unavailable once it drains

 private:
  struct State;
  explicit CoordinatorServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_COORDINATOR_SERVER_H_
