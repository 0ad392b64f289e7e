// One end of a connection between two processes of one machine: messages of any
// size, whole and in order.
#ifndef SHARDPLANE_IPC_LINK_H_
#define SHARDPLANE_IPC_LINK_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "ipc/file_descriptor.h"
#include "ipc/local_socket.h"
#include "ipc/shared_bytes.h"

namespace shardplane {

// A small message travels in the socket. Of a larger one what begins it does,
// and the rest is read where the sender has left it (SharedBytes).
//
// Thread-safe. Run has a thread to itself, on which it calls the handler;
// nothing else waits.
class Link {
 public:
  // What comes in; never two calls at once.
  class Handler {
   public:
    virtual ~Handler() = default;
    // `bytes`, then `rest`, until it returns. The next one comes after ReadOn.
    virtual void OnMessage(absl::string_view bytes, absl::string_view rest) = 0;
    // What had to wait has been sent.
    virtual void OnSent() = 0;
  };
  enum class Sent { kNow, kLater, kNever };

  // An end of ConnectLocally or AcceptLocal.
  explicit Link(FileDescriptor socket);
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  // Messages up to this size travel in the socket.
  static constexpr size_t kMaxInline = kMaxPacketBytes - 1;

  // Sends `parts`, and then `rest` (may be null) as one message. What is too
  // large for the socket goes into shared memory, but for the first part: it is
  // small, and comes in `bytes`. Borrows `parts` for the call.
  //   kLater   there is no room, as the other side has not read so much; OnSent
  //            comes, and nothing may be sent before
  //   kNever   the connection has ended, or the system has no memory for what
  //            is too large for the socket, which ends it
  Sent Send(absl::Span<const absl::string_view> parts,
            std::shared_ptr<const SharedBytes> rest = nullptr);
  // Asks for one more message; at first there is none asked for.
  void ReadOn();
  // Run returns soon. What has been sent can still be read.
  void Close();

  // Until either side has closed; why. OK: it was Close. Aborted: the other
  // side, or its process, has gone.
  absl::Status Run(Handler& handler);

 private:
  struct Unsent {
    std::string bytes;
    std::shared_ptr<const SharedBytes> rest;
  };
  absl::Status TrySend(absl::Span<const absl::string_view> parts,
                       const SharedBytes* rest);
  // That something is to be done that Run's thread does not wait for yet.
  void Wake() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Waits for what there is to do; the events of the socket.
  short Wait() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Receive(Handler& handler) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status SendUnsent(Handler& handler) ABSL_LOCKS_EXCLUDED(mutex_);

  const FileDescriptor socket_;
  const FileDescriptor wake_;  // an eventfd

  absl::Mutex mutex_;
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool waiting_ ABSL_GUARDED_BY(mutex_) = false;  // Run's thread, in the system
  std::unique_ptr<Unsent> unsent_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shardplane

#endif  // SHARDPLANE_IPC_LINK_H_
