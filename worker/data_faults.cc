#include "worker/data_faults.h"

#include <utility>

#include "ATen/ops/stack.h"
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

DataFaults::Checks Of(std::vector<DataFaults::Deferred> deferred) {
  std::vector<at::Tensor> bad;
  for (const DataFaults::Deferred& each : deferred) bad.push_back(each.bad);
  return {bad.empty() ? at::Tensor() : at::stack(bad), std::move(deferred)};
}

}  // namespace

DataFaults::DataFaults(bool defers) : defers_(defers) { current = this; }

DataFaults::~DataFaults() { current = nullptr; }

DataFaults* DataFaults::Current() { return current; }

void DataFaults::Note(std::string message) {
  if (!noted()) message_ = std::move(message);
}

void DataFaults::Defer(at::Tensor bad, std::function<std::string()> message) {
  deferred_.push_back({std::move(bad), std::move(message), ""});
}

void DataFaults::Locate(const std::string& where) {
  if (noted() && where_.empty()) where_ = where;
  for (auto each = deferred_.rbegin();
       each != deferred_.rend() && each->where.empty(); ++each) {
    each->where = where;
  }
}

absl::Status DataFaults::status() const {
  return noted() ? OutOfRange(message_, where_) : MakeChecks(Of(deferred_));
}

DataFaults::Checks DataFaults::TakeDeferred() {
  return Of(std::exchange(deferred_, {}));
}

absl::Status MakeChecks(const DataFaults::Checks& checks) {
  if (checks.deferred.empty()) return absl::OkStatus();
  const at::Tensor bad = checks.bad.cpu();
  for (size_t i = 0; i < checks.deferred.size(); ++i) {
    if (!bad.const_data_ptr<bool>()[i]) continue;
    const DataFaults::Deferred& each = checks.deferred[i];
    return OutOfRange(each.message(), each.where);
  }
  return absl::OkStatus();
}

}  // namespace shardplane
