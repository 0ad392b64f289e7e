// When a call is tried again.
#ifndef SHARDPLANE_CLIENT_BACKOFF_H_
#define SHARDPLANE_CLIENT_BACKOFF_H_

#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace shardplane {

// Exponential, with full jitter.
struct BackoffOptions {
  absl::Duration first = absl::Milliseconds(50);
  absl::Duration longest = absl::Seconds(2);
  absl::Duration retry_for = absl::Seconds(15);  // since the call began
};

// The waits of one call. A value; pure.
//
//   UNAVAILABLE, random 0.5     25 ms, then 50 ms, 100 ms, … 1 s
//   UNAVAILABLE, retry_ms 300   at least 300 ms
//   any other code              never
class Backoff {
 public:
  Backoff(const BackoffOptions& options, absl::Time start)
      : end_(start + options.retry_for),
        longest_(options.longest),
        next_(options.first) {}

  // How long to wait before the next try, after one that ended with `status`
  // at `now`; nullopt: the call has failed. `random` is in [0, 1).
  std::optional<absl::Duration> Next(const absl::Status& status, absl::Time now,
                                     double random);

 private:
  absl::Time end_;
  absl::Duration longest_;
  absl::Duration next_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_BACKOFF_H_
