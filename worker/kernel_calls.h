// Starting kernels on tensors.
#ifndef SHARDPLANE_WORKER_KERNEL_CALLS_H_
#define SHARDPLANE_WORKER_KERNEL_CALLS_H_

#include <cstdint>
#include <initializer_list>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "worker/kernels/launcher.h"

namespace shardplane {

// Whom kernels are started by, of this process, on tensors of which backend:
// see UseFusedKernels.
void SetKernelLauncher(KernelLauncher* launcher, c10::DispatchKey backend);
KernelLauncher& CurrentKernelLauncher();
// Whether there are any where the tensor lives.
bool HasKernels(const at::Tensor& tensor);

// Throws a c10::AcceleratorError unless OK.
void CheckLaunched(const absl::Status& status);

inline Element ElementOf(at::ScalarType type) {
  return type == at::kFloat ? Element::kF32 : Element::kBf16;
}

template <typename Args>
void Launch(at::ScalarType type, int64_t blocks, const Args& args) {
  CheckLaunched(CurrentKernelLauncher().Launch(ElementOf(type), blocks, args));
}

// Whether there are kernels for a type at all.
inline bool HasKernel(at::ScalarType type) {
  return type == at::kFloat || type == at::kBFloat16;
}

// Whether packs may begin where each begins. Those that are undefined do not
// count, here and below.
bool AreAligned(std::initializer_list<at::Tensor> tensors);
// Whether packs can be read from each: `length` elements, one row of many.
bool IsPacked(int64_t length, std::initializer_list<at::Tensor> tensors);

// `tensor` with its rows one after the other, of which packs can be read if
// that is what their length allows. Undefined: the same.
at::Tensor RowsInPacks(const at::Tensor& tensor);

// Of an undefined tensor nullptr.
inline const void* Data(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr() : nullptr;
}

// Elements of a pack.
inline int64_t PackOf(bool packed, const at::Tensor& tensor) {
  return packed ? kPackBytes / tensor.element_size() : 1;
}

// Blocks for `count` elements, each lane having `pack` of them; where there are
// too many, blocks go on where others have begun.
int64_t BlocksFor(int64_t count, int64_t pack);
// Enough for any GPU of today.
inline constexpr int64_t kMostBlocks = 1 << 16;

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_KERNEL_CALLS_H_
