#include "worker/gang_store_adapter.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "c10/util/Exception.h"

namespace shardplane {
namespace {

std::string ToString(const std::vector<uint8_t>& bytes) {
  return std::string(bytes.begin(), bytes.end());
}

std::vector<uint8_t> ToBytes(const std::string& value) {
  return std::vector<uint8_t>(value.begin(), value.end());
}

// c10d recognises a timeout by this word.
void ThrowUnlessOk(const absl::Status& status, const char* call,
                   const std::vector<std::string>& keys) {
  if (status.ok()) return;
  const char* kind =
      status.code() == absl::StatusCode::kDeadlineExceeded ? "timeout: " : "";
  C10_THROW_ERROR(DistStoreError,
                  std::string(absl::StrCat("gang store, ", call, " of ",
                                           absl::StrJoin(keys, ", "), ": ",
                                           kind, status.ToString())));
}

template <typename T>
T ValueOrThrow(absl::StatusOr<T> result, const char* call,
               const std::vector<std::string>& keys) {
  ThrowUnlessOk(result.status(), call, keys);
  return *std::move(result);
}

}  // namespace

GangStoreAdapter::GangStoreAdapter(std::shared_ptr<GangStore> store,
                                   std::chrono::milliseconds timeout)
    : c10d::Store(timeout), store_(std::move(store)) {}

c10::intrusive_ptr<c10d::Store> GangStoreAdapter::clone() {
  return c10::make_intrusive<GangStoreAdapter>(store_, timeout_);
}

void GangStoreAdapter::set(const std::string& key,
                           const std::vector<uint8_t>& value) {
  ThrowUnlessOk(store_->Set(key, ToString(value)), "set", {key});
}

std::vector<uint8_t> GangStoreAdapter::compareSet(
    const std::string& key, const std::vector<uint8_t>& expected,
    const std::vector<uint8_t>& desired) {
  return ToBytes(ValueOrThrow(
      store_->CompareSet(key, ToString(expected), ToString(desired)),
      "compare_set", {key}));
}

std::vector<uint8_t> GangStoreAdapter::get(const std::string& key) {
  std::vector<std::string> values =
      ValueOrThrow(store_->Get({key}, timeout_), "get", {key});
  return ToBytes(values.at(0));
}

int64_t GangStoreAdapter::add(const std::string& key, int64_t amount) {
  return ValueOrThrow(store_->Add(key, amount), "add", {key});
}

bool GangStoreAdapter::deleteKey(const std::string& key) {
  return ValueOrThrow(store_->Delete(key), "delete", {key});
}

bool GangStoreAdapter::check(const std::vector<std::string>& keys) {
  return ValueOrThrow(store_->Check(keys), "check", keys);
}

int64_t GangStoreAdapter::getNumKeys() {
  return ValueOrThrow(store_->NumKeys(), "count", {});
}

void GangStoreAdapter::wait(const std::vector<std::string>& keys) {
  wait(keys, timeout_);
}

void GangStoreAdapter::wait(const std::vector<std::string>& keys,
                            const std::chrono::milliseconds& timeout) {
  ThrowUnlessOk(store_->Get(keys, timeout).status(), "wait", keys);
}

}  // namespace shardplane
