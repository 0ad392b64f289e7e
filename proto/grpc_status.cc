#include "proto/grpc_status.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/errors.h"
#include "google/rpc/error_details.pb.h"

namespace shardplane {
namespace {

namespace rpc = ::google::rpc;

// gRPC refuses trailers over 8 KiB; ours stay below 6. The message travels
// percent-encoded in grpc-message, and in the details, which are base64, once
// whole and twice as a description; "field" and "subject" travel twice there.
// At worst: 1300 + 4/3 * (900 + 2 * 200 + 1200 + 3 * 300 + names).
constexpr size_t kMaxMessageBytes = 900;
constexpr size_t kMaxEncodedMessageBytes = 1300;
constexpr size_t kMaxDescriptionBytes = 200;
constexpr size_t kMaxValueBytes = 300;
constexpr size_t kMaxNameBytes = 64;
constexpr size_t kMetadataBudgetBytes = 1200;

// Entries that a program acts on; kept first when the budget is short.
constexpr absl::string_view kImportantKeys[] = {
    "field",   "expected", "retry_ms", "fqn",      "op",
    "pattern", "resource", "subject",  "mesh_dim", "rank",
};

// Length of the UTF-8 sequence that starts at `text`, or 0 if none does.
size_t SequenceLength(absl::string_view text) {
  const auto byte = [&](size_t i) {
    return static_cast<unsigned char>(text[i]);
  };
  const unsigned char lead = byte(0);
  const size_t length = lead < 0x80             ? 1
                        : (lead & 0xE0) == 0xC0 ? 2
                        : (lead & 0xF0) == 0xE0 ? 3
                        : (lead & 0xF8) == 0xF0 ? 4
                                                : 0;
  if (length == 0 || length > text.size()) {
    return 0;
  }
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) {
      return 0;
    }
  }
  // Overlong forms, surrogates and code points over U+10FFFF.
  const bool bad =
      (length == 2 && lead < 0xC2) ||
      (length == 3 && lead == 0xE0 && byte(1) < 0xA0) ||
      (length == 3 && lead == 0xED && byte(1) > 0x9F) ||
      (length == 4 && lead == 0xF0 && byte(1) < 0x90) ||
      (length == 4 && (lead > 0xF4 || (lead == 0xF4 && byte(1) > 0x8F)));
  return bad ? 0 : length;
}

// At most `limit` bytes of UTF-8: what is no character becomes "?", what is
// too long ends in "...". A proto string must be UTF-8 or nobody parses it.
std::string Cut(absl::string_view text, size_t limit) {
  constexpr absl::string_view kEllipsis = "...";
  std::string out;
  size_t kept = 0;  // of `out`, where an ellipsis still fits
  while (!text.empty()) {
    const size_t length = SequenceLength(text);
    if (length == 0) {
      out += '?';
    } else {
      out.append(text.data(), length);
    }
    text.remove_prefix(std::max<size_t>(length, 1));
    if (out.size() + kEllipsis.size() <= limit) {
      kept = out.size();
    }
    if (out.size() > limit) {
      out.resize(kept);
      absl::StrAppend(&out, kEllipsis);
      break;
    }
  }
  return out;
}

// The message to send; one that percent-encoding makes three times as long is
// cut as if all of it were.
std::string BoundedMessage(absl::string_view message) {
  std::string cut = Cut(message, kMaxMessageBytes);
  const size_t escaped = std::count_if(cut.begin(), cut.end(), [](char c) {
    return c < ' ' || c > '~' || c == '%';
  });
  return cut.size() + 2 * escaped <= kMaxEncodedMessageBytes
             ? cut
             : Cut(cut, kMaxEncodedMessageBytes / 3);
}

// The info to send: that of the status within the budget, or one made of the
// code's name.
ErrorInfo BoundedInfo(const absl::Status& status) {
  const std::optional<ErrorInfo> full = GetErrorInfo(status);
  ErrorInfo info;
  if (!full.has_value() || full->reason.empty()) {
    info.reason = absl::StatusCodeToString(status.code());
  } else {
    info.reason = Cut(full->reason, kMaxNameBytes);
  }
  if (!full.has_value()) {
    return info;
  }
  size_t budget = kMetadataBudgetBytes;
  const auto add = [&](absl::string_view key, absl::string_view value) {
    const std::string name = Cut(key, kMaxNameBytes);
    std::string text = Cut(value, kMaxValueBytes);
    // Each entry costs some bytes of framing.
    const size_t cost = name.size() + text.size() + 10;
    if (cost <= budget && info.metadata.emplace(name, text).second) {
      budget -= cost;
    }
  };
  for (const absl::string_view key : kImportantKeys) {
    if (const auto it = full->metadata.find(std::string(key));
        it != full->metadata.end()) {
      add(key, it->second);
    }
  }
  for (const auto& [key, value] : full->metadata) {
    add(key, value);
  }
  return info;
}

class DetailsWriter {
 public:
  DetailsWriter(absl::StatusCode code, const ErrorInfo& info,
                rpc::Status* status)
      : code_(code), info_(info), status_(status) {}

  void Write() {
    WriteErrorInfo();
    WriteBadRequest();
    WritePreconditionFailure();
    WriteResourceInfo();
    WriteRetryInfo();
  }

 private:
  const std::string* Find(absl::string_view key) const {
    const auto it = info_.metadata.find(std::string(key));
    return it == info_.metadata.end() ? nullptr : &it->second;
  }
  std::string Description() const {
    return Cut(status_->message(), kMaxDescriptionBytes);
  }
  void Add(const google::protobuf::Message& detail) {
    status_->add_details()->PackFrom(detail);
  }

  void WriteErrorInfo() {
    rpc::ErrorInfo detail;
    detail.set_reason(info_.reason);
    detail.set_domain(kErrorDomain);
    for (const auto& [key, value] : info_.metadata) {
      (*detail.mutable_metadata())[key] = value;
    }
    Add(detail);
  }

  void WriteBadRequest() {
    const std::string* field = Find("field");
    if (field == nullptr) {
      return;
    }
    rpc::BadRequest detail;
    rpc::BadRequest::FieldViolation* violation = detail.add_field_violations();
    violation->set_field(*field);
    violation->set_description(Description());
    Add(detail);
  }

  void WritePreconditionFailure() {
    if (code_ != absl::StatusCode::kFailedPrecondition) {
      return;
    }
    const std::string* subject = Find("subject");
    subject = subject == nullptr ? Find("resource") : subject;
    rpc::PreconditionFailure detail;
    rpc::PreconditionFailure::Violation* violation = detail.add_violations();
    violation->set_type(info_.reason);
    violation->set_subject(subject == nullptr ? "" : *subject);
    violation->set_description(Description());
    Add(detail);
  }

  void WriteResourceInfo() {
    const std::string* resource = Find("resource");
    if (resource == nullptr || (code_ != absl::StatusCode::kNotFound &&
                                code_ != absl::StatusCode::kAlreadyExists)) {
      return;
    }
    rpc::ResourceInfo detail;
    // "deployments/d" is of the collection "deployments".
    detail.set_resource_type(resource->substr(0, resource->find('/')));
    detail.set_resource_name(*resource);
    detail.set_description(Description());
    Add(detail);
  }

  void WriteRetryInfo() {
    const std::string* text = Find("retry_ms");
    int64_t ms = 0;
    if (text == nullptr || !absl::SimpleAtoi(*text, &ms) || ms < 0) {
      return;
    }
    rpc::RetryInfo detail;
    detail.mutable_retry_delay()->set_seconds(ms / 1000);
    detail.mutable_retry_delay()->set_nanos(static_cast<int32_t>(ms % 1000) *
                                            1'000'000);
    Add(detail);
  }

  const absl::StatusCode code_;
  const ErrorInfo& info_;
  rpc::Status* const status_;
};

std::optional<ErrorInfo> InfoOf(const rpc::Status& status) {
  for (const google::protobuf::Any& any : status.details()) {
    rpc::ErrorInfo detail;
    if (!any.Is<rpc::ErrorInfo>() || !any.UnpackTo(&detail) ||
        detail.domain() != kErrorDomain) {
      continue;
    }
    ErrorInfo info{.reason = detail.reason(), .metadata = {}};
    info.metadata.insert(detail.metadata().begin(), detail.metadata().end());
    return info;
  }
  return std::nullopt;
}

absl::StatusCode CodeFromNumber(int number) {
  // The numbers agree; one that is none of theirs is unknown.
  return number >= 0 && number <= 16 ? static_cast<absl::StatusCode>(number)
                                     : absl::StatusCode::kUnknown;
}

}  // namespace

google::rpc::Status ToRpcStatus(const absl::Status& status) {
  rpc::Status out;
  out.set_code(static_cast<int>(status.code()));
  if (status.ok()) {
    return out;
  }
  out.set_message(BoundedMessage(status.message()));
  const ErrorInfo info = BoundedInfo(status);
  DetailsWriter(status.code(), info, &out).Write();
  return out;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) {
    return grpc::Status::OK;
  }
  const rpc::Status out = ToRpcStatus(status);
  return grpc::Status(static_cast<grpc::StatusCode>(out.code()), out.message(),
                      out.SerializeAsString());
}

absl::Status FromRpcStatus(const google::rpc::Status& status) {
  if (status.code() == 0) {
    return absl::OkStatus();
  }
  const absl::StatusCode code = CodeFromNumber(status.code());
  if (const std::optional<ErrorInfo> info = InfoOf(status)) {
    return MakeError(code, status.message(), *info);
  }
  return absl::Status(code, status.message());
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) {
    return absl::OkStatus();
  }
  rpc::Status whole;
  if (!whole.ParseFromString(status.error_details())) {
    whole.Clear();
  }
  // What gRPC itself says counts.
  whole.set_code(status.error_code());
  whole.set_message(status.error_message());
  return FromRpcStatus(whole);
}

}  // namespace shardplane
