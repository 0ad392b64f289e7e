// Steps of a coordinator of this machine, without gRPC.
#ifndef SHARDPLANE_WORKER_LOCAL_STEPS_H_
#define SHARDPLANE_WORKER_LOCAL_STEPS_H_

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ipc/file_descriptor.h"
#include "ipc/local_socket.h"
#include "worker/gang_worker.h"
#include "worker/steps_stream.h"

namespace shardplane {

// Listens on the step socket (ipc/step_socket.h). Each connection is a
// StepsStream with a thread to itself. Thread-safe.
class LocalSteps {
 public:
  // Is told of each stream.
  using OnStream = std::function<void(const std::shared_ptr<StepsStream>&)>;

  // Borrows `worker`, which outlives it and all that was read. Unavailable:
  // the system has no such sockets.
  static absl::StatusOr<std::unique_ptr<LocalSteps>> Start(uint64_t incarnation,
                                                           GangWorker* worker,
                                                           OnStream on_stream);
  // Closes what is still open.
  ~LocalSteps();

  // No further connections. Waits that long for those there are to end.
  void AwaitEnd(absl::Duration timeout);

 private:
  class Stream;
  struct Connection {
    std::shared_ptr<Stream> stream;
    std::thread thread;
  };

  LocalSteps(LocalListener listener, FileDescriptor stop, GangWorker* worker,
             OnStream on_stream)
      : listener_(std::move(listener)),
        stop_(std::move(stop)),
        worker_(worker),
        on_stream_(std::move(on_stream)),
        acceptor_([this] { Accept(); }) {}

  void Accept();
  void StopAccepting();
  // Those that have ended.
  void Join(bool all);

  const LocalListener listener_;
  const FileDescriptor stop_;  // an eventfd
  GangWorker* const worker_;
  const OnStream on_stream_;
  std::list<Connection> connections_;  // the acceptor's, while it runs
  std::thread acceptor_;               // last: uses the others
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_LOCAL_STEPS_H_
