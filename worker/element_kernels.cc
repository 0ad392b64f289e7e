// Kernels that compute each element alone, or with one other.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/ops/empty_like.h"
#include "ATen/ops/zeros.h"
#include "torch/csrc/autograd/custom_function.h"
#include "worker/class_ids.h"
#include "worker/fused_operators.h"
#include "worker/kernel_calls.h"
#include "worker/kernel_operators.h"
#include "worker/sharded_operators.h"

namespace shardplane {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// ---- silu(gate) * up ----

struct SwigluFunction : Function<SwigluFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate_in,
                            const at::Tensor& up_in) {
    const at::Tensor gate = gate_in.contiguous();
    const at::Tensor up = up_in.contiguous();
    const at::Tensor out = at::empty_like(gate);
    const int64_t count = out.numel();
    const bool packed = IsPacked(count, {gate, up, out});
    Launch(gate.scalar_type(), BlocksFor(count, PackOf(packed, gate)),
           SwigluArgs{.gate = Data(gate),
                      .up = Data(up),
                      .out = out.mutable_data_ptr(),
                      .count = count,
                      .packed = packed});
    ctx->save_for_backward({gate, up});
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& gate = saved[0];
    const at::Tensor& up = saved[1];
    const at::Tensor gradient = gradients[0].contiguous();
    const at::Tensor of_gate = at::empty_like(gate);
    const at::Tensor of_up = at::empty_like(up);
    const int64_t count = gate.numel();
    const bool packed = IsPacked(count, {gradient, gate, up, of_gate, of_up});
    Launch(gate.scalar_type(), BlocksFor(count, PackOf(packed, gate)),
           SwigluBackwardArgs{.gradient = Data(gradient),
                              .gate = Data(gate),
                              .up = Data(up),
                              .gate_gradient = of_gate.mutable_data_ptr(),
                              .up_gradient = of_up.mutable_data_ptr(),
                              .count = count,
                              .packed = packed});
    return {of_gate, of_up};
  }
};

// ---- x * cos + rotate_half(x) * sin ----

// Its last dim's elements side by side.
at::Tensor WithRows(const at::Tensor& tensor) {
  return tensor.stride(-1) == 1 ? tensor : tensor.contiguous();
}

// Strides of the dims before the last, as many as a kernel knows; of `tensor`
// broadcast to `sizes`.
void FillStrides(const at::Tensor& tensor, at::IntArrayRef sizes,
                 int64_t (&strides)[kRotaryDims]) {
  const at::Tensor whole = tensor.expand(sizes);
  const int dims = static_cast<int>(sizes.size()) - 1;
  for (int i = 0; i < kRotaryDims; ++i) {
    const int dim = dims - kRotaryDims + i;
    strides[i] = dim < 0 ? 0 : whole.stride(dim);
  }
}

bool StridesArePacked(const RotaryArgs& args, int64_t pack) {
  for (int i = 0; i < kRotaryDims; ++i) {
    for (const int64_t stride : {args.x_strides[i], args.cos_strides[i],
                                 args.sin_strides[i], args.out_strides[i]}) {
      if (stride % pack != 0) return false;
    }
  }
  return true;
}

at::Tensor RunRotary(const at::Tensor& x_in, const at::Tensor& cos_in,
                     const at::Tensor& sin_in, bool backward) {
  const at::Tensor x = WithRows(x_in);
  const at::Tensor cos = WithRows(cos_in);
  const at::Tensor sin = WithRows(sin_in);
  at::Tensor out = at::empty_like(x);  // laid out alike, where x is dense
  if (out.stride(-1) != 1) {
    out = at::empty_like(x, x.options(), at::MemoryFormat::Contiguous);
  }
  RotaryArgs args{.x = Data(x),
                  .cos = Data(cos),
                  .sin = Data(sin),
                  .out = out.mutable_data_ptr(),
                  .half = static_cast<int32_t>(x.size(-1) / 2),
                  .backward = backward};
  for (int i = 0; i < kRotaryDims; ++i) {
    const int64_t dim = x.dim() - 1 - kRotaryDims + i;
    args.sizes[i] = dim < 0 ? 1 : static_cast<int32_t>(x.size(dim));
  }
  FillStrides(x, x.sizes(), args.x_strides);
  FillStrides(cos, x.sizes(), args.cos_strides);
  FillStrides(sin, x.sizes(), args.sin_strides);
  FillStrides(out, x.sizes(), args.out_strides);
  const int64_t pack = PackOf(true, x);
  args.packed =
      IsPacked(args.half, {x, cos, sin, out}) && StridesArePacked(args, pack);
  Launch(x.scalar_type(), BlocksFor(x.numel() / 2, args.packed ? pack : 1),
         args);
  return out;
}

struct RotaryFunction : Function<RotaryFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x,
                            const at::Tensor& cos, const at::Tensor& sin) {
    ctx->save_for_backward({cos, sin});
    return RunRotary(x, cos, sin, /*backward=*/false);
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const variable_list saved = ctx->get_saved_variables();
    return {RunRotary(gradients[0], saved[0], saved[1], /*backward=*/true),
            at::Tensor(), at::Tensor()};
  }
};

// ---- Dropout by counter ----

// A part of a tensor, its dims merged where they lie in one run.
struct PartOfWhole {
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
  int64_t origin = 0;
};

PartOfWhole PartOf(at::IntArrayRef part, at::IntArrayRef sizes,
                   at::IntArrayRef offsets) {
  PartOfWhole merged;
  int64_t stride = 1;
  for (size_t dim = part.size(); dim-- > 0;) {
    merged.origin += offsets[dim] * stride;
    if (!merged.sizes.empty() &&
        stride == merged.strides.back() * merged.sizes.back()) {
      merged.sizes.back() *= part[dim];
    } else {
      merged.sizes.push_back(part[dim]);
      merged.strides.push_back(stride);
    }
    stride *= sizes[dim];
  }
  return merged;  // the last dim first
}

struct DropoutFunction : Function<DropoutFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x,
                            const at::Tensor& random, double p, int64_t node,
                            at::IntArrayRef sizes, at::IntArrayRef offsets) {
    const PartOfWhole part = PartOf(x.sizes(), sizes, offsets);
    DropoutArgs args{.node = node,
                     .threshold = static_cast<uint64_t>(std::ceil(p * 0x1p32)),
                     .scale = static_cast<float>(p < 1 ? 1 / (1 - p) : 0),
                     .count = x.numel(),
                     .origin = part.origin};
    std::fill(args.sizes, args.sizes + kDropoutDims, 1);
    for (size_t i = 0; i < part.sizes.size(); ++i) {
      args.sizes[kDropoutDims - 1 - i] = part.sizes[i];
      args.strides[kDropoutDims - 1 - i] = part.strides[i];
    }
    ctx->save_for_backward({random});
    ctx->saved_data["args"] =
        std::string(reinterpret_cast<const char*>(&args), sizeof(args));
    return Run(args, x, random);
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    DropoutArgs args;
    std::memcpy(&args, ctx->saved_data["args"].toStringRef().data(),
                sizeof(args));
    const at::Tensor none;
    return {Run(args, gradients[0], ctx->get_saved_variables()[0]),
            none,
            none,
            none,
            none,
            none};
  }

 private:
  static at::Tensor Run(DropoutArgs args, const at::Tensor& x_in,
                        const at::Tensor& random) {
    const at::Tensor x = x_in.contiguous();
    const at::Tensor out = at::empty_like(x);
    args.x = Data(x);
    args.out = out.mutable_data_ptr();
    args.random = random.const_data_ptr<int64_t>();
    Launch(x.scalar_type(), BlocksFor(args.count, 4), args);
    return out;
  }
};

}  // namespace

at::Tensor SwigluByKernel(const at::Tensor& gate, const at::Tensor& up) {
  const bool fits = HasKernel(gate.scalar_type()) &&
                    up.scalar_type() == gate.scalar_type() &&
                    up.sizes() == gate.sizes() && gate.numel() > 0;
  return fits ? SwigluFunction::apply(gate, up) : Swiglu(gate, up);
}

at::Tensor RotaryByKernel(const at::Tensor& x, const at::Tensor& cos,
                          const at::Tensor& sin) {
  const auto fits_x = [&](const at::Tensor& t) {
    return t.scalar_type() == x.scalar_type() && t.dim() > 0 &&
           t.size(-1) == x.size(-1) && t.dim() <= x.dim() &&
           !t.requires_grad() && at::is_expandable_to(t.sizes(), x.sizes());
  };
  const bool fits = HasKernel(x.scalar_type()) && x.dim() > 0 &&
                    x.dim() <= kRotaryDims + 1 && x.size(-1) % 2 == 0 &&
                    x.numel() > 0 && x.numel() < (int64_t{1} << 31) &&
                    fits_x(cos) && fits_x(sin);
  return fits ? RotaryFunction::apply(x, cos, sin) : Rotary(x, cos, sin);
}

std::tuple<at::Tensor, at::Tensor> CheckedIdsByKernel(
    const at::Tensor& ids, int64_t lowest, int64_t limit,
    std::optional<int64_t> ignored) {
  if (ids.scalar_type() != at::kLong || ids.numel() == 0) {
    return ReplaceBadIds(ids, lowest, limit, ignored);
  }
  const at::Tensor from = ids.contiguous();
  const at::Tensor out = at::empty_like(from);
  const at::Tensor bad = at::zeros({}, ids.options().dtype(at::kBool));
  Launch(at::kFloat, BlocksFor(from.numel(), 1),
         CheckIdsArgs{.ids = from.const_data_ptr<int64_t>(),
                      .out = out.mutable_data_ptr<int64_t>(),
                      .bad = bad.mutable_data_ptr<bool>(),
                      .count = from.numel(),
                      .lowest = lowest,
                      .limit = limit,
                      .ignored = ignored.value_or(0)});
  return {out, bad};
}

at::Tensor DropoutByKernel(const at::Tensor& x, const at::Tensor& random,
                           double p, int64_t node, at::IntArrayRef sizes,
                           at::IntArrayRef offsets) {
  const bool fits =
      HasKernel(x.scalar_type()) && x.numel() > 0 &&
      random.device() == x.device() && random.is_contiguous() &&
      random.numel() == 2 && random.scalar_type() == at::kLong && p >= 0 &&
      p <= 1 && static_cast<int64_t>(sizes.size()) == x.dim() &&
      offsets.size() == sizes.size() &&
      PartOf(x.sizes(), sizes, offsets).sizes.size() <= kDropoutDims;
  return fits ? DropoutFunction::apply(x, random, p, node, sizes, offsets)
              : CounterDropout(x, random, p, node, sizes, offsets);
}

}  // namespace shardplane
