#include "telemetry/rpc_metrics.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"

namespace shardplane {
namespace {

using grpc::experimental::InterceptionHookPoints;

std::string MethodLabel(absl::string_view method) {
  const absl::string_view name = absl::StripPrefix(method, "/");
  const bool known = absl::StartsWith(name, "shardplane.v1.") ||
                     absl::StartsWith(name, "grpc.health.v1.");
  return known ? std::string(name) : "other";
}

class RpcMetrics : public grpc::experimental::Interceptor {
 public:
  RpcMetrics(Metrics* metrics, std::string method)
      : metrics_(metrics), method_(std::move(method)), start_(absl::Now()) {
    metrics_->Add(Counter::kGrpcServerCallStarted, {method_});
  }

  void Intercept(grpc::experimental::InterceptorBatchMethods* batch) override {
    if (batch->QueryInterceptionHookPoint(
            InterceptionHookPoints::PRE_SEND_STATUS)) {
      const auto code =
          static_cast<absl::StatusCode>(batch->GetSendStatus().error_code());
      metrics_->Observe(Histogram::kGrpcServerCallDuration,
                        {method_, absl::StatusCodeToString(code)},
                        absl::Now() - start_);
    }
    batch->Proceed();
  }

 private:
  Metrics* const metrics_;
  const std::string method_;
  const absl::Time start_;
};

class RpcMetricsFactory
    : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit RpcMetricsFactory(Metrics* metrics) : metrics_(metrics) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override {
    return new RpcMetrics(metrics_, MethodLabel(info->method()));
  }

 private:
  Metrics* const metrics_;
};

}  // namespace

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>
MakeRpcMetrics(Metrics* metrics) {
  return std::make_unique<RpcMetricsFactory>(metrics);
}

}  // namespace shardplane
