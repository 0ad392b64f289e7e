#include "worker/data_faults.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {
namespace {

thread_local DataFaults* current = nullptr;

absl::Status OutOfRange(const std::string& message, const std::string& where) {
  return MakeError(absl::StatusCode::kInvalidArgument,
                   where.empty() ? message : absl::StrCat(where, ": ", message),
                   {.reason = "INDEX_OUT_OF_RANGE", .metadata = {}});
}

}  // namespace

DataFaults::DataFaults(bool defers) : defers_(defers) { current = this; }

DataFaults::~DataFaults() { current = nullptr; }

DataFaults* DataFaults::Current() { return current; }

void DataFaults::Note(std::string message) {
  if (!noted()) message_ = std::move(message);
}

void DataFaults::Defer(Check check) {
  deferred_.push_back({std::move(check), ""});
}

void DataFaults::Locate(const std::string& where) {
  if (noted() && where_.empty()) where_ = where;
  for (auto each = deferred_.rbegin();
       each != deferred_.rend() && each->where.empty(); ++each) {
    each->where = where;
  }
}

absl::Status DataFaults::status() const {
  return noted() ? OutOfRange(message_, where_) : MakeChecks(deferred_);
}

std::vector<DataFaults::Deferred> DataFaults::TakeDeferred() {
  return std::exchange(deferred_, {});
}

absl::Status MakeChecks(const std::vector<DataFaults::Deferred>& deferred) {
  for (const DataFaults::Deferred& each : deferred) {
    const std::string message = each.check();
    if (!message.empty()) return OutOfRange(message, each.where);
  }
  return absl::OkStatus();
}

}  // namespace shardplane
