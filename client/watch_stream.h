// What changes at a coordinator, as it does.
#ifndef SHARDPLANE_CLIENT_WATCH_STREAM_H_
#define SHARDPLANE_CLIENT_WATCH_STREAM_H_

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/backoff.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/sync_stream.h"
#include "shardplane/v1/coordinator.grpc.pb.h"

namespace shardplane {

struct WatchStreamOptions {
  // When it ends: DeadlineExceeded.
  absl::Time until = absl::InfiniteFuture();
  // While the coordinator is Unavailable; retry_for counts from the last event.
  BackoffOptions backoff;
  // How it waits before its next try. Null: as its client does.
  std::function<void(absl::Duration)> sleep;
};

// One thread calls Next; any may call Cancel.
//
//   const auto watch = client->Watch(request);
//   while ((event = watch->Next()).ok()) { ... }
//
// A stream goes on by itself, from the last version that it has given, when the
// connection is lost and when the coordinator has closed it because nothing was
// taken for long (WATCH_TOO_SLOW): each change is seen once. Where that happens
// before the first bookmark, what there is comes once more, from the beginning.
class WatchStream {
 public:
  // `stub` is borrowed. The call starts with the first Next.
  WatchStream(v1::ShardingCoordinator::Stub* stub, v1::WatchRequest request,
              WatchStreamOptions options);
  ~WatchStream();
  WatchStream(const WatchStream&) = delete;
  WatchStream& operator=(const WatchStream&) = delete;

  // The next event; waits for it. OutOfRange: what has changed meanwhile is no
  // longer known; the next call starts anew with what there is, and all that
  // was known is to be forgotten. Unavailable: nobody has answered for
  // `backoff.retry_for`. Cancelled: by Cancel. Other errors: as the API says.
  absl::StatusOr<v1::WatchEvent> Next() ABSL_LOCKS_EXCLUDED(mu_);

  // Ends Next, now and later.
  void Cancel() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // Reads one message into `events_`; OK, or why the call has ended.
  absl::Status Receive() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Start() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Finish() ABSL_LOCKS_EXCLUDED(mu_);
  // Whether the call may be made again after it has ended so; waits before.
  bool MayGoOn(const absl::Status& status);

  v1::ShardingCoordinator::Stub* const stub_;
  const WatchStreamOptions options_;
  v1::WatchRequest request_;
  bool resumes_ = !request_.resume_version().empty();  // from a version
  std::deque<v1::WatchEvent> events_;                  // read and not given
  std::optional<Backoff> backoff_;                     // while nothing comes
  std::unique_ptr<grpc::ClientReader<v1::WatchResponse>> reader_;

  absl::Mutex mu_;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  // Of the call that runs.
  std::unique_ptr<grpc::ClientContext> context_ ABSL_GUARDED_BY(mu_);
};

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_WATCH_STREAM_H_
