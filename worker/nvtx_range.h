// Ranges of NVTX: names above what a profiler, as Nsight Systems, sees a worker
// do. docs/gpu.md says how to look at them.
#ifndef SHARDPLANE_WORKER_NVTX_RANGE_H_
#define SHARDPLANE_WORKER_NVTX_RANGE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"

// NVTX's own, whose header stays in the .cc.
struct nvtxDomainRegistration_st;
struct nvtxStringRegistration_st;

namespace shardplane {

// The domain "shardplane" of this process, owned by main(). Who is given none,
// a nullptr, shows nothing, which costs a comparison. Without a profiler NVTX
// does nothing. Thread-safe; ranges are their thread's.
class NvtxDomain {
 public:
  NvtxDomain();
  ~NvtxDomain();
  NvtxDomain(const NvtxDomain&) = delete;
  NvtxDomain& operator=(const NvtxDomain&) = delete;

  // A name that many ranges have, told once; NVTX keeps it as long as this.
  nvtxStringRegistration_st* Register(const std::string& name);
  void Push(const char* name) const;
  void Push(nvtxStringRegistration_st* name) const;
  void Pop() const;

 private:
  nvtxDomainRegistration_st* const domain_;  // null without a profiler
  absl::Mutex mutex_;
  absl::flat_hash_map<std::string, nvtxStringRegistration_st*> names_
      ABSL_GUARDED_BY(mutex_);
};

// The names of a list's items, made ready before these are run.
class NvtxNames {
 public:
  NvtxNames() = default;  // nothing is shown
  // One an item; "": it is not shown. Borrows `domain`, which may be null.
  NvtxNames(NvtxDomain* domain, const std::vector<std::string>& names);

 private:
  friend class NvtxRange;
  friend class NvtxRuns;
  struct Item {
    bool shown = false;
    nvtxStringRegistration_st* name = nullptr;
    int run = 0;  // counts neighbours of one name as one
  };

  const NvtxDomain* domain_ = nullptr;
  std::vector<Item> items_;
};

// Names what is done while it lives.
class NvtxRange {
 public:
  NvtxRange(const NvtxDomain* domain, const char* name) : domain_(domain) {
    if (domain_ != nullptr) domain_->Push(name);
  }
  // "step 17".
  NvtxRange(const NvtxDomain* domain, const char* name, uint64_t number)
      : domain_(domain) {
    if (domain_ != nullptr) PushNumbered(name, number);
  }
  // Of item `i`.
  NvtxRange(const NvtxNames& names, size_t i) : domain_(names.domain_) {
    if (domain_ != nullptr) PushItem(names, i);
  }
  ~NvtxRange() {
    if (domain_ != nullptr) domain_->Pop();
  }
  NvtxRange(const NvtxRange&) = delete;
  NvtxRange& operator=(const NvtxRange&) = delete;

 private:
  void PushNumbered(const char* name, uint64_t number);
  void PushItem(const NvtxNames& names, size_t i);

  const NvtxDomain* domain_;
};

// Names items that are run one after the other; neighbours of one name share a
// range. What is open ends with it, also by an exception. Borrows `names`.
//   NvtxRuns shown(names);
//   for (size_t i = 0; i < ops.size(); ++i) { shown.At(i); ops[i].Call(); }
class NvtxRuns {
 public:
  explicit NvtxRuns(const NvtxNames& names) : names_(names) {}
  ~NvtxRuns() { End(); }
  NvtxRuns(const NvtxRuns&) = delete;
  NvtxRuns& operator=(const NvtxRuns&) = delete;

  // Item `i` begins.
  void At(size_t i) {
    if (names_.domain_ != nullptr) Move(i);
  }

 private:
  void Move(size_t i);
  void End() {
    if (open_) names_.domain_->Pop();
    open_ = false;
  }

  const NvtxNames& names_;
  int run_ = -1;
  bool open_ = false;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_NVTX_RANGE_H_
