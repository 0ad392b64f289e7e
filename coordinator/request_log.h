// Answers of writes by request id: a repeated call is answered, not repeated.
#ifndef SHARDPLANE_COORDINATOR_REQUEST_LOG_H_
#define SHARDPLANE_COORDINATOR_REQUEST_LOG_H_

#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace shardplane {

// Thread-safe. Owned by the services of one coordinator. Answers are opaque
// bytes. Only success is remembered: a call that failed changed nothing, so a
// repeated one is tried anew; its id stays bound to its body.
//
//   log.Run("1b9d…", Digest(body), deadline, call)   runs `call`
//   log.Run("1b9d…", Digest(body), deadline, call)   the same answer
class RequestLog {
 public:
  struct Options {
    absl::Duration window = absl::Hours(24);
    size_t max_entries = 100'000;
    size_t max_bytes = size_t{64} << 20;  // of recorded answers
    std::function<absl::Time()> clock = &absl::Now;
  };
  using Call = std::function<absl::StatusOr<std::string>()>;

  explicit RequestLog(Options options) : options_(std::move(options)) {}

  // The recorded answer, else that of the same call that is still running
  // (waits for it), else runs `call` on this thread. An empty id is never
  // recorded. InvalidArgument: an id that is no UUID4 (field request_id), or
  // the id came with another digest (REQUEST_ID_REUSED). DeadlineExceeded: the
  // running call took too long. And whatever `call` returns.
  absl::StatusOr<std::string> Run(absl::string_view request_id,
                                  absl::string_view digest, absl::Time deadline,
                                  const Call& call);

  size_t size() const;

 private:
  struct Entry {
    std::string digest;
    absl::Time time;
    bool running = false;
    bool recorded = false;
    absl::StatusOr<std::string> answer;  // once it does not run any more
  };
  // Oldest first. Shared with the waiters, which may outlive an entry's place.
  using Entries = std::list<std::pair<std::string, std::shared_ptr<Entry>>>;

  void Trim() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Forget(Entries::iterator it) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;
  mutable absl::Mutex mu_;
  Entries entries_ ABSL_GUARDED_BY(mu_);
  absl::btree_map<std::string, Entries::iterator> index_ ABSL_GUARDED_BY(mu_);
  size_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
};

// Whether `id` is a UUID of version 4 in its text form, upper or lower case.
bool IsUuid4(absl::string_view id);

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_REQUEST_LOG_H_
