#include "coordinator/request_log.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {
namespace {

absl::Status CheckId(absl::string_view id) {
  if (IsUuid4(id)) {
    return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat("request_id: expected a UUID of version 4, got: \"",
                   id.substr(0, 64), "\""),
      {.reason = "REQUEST_ID_INVALID", .metadata = {{"field", "request_id"}}});
}

absl::Status Reused(absl::string_view id) {
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat("request_id: an earlier call with this id had another ",
                   "body; expected: a new id, got: ", id),
      {.reason = "REQUEST_ID_REUSED", .metadata = {{"field", "request_id"}}});
}

absl::Status StillRunning(absl::string_view id) {
  return MakeError(absl::StatusCode::kDeadlineExceeded,
                   absl::StrCat("the first call with this request id is still "
                                "running, got: ",
                                id),
                   {.reason = "FIRST_CALL_RUNNING"});
}

}  // namespace

bool IsUuid4(absl::string_view id) {
  static constexpr absl::string_view kForm =
      "xxxxxxxx-xxxx-4xxx-vxxx-xxxxxxxxxxxx";
  if (id.size() != kForm.size()) {
    return false;
  }
  for (size_t i = 0; i < id.size(); ++i) {
    const char c = absl::ascii_tolower(id[i]);
    const bool fits = kForm[i] == 'x' ? absl::ascii_isxdigit(c)
                      : kForm[i] == 'v'
                          ? c == '8' || c == '9' || c == 'a' || c == 'b'
                          : c == kForm[i];
    if (!fits) {
      return false;
    }
  }
  return true;
}

absl::StatusOr<std::string> RequestLog::Run(absl::string_view request_id,
                                            absl::string_view digest,
                                            absl::Time deadline,
                                            const Call& call) {
  if (request_id.empty()) {
    return call();
  }
  SP_RETURN_IF_ERROR(CheckId(request_id));
  const std::string id = absl::AsciiStrToLower(request_id);
  std::shared_ptr<Entry> entry;
  {
    absl::MutexLock lock(&mu_);
    Trim();
    auto it = index_.find(id);
    if (it == index_.end()) {
      entry = std::make_shared<Entry>();
      entry->digest = std::string(digest);
      entry->time = options_.clock();
      it =
          index_.emplace(id, entries_.emplace(entries_.end(), id, entry)).first;
    }
    entry = it->second->second;
    if (entry->digest != digest) {
      return Reused(request_id);
    }
    const auto idle = [&entry] { return !entry->running; };
    if (entry->running) {
      if (!mu_.AwaitWithDeadline(absl::Condition(&idle), deadline)) {
        return StillRunning(request_id);
      }
      return entry->answer;
    }
    if (entry->recorded) {
      return entry->answer;
    }
    entry->running = true;
  }
  absl::StatusOr<std::string> answer = call();
  absl::MutexLock lock(&mu_);
  entry->running = false;
  entry->recorded = answer.ok();
  bytes_ += answer.ok() ? answer->size() : 0;
  entry->answer = answer;
  Trim();
  return answer;
}

size_t RequestLog::size() const {
  absl::MutexLock lock(&mu_);
  return entries_.size();
}

void RequestLog::Trim() {
  const absl::Time oldest = options_.clock() - options_.window;
  auto it = entries_.begin();
  while (it != entries_.end() &&
         (it->second->time < oldest || entries_.size() > options_.max_entries ||
          bytes_ > options_.max_bytes)) {
    // A running call is young or stuck; its entry must stay to be found.
    const auto next = std::next(it);
    if (!it->second->running) {
      Forget(it);
    }
    it = next;
  }
}

void RequestLog::Forget(Entries::iterator it) {
  if (it->second->recorded) {
    bytes_ -= it->second->answer->size();
  }
  index_.erase(it->first);
  entries_.erase(it);
}

}  // namespace shardplane
