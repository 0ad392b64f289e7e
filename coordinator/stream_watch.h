// Ends streams on which nothing comes any more.
#ifndef SHARDPLANE_COORDINATOR_STREAM_WATCH_H_
#define SHARDPLANE_COORDINATOR_STREAM_WATCH_H_

#include <cstdint>
#include <functional>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace shardplane {

// Thread-safe; outlives the streams that it watches. A service that blocks in
// a read cannot notice by itself that its client has fallen silent.
class StreamWatch {
 public:
  StreamWatch(absl::Duration idle_limit, std::function<absl::Time()> clock)
      : idle_limit_(idle_limit), clock_(std::move(clock)) {}

  class Stream {
   public:
    // `cancel` makes a blocked read return; it must not block.
    Stream(StreamWatch* watch, std::function<void()> cancel);
    ~Stream();
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    void Touch();  // something has come
    // While it is busy, silence is no idleness.
    void SetBusy(bool busy);

   private:
    StreamWatch* watch_;
    uint64_t id_;
  };

  // Cancels streams that have been idle for too long; call it now and then.
  void Sweep();

 private:
  struct Entry {
    absl::Time last;
    bool busy = false;
    std::function<void()> cancel;
  };
  const absl::Duration idle_limit_;
  const std::function<absl::Time()> clock_;
  absl::Mutex mu_;
  uint64_t next_id_ ABSL_GUARDED_BY(mu_) = 1;
  absl::btree_map<uint64_t, Entry> streams_ ABSL_GUARDED_BY(mu_);
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_STREAM_WATCH_H_
