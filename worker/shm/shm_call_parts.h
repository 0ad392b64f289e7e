// What calls are made of (worker/shm/shm_calls, worker/shm/shm_dim_calls):
// checks of tensors, their memory as sources and targets, what ranks compare.
// Private to their target; all checks throw c10::ValueError.
#ifndef SHARDPLANE_WORKER_SHM_SHM_CALL_PARTS_H_
#define SHARDPLANE_WORKER_SHM_SHM_CALL_PARTS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/container/inlined_vector.h"
#include "absl/numeric/bits.h"
#include "c10/util/Exception.h"
#include "torch/csrc/distributed/c10d/Types.hpp"
#include "torch/csrc/distributed/c10d/Work.hpp"
#include "worker/shm/transfer.h"

namespace shardplane {

// Each message ends with what came, so the checks name it.
#define SHM_CHECK(condition, expected, got)                            \
  TORCH_CHECK_VALUE(condition, "shared memory: expected ", (expected), \
                    "; got: ", (got))

// A contiguous tensor on the CPU.
void CheckBuffer(const at::Tensor& tensor);
void CheckType(const at::Tensor& tensor, const at::Tensor& other);
void CheckElements(const char* what, int64_t expected,
                   const at::Tensor& tensor);

inline int64_t BytesOf(const at::Tensor& tensor) {
  return static_cast<int64_t>(tensor.nbytes());
}
inline std::byte* DataOf(const at::Tensor& tensor) {
  return static_cast<std::byte*>(tensor.data_ptr());
}
// All of a tensor's memory.
inline ShmSource SourceOf(const at::Tensor& tensor) {
  return {DataOf(tensor), BytesOf(tensor)};
}
inline ShmTarget TargetOf(const at::Tensor& tensor) {
  return {DataOf(tensor), BytesOf(tensor)};
}

// Of ShmSources or ShmTargets.
template <typename Parts>
int64_t Longest(const Parts& parts) {
  int64_t longest = 0;
  for (const auto& part : parts) longest = std::max(longest, part.bytes);
  return longest;
}

// What all ranks must have alike.
class Signature {
 public:
  Signature(c10d::OpType op, at::ScalarType type) {
    Add(static_cast<int64_t>(op)).Add(static_cast<int64_t>(type));
  }
  Signature& Add(int64_t value) {
    hash_ = (absl::rotl(hash_, 23) ^ static_cast<uint64_t>(value)) *
            0x9e3779b97f4a7c15;
    return *this;
  }
  template <typename Parts>
  Signature& AddSizes(const Parts& parts) {
    for (const auto& part : parts) Add(part.bytes);
    return *this;
  }
  uint64_t hash() const { return hash_; }

 private:
  uint64_t hash_ = 0;
};

// Throws for a reduction that the tensor's type has not.
ShmReducer ReducerFor(const at::Tensor& tensor, const c10d::ReduceOp& op);

// Target r is for what comes from rank r.
ShmTransfer AllGatherTransfer(ShmTargets targets, const at::Tensor& input);
// Source r is for rank r.
ShmTransfer ReduceScatterTransfer(const at::Tensor& output, ShmSources sources,
                                  const c10d::ReduceOp& op);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_SHM_CALL_PARTS_H_
