// The public API for reading, as JSON over HTTP.
#ifndef SHARDPLANE_COORDINATOR_HTTP_API_H_
#define SHARDPLANE_COORDINATOR_HTTP_API_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/http_path.h"
#include "grpcpp/grpcpp.h"
#include "shardplane/v1/coordinator.grpc.pb.h"
#include "telemetry/http_server.h"

namespace shardplane {

// Answers GETs by calls of ShardingCoordinator's reading methods: the paths
// are those of docs/status_page.md, the query's parameters fields of the
// request, the body the response as JSON or a google.rpc.Status. `fields`
// (several, or one with commas) leaves out all else:
//   GET /v1/workers?page_size=100&fields=workers.name,next_page_token
// A watch is a long poll: GET /v1/watch?collections=workers&resume_version=V
// has what has changed since V as soon as there is anything, at the latest
// after `wait_ms` (at least 100 are waited, and `wait_limit` at most). Not a
// stream of events: each call ends soon by itself, fits into one answer that
// can be compressed, and shows errors as any other. Thread-safe.
class HttpApi {
 public:
  struct Options {
    std::shared_ptr<grpc::Channel> channel;  // to the coordinator
    absl::Duration call_limit = absl::Seconds(10);
    absl::Duration wait_limit = absl::Seconds(20);  // of a watch
    int max_calls = 8;
    int max_waits = 16;
  };
  explicit HttpApi(Options options);

  // For an HttpServer that ends before this does.
  std::vector<HttpRoute> Routes();

  // Watches that wait end, and none wait any more: UNAVAILABLE.
  void EndWaits();

 private:
  class Wait;

  HttpResponse Get(const HttpRequest& request);
  HttpResponse Watch(const HttpRequest& request);
  absl::Status ReadWatch(HttpParameters parameters,
                         v1::WatchResponse* response);

  const Options options_;
  const std::unique_ptr<v1::ShardingCoordinator::Stub> stub_;
  absl::Mutex mutex_;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  absl::flat_hash_set<grpc::ClientContext*> waits_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_HTTP_API_H_
