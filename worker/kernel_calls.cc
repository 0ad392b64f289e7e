#include "worker/kernel_calls.h"

#include <algorithm>
#include <string>

#include "c10/util/Exception.h"

namespace shardplane {
namespace {

KernelLauncher* current = nullptr;
c10::DispatchKey current_backend = c10::DispatchKey::Undefined;

}  // namespace

void SetKernelLauncher(KernelLauncher* launcher, c10::DispatchKey backend) {
  current = launcher;
  current_backend = backend;
}

KernelLauncher& CurrentKernelLauncher() { return *current; }

bool HasKernels(const at::Tensor& tensor) {
  return current != nullptr && tensor.key_set().has(current_backend);
}

void CheckLaunched(const absl::Status& status) {
  if (status.ok()) return;
  throw c10::AcceleratorError({__func__, __FILE__, __LINE__}, /*err=*/-1,
                              std::string(status.message()));
}

bool AreAligned(std::initializer_list<at::Tensor> tensors) {
  return std::all_of(tensors.begin(), tensors.end(), [](const at::Tensor& t) {
    return reinterpret_cast<uintptr_t>(Data(t)) % kPackBytes == 0;
  });
}

bool IsPacked(int64_t length, std::initializer_list<at::Tensor> tensors) {
  return AreAligned(tensors) &&
         std::all_of(tensors.begin(), tensors.end(), [&](const at::Tensor& t) {
           return !t.defined() || length * t.element_size() % kPackBytes == 0;
         });
}

at::Tensor RowsInPacks(const at::Tensor& tensor) {
  if (!tensor.defined()) return tensor;
  at::Tensor rows = tensor.contiguous();
  const int64_t length = rows.size(-1);
  const bool may = length * rows.element_size() % kPackBytes == 0;
  return may && !AreAligned({rows}) ? rows.clone() : rows;
}

int64_t BlocksFor(int64_t count, int64_t pack) {
  const int64_t per_block = kLanes * pack;
  return std::min((count + per_block - 1) / per_block, kMostBlocks);
}

}  // namespace shardplane
