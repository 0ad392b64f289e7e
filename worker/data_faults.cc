#include "worker/data_faults.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {
namespace {

thread_local DataFaults* current = nullptr;

}  // namespace

DataFaults::DataFaults() { current = this; }

DataFaults::~DataFaults() { current = nullptr; }

DataFaults* DataFaults::Current() { return current; }

void DataFaults::Note(std::string message) {
  if (!noted()) message_ = std::move(message);
}

void DataFaults::Locate(const std::string& where) {
  if (noted() && where_.empty()) where_ = where;
}

absl::Status DataFaults::status() const {
  if (!noted()) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      where_.empty() ? message_ : absl::StrCat(where_, ": ", message_),
      {.reason = "INDEX_OUT_OF_RANGE", .metadata = {}});
}

}  // namespace shardplane
