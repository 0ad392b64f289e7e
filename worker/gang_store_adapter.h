// A GangStore as the c10d::Store that process groups meet through.
#ifndef SHARDPLANE_WORKER_GANG_STORE_ADAPTER_H_
#define SHARDPLANE_WORKER_GANG_STORE_ADAPTER_H_

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "torch/csrc/distributed/c10d/Store.hpp"
#include "worker/executor.h"

namespace shardplane {

// Throws c10::DistStoreError for whatever the GangStore answers but OK, as
// c10d asks for: waiting beyond the timeout says "timeout". Thread-safe.
class GangStoreAdapter : public c10d::Store {
 public:
  // `store` is shared with the process groups that c10d makes from this.
  GangStoreAdapter(std::shared_ptr<GangStore> store,
                   std::chrono::milliseconds timeout);

  c10::intrusive_ptr<c10d::Store> clone() override;

  using c10d::Store::compareSet;
  using c10d::Store::set;
  void set(const std::string& key, const std::vector<uint8_t>& value) override;
  std::vector<uint8_t> compareSet(const std::string& key,
                                  const std::vector<uint8_t>& expected,
                                  const std::vector<uint8_t>& desired) override;
  std::vector<uint8_t> get(const std::string& key) override;
  int64_t add(const std::string& key, int64_t amount) override;
  bool deleteKey(const std::string& key) override;
  bool check(const std::vector<std::string>& keys) override;
  int64_t getNumKeys() override;
  void wait(const std::vector<std::string>& keys) override;
  void wait(const std::vector<std::string>& keys,
            const std::chrono::milliseconds& timeout) override;

  // Extended calls: one round trip for many keys. Append has no counterpart in
  // GangStore, and c10d asks for all three or none.
  bool hasExtendedApi() const override { return false; }

 private:
  std::shared_ptr<GangStore> store_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_GANG_STORE_ADAPTER_H_
