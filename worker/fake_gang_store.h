// A GangStore in memory, for ranks that are threads of one test.
#ifndef SHARDPLANE_WORKER_FAKE_GANG_STORE_H_
#define SHARDPLANE_WORKER_FAKE_GANG_STORE_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "worker/executor.h"

namespace shardplane {

class FakeGangStore : public GangStore {
 public:
  absl::Status Set(const std::string& key, std::string value) override {
    absl::MutexLock lock(&mutex_);
    if (cancelled_) return Cancelled();
    values_[key] = std::move(value);
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<std::string>> Get(
      const std::vector<std::string>& keys,
      std::chrono::milliseconds timeout) override {
    absl::MutexLock lock(&mutex_);
    const auto all_there = [&] {
      mutex_.AssertHeld();
      return cancelled_ || HasAll(keys);
    };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&all_there),
                                 absl::FromChrono(timeout))) {
      return absl::DeadlineExceededError("a key did not come");
    }
    if (cancelled_) return Cancelled();
    std::vector<std::string> found;
    for (const std::string& key : keys) found.push_back(values_[key]);
    return found;
  }

  absl::StatusOr<int64_t> Add(const std::string& key, int64_t amount) override {
    absl::MutexLock lock(&mutex_);
    if (cancelled_) return Cancelled();
    const auto found = values_.find(key);
    const int64_t sum =
        amount + (found == values_.end() ? 0 : std::stoll(found->second));
    values_[key] = absl::StrCat(sum);
    return sum;
  }

  absl::StatusOr<std::string> CompareSet(const std::string& key,
                                         const std::string& expected,
                                         const std::string& desired) override {
    absl::MutexLock lock(&mutex_);
    if (cancelled_) return Cancelled();
    const auto found = values_.find(key);
    if (found == values_.end()) {
      if (!expected.empty()) return expected;
      values_[key] = desired;
      return desired;
    }
    if (found->second == expected) found->second = desired;
    return found->second;
  }

  absl::StatusOr<bool> Delete(const std::string& key) override {
    absl::MutexLock lock(&mutex_);
    if (cancelled_) return Cancelled();
    return values_.erase(key) > 0;
  }

  absl::StatusOr<bool> Check(const std::vector<std::string>& keys) override {
    absl::MutexLock lock(&mutex_);
    if (cancelled_) return Cancelled();
    return HasAll(keys);
  }

  absl::StatusOr<int64_t> NumKeys() override {
    absl::MutexLock lock(&mutex_);
    if (cancelled_) return Cancelled();
    return static_cast<int64_t>(values_.size());
  }

  void Cancel() override {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
  }

 private:
  static absl::Status Cancelled() {
    return absl::CancelledError("the store was cancelled");
  }

  bool HasAll(const std::vector<std::string>& keys) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    for (const std::string& key : keys) {
      if (!values_.contains(key)) return false;
    }
    return true;
  }

  absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  absl::btree_map<std::string, std::string> values_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_FAKE_GANG_STORE_H_
