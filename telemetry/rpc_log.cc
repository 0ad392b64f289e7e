#include "telemetry/rpc_log.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "google/protobuf/message.h"

namespace shardplane {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using grpc::experimental::InterceptionHookPoints;

// The scalar `field` as text; "" where there is none or it is not set.
std::string ValueOf(const Message& message, const std::string& field) {
  const FieldDescriptor* const found =
      message.GetDescriptor()->FindFieldByName(field);
  if (found == nullptr || found->is_repeated()) return "";
  const google::protobuf::Reflection& of = *message.GetReflection();
  if (found->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
    return of.GetString(message, found);
  }
  if (found->cpp_type() == FieldDescriptor::CPPTYPE_UINT64 &&
      of.GetUInt64(message, found) != 0) {
    return absl::StrCat(of.GetUInt64(message, found));
  }
  return "";
}

// The message in `field`; nullptr where there is none.
const Message* Within(const Message& message, const std::string& field) {
  const FieldDescriptor* const found =
      message.GetDescriptor()->FindFieldByName(field);
  if (found == nullptr || found->is_repeated() ||
      found->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
    return nullptr;
  }
  return &message.GetReflection()->GetMessage(message, found);
}

// What a request is about.
struct Subject {
  std::string request_id;
  std::string deployment;
  std::string step;

  void Read(const Message& message) {
    if (request_id.empty()) request_id = ValueOf(message, "request_id");
    if (step.empty()) step = ValueOf(message, "step");
    for (const char* field : {"deployment", "name", "parent"}) {
      const std::string name = ValueOf(message, field);
      if (deployment.empty() && absl::StartsWith(name, "deployments/")) {
        deployment = name;
      }
    }
    for (const char* field : {"gang", "header", "member"}) {
      if (const Message* inner = Within(message, field)) Read(*inner);
    }
  }
};

LogLevel LevelOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
    case absl::StatusCode::kCancelled:
      return LogLevel::kDebug;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kDeadlineExceeded:
      return LogLevel::kWarning;
    default:
      return LogLevel::kInfo;
  }
}

// "00-TRACE-SPAN-01" -> "TRACE"
std::string TraceId(absl::string_view traceparent) {
  return traceparent.size() == 55 ? std::string(traceparent.substr(3, 32)) : "";
}

class RpcLog : public grpc::experimental::Interceptor {
 public:
  RpcLog(const Log* log, std::string method)
      : log_(log), method_(std::move(method)), start_(absl::Now()) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* batch) override {
    if (batch->QueryInterceptionHookPoint(
            InterceptionHookPoints::POST_RECV_INITIAL_METADATA)) {
      ReadTrace(batch);
    }
    if (!read_ && batch->QueryInterceptionHookPoint(
                      InterceptionHookPoints::POST_RECV_MESSAGE)) {
      const void* const message = batch->GetRecvMessage();
      // All messages of ours are protobuf's.
      if (message != nullptr) {
        read_ = true;
        subject_.Read(*static_cast<const Message*>(message));
      }
    }
    if (batch->QueryInterceptionHookPoint(
            InterceptionHookPoints::PRE_SEND_STATUS)) {
      WriteLine(batch->GetSendStatus());
    }
    batch->Proceed();
  }

 private:
  void ReadTrace(grpc::experimental::InterceptorBatchMethods* batch) {
    const auto* const metadata = batch->GetRecvInitialMetadata();
    if (metadata == nullptr) return;
    const auto found = metadata->find("traceparent");
    if (found == metadata->end()) return;
    trace_id_ =
        TraceId(absl::string_view(found->second.data(), found->second.size()));
  }
  void WriteLine(const grpc::Status& status) {
    const auto code = static_cast<absl::StatusCode>(status.error_code());
    log_->Write(
        LevelOf(code), status.ok() ? "served" : status.error_message(),
        {{"method", method_},
         {"code", absl::StatusCodeToString(code)},
         {"seconds",
          absl::StrFormat("%.6f", absl::ToDoubleSeconds(absl::Now() - start_))},
         {"request_id", subject_.request_id},
         {"deployment", subject_.deployment},
         {"step", subject_.step},
         {"trace_id", trace_id_}});
  }

  const Log* const log_;
  const std::string method_;
  const absl::Time start_;
  bool read_ = false;
  Subject subject_;
  std::string trace_id_;
};

class RpcLogFactory
    : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit RpcLogFactory(const Log* log) : log_(log) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override {
    // Others' messages may be anything.
    const absl::string_view method = absl::StripPrefix(info->method(), "/");
    return absl::StartsWith(method, "shardplane.v1.")
               ? new RpcLog(log_, std::string(method))
               : nullptr;
  }

 private:
  const Log* const log_;
};

}  // namespace

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>
MakeRpcLog(const Log* log) {
  return std::make_unique<RpcLogFactory>(log);
}

}  // namespace shardplane
