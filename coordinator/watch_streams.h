// The calls of ShardingCoordinator.Watch.
#ifndef SHARDPLANE_COORDINATOR_WATCH_STREAMS_H_
#define SHARDPLANE_COORDINATOR_WATCH_STREAMS_H_

#include <cstdint>
#include <list>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/bulletin.h"
#include "coordinator/ids.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "shardplane/v1/coordinator.pb.h"
#include "telemetry/metrics.h"

namespace shardplane {

struct WatchOptions {
  Incarnation coordinator;  // versions are bound to it
  // A reader that takes nothing for so long is closed.
  absl::Duration slow = absl::Seconds(30);
  // A quiet stream gets a BOOKMARK this often.
  absl::Duration bookmark = absl::Seconds(15);
  Metrics* metrics = nullptr;  // outlives the streams; may be null
};

// One call: a place in the change log, and at most one message on its way. A
// reader that is slow costs nothing but what it is behind by: what it has not
// been sent lies in the log alone.
//
// Owns itself until gRPC is done with it. Thread-safe.
class WatchStream final : public grpc::ServerWriteReactor<v1::WatchResponse>,
                          public std::enable_shared_from_this<WatchStream> {
 public:
  // `refused`: an error to end with at once, or OK.
  static std::shared_ptr<WatchStream> Start(const Bulletin* bulletin,
                                            const WatchOptions& options,
                                            ChangeFilter filter, uint64_t after,
                                            const absl::Status& refused);

  // Writes what there is to write; ends a stream whose reader is too slow.
  void Advance();
  void End(const absl::Status& status);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  enum class Action { kNothing, kWrite, kFinish };

  WatchStream(const Bulletin* bulletin, const WatchOptions& options,
              ChangeFilter filter, uint64_t after)
      : bulletin_(bulletin),
        options_(options),
        filter_(std::move(filter)),
        after_(after),
        sent_(after) {}
  Action Next() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // What changed since `after_`; moves it on.
  void Fill() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void AddBookmark() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status TooSlow() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Bulletin* const bulletin_;
  const WatchOptions options_;
  const ChangeFilter filter_;
  std::shared_ptr<WatchStream> self_;  // until OnDone
  v1::WatchResponse message_;          // gRPC's while writing_

  absl::Mutex mu_;
  bool advancing_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool caught_up_ ABSL_GUARDED_BY(mu_) = false;  // once, and told so
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t after_ ABSL_GUARDED_BY(mu_);       // all up to here is in a message
  uint64_t sent_ ABSL_GUARDED_BY(mu_);        // all up to here was taken
  absl::Time since_ ABSL_GUARDED_BY(mu_);     // of the message on its way
  absl::Status status_ ABSL_GUARDED_BY(mu_);  // to end with
};

// All calls of a service, and the thread that wakes them. Thread-safe. The
// destructor ends them; gRPC is then soon done with them.
class WatchStreams {
 public:
  WatchStreams(const Bulletin* bulletin, WatchOptions options);
  ~WatchStreams();

  WatchStream* Start(const v1::WatchRequest& request);
  // Ends all, and every later one at once: Unavailable, SHUTTING_DOWN.
  void End();

 private:
  void Wake();
  std::list<std::shared_ptr<WatchStream>> Alive();

  const Bulletin* const bulletin_;
  const WatchOptions options_;
  absl::Mutex mu_;
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  std::list<std::weak_ptr<WatchStream>> streams_ ABSL_GUARDED_BY(mu_);
  std::thread waker_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_WATCH_STREAMS_H_
