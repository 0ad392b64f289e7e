#include "worker/torch_tensors.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "ATen/core/Tensor.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/from_blob.h"

namespace shardplane {
namespace {

constexpr std::pair<DType, at::ScalarType> kTypes[] = {
    {DType::kFloat32, at::kFloat},
    {DType::kFloat64, at::kDouble},
    {DType::kFloat16, at::kHalf},
    {DType::kBFloat16, at::kBFloat16},
    {DType::kInt64, at::kLong},
    {DType::kInt32, at::kInt},
    {DType::kInt16, at::kShort},
    {DType::kInt8, at::kChar},
    {DType::kUInt8, at::kByte},
    {DType::kBool, at::kBool},
    {DType::kComplex64, at::kComplexFloat},
    {DType::kComplex128, at::kComplexDouble},
};

// Borrows the bytes of `tensor`; only read from.
at::Tensor View(const HostTensor& tensor) {
  return at::from_blob(const_cast<char*>(tensor.bytes.data()),
                       tensor.type.shape,
                       at::dtype(ToScalarType(tensor.type.dtype)));
}

// Whether they are all of a tensor of this shape.
bool IsWhole(const Shape& shape, absl::Span<const Stretches> part) {
  for (size_t dim = 0; dim < part.size(); ++dim) {
    if (SizeOf(part[dim]) != shape[dim]) return false;
  }
  return true;
}

}  // namespace

void CopyInChunks(const at::Tensor& from, const at::Tensor& to,
                  int64_t chunk_bytes, Staging staging) {
  if (from.numel() == 0) return;
  const at::Tensor source = AsBytes(from);
  const at::Tensor target = AsBytes(to);
  const bool reads = !source.is_cpu();
  const auto options =
      at::dtype(at::kByte).pinned_memory(staging == Staging::kPinned);
  for (int64_t at = 0; at < source.numel(); at += chunk_bytes) {
    const int64_t bytes = std::min(chunk_bytes, source.numel() - at);
    // Memory that the device still uses is not handed out again. It uses none
    // that is read: LibTorch would ask a device that has failed about it, in a
    // destructor.
    const at::Tensor chunk = at::empty({bytes}, options);
    chunk.copy_(source.narrow(0, at, bytes));
    target.narrow(0, at, bytes).copy_(chunk, /*non_blocking=*/!reads);
  }
}

at::Tensor CopyTo(const at::Tensor& tensor, c10::Device device) {
  const at::Tensor copy =
      at::empty(tensor.sizes(), tensor.options().device(device));
  if (device.is_cpu() == tensor.is_cpu()) {
    copy.copy_(tensor);
  } else {
    CopyInChunks(tensor.contiguous(), copy, kStagingBytes, Staging::kPinned);
  }
  return copy;
}

at::ScalarType ToScalarType(DType dtype) {
  for (const auto& [ours, theirs] : kTypes) {
    if (ours == dtype) return theirs;
  }
  TORCH_CHECK_TYPE(false, "expected an element type of Shardplane, got: ",
                   static_cast<int>(dtype));
}

DType FromScalarType(at::ScalarType type) {
  for (const auto& [ours, theirs] : kTypes) {
    if (theirs == type) return ours;
  }
  TORCH_CHECK_TYPE(false,
                   "expected an element type of Shardplane, got: ", type);
}

TensorType TypeOf(const at::Tensor& tensor) {
  return {FromScalarType(tensor.scalar_type()), tensor.sizes().vec()};
}

at::Tensor AsBytes(const at::Tensor& tensor) {
  TORCH_INTERNAL_ASSERT(tensor.is_contiguous());
  // Of one element: contiguous whatever its strides, which view would keep.
  return tensor.as_strided({tensor.numel()}, {1}).view(at::kByte);
}

at::Tensor Resolved(const at::Tensor& tensor) {
  return tensor.resolve_conj().resolve_neg();
}

at::Tensor ToTorch(const HostTensor& tensor, c10::Device device) {
  return CopyTo(View(tensor), device);
}

at::Tensor NarrowTo(const at::Tensor& tensor, int dim, const Stretches& part) {
  if (SizeOf(part) == tensor.size(dim)) return tensor;
  if (part.empty()) return tensor.narrow(dim, 0, 0);
  std::vector<at::Tensor> pieces;
  for (const Extent& stretch : part) {
    pieces.push_back(tensor.narrow(dim, stretch.offset, stretch.size));
  }
  return pieces.size() == 1 ? pieces[0] : at::cat(pieces, dim);
}

at::Tensor SliceToTorch(const HostTensor& global,
                        absl::Span<const Stretches> part, c10::Device device) {
  if (device.is_cpu() && IsWhole(global.type.shape, part)) {
    const at::Tensor copy = at::empty(
        global.type.shape, at::dtype(ToScalarType(global.type.dtype)));
    if (copy.numel() > 0) {
      std::memcpy(copy.mutable_data_ptr(), global.bytes.data(), copy.nbytes());
    }
    return copy;
  }
  at::Tensor slice = View(global);
  for (size_t dim = 0; dim < part.size(); ++dim) {
    slice = NarrowTo(slice, static_cast<int>(dim), part[dim]);
  }
  return CopyTo(slice, device);
}

HostTensor FromTorch(const at::Tensor& tensor) {
  at::Tensor local = Resolved(tensor.detach()).contiguous();
  if (!local.is_cpu()) local = CopyTo(local, at::kCPU);
  HostTensor host{TypeOf(local), std::string()};
  host.bytes.resize(local.nbytes());
  if (!host.bytes.empty()) {
    std::memcpy(host.bytes.data(), local.const_data_ptr(), host.bytes.size());
  }
  return host;
}

}  // namespace shardplane
