// gRPC alone: servers that answer as a coordinator and a worker do, with
// messages of the same sizes, and do nothing else.
#ifndef SHARDPLANE_BENCH_ECHO_SERVER_H_
#define SHARDPLANE_BENCH_ECHO_SERVER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace shardplane {

// How a relay talks to the servers behind it.
enum class RelayBy {
  kCalls,    // a unary call to each
  kStreams,  // a message on a stream to each that stays open
};

struct EchoOptions {
  std::string listen = "127.0.0.1:0";
  // Where it passes each step on to (Worker services) and waits for all the
  // answers before its own. None: it answers at once.
  std::vector<std::string> workers;
  RelayBy relay_by = RelayBy::kCalls;
};

// Serves ShardingCoordinator.Step and Train, and Worker.Run and Steps, with
// gRPC's synchronous services, until it is destroyed.
class EchoServer {
 public:
  // Unavailable: the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<EchoServer>> Start(
      const EchoOptions& options);
  ~EchoServer();
  EchoServer(const EchoServer&) = delete;
  EchoServer& operator=(const EchoServer&) = delete;

  const std::string& address() const;

 private:
  struct State;
  explicit EchoServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_BENCH_ECHO_SERVER_H_
