#include "worker/torch_tensors.h"

#include <cstring>
#include <string>
#include <utility>

#include "ATen/ATen.h"

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

at::Tensor CopyTo(const at::Tensor& tensor, c10::Device device) {
  at::Tensor copy = at::empty(tensor.sizes(), tensor.options().device(device));
  copy.copy_(tensor);
  return copy;
}

}  // namespace

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
  const at::Tensor local = Resolved(tensor.detach()).cpu().contiguous();
  HostTensor host{TypeOf(local), std::string()};
  host.bytes.resize(local.nbytes());
  if (!host.bytes.empty()) {
    std::memcpy(host.bytes.data(), local.const_data_ptr(), host.bytes.size());
  }
  return host;
}

}  // namespace shardplane
