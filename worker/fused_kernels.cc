#include "worker/fused_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "ATen/ATen.h"
#include "c10/core/DispatchKeySet.h"
#include "torch/csrc/autograd/custom_function.h"
#include "torch/library.h"
#include "worker/class_ids.h"
#include "worker/fused_operators.h"
#include "worker/sharded_operators.h"

namespace shardplane {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// Blocks of a kernel whose blocks go on where others have begun: enough for
// any GPU of today. Of a norm's backward: each writes a row more.
constexpr int64_t kMaxBlocks = 1 << 16;
constexpr int64_t kNormBackwardBlocks = 512;

KernelLauncher* kernels = nullptr;

template <typename Args>
void Launch(at::ScalarType type, int64_t blocks, const Args& args) {
  const Element element = type == at::kFloat ? Element::kF32 : Element::kBf16;
  const absl::Status status = kernels->Launch(element, blocks, args);
  if (!status.ok()) {
    throw c10::AcceleratorError({__func__, __FILE__, __LINE__}, /*err=*/-1,
                                std::string(status.message()));
  }
}

bool HasKernel(at::ScalarType type) {
  return type == at::kFloat || type == at::kBFloat16;
}

// Whether packs can be read from each: `length` elements, one row of many.
bool IsPacked(int64_t length, std::initializer_list<at::Tensor> tensors) {
  return std::all_of(tensors.begin(), tensors.end(), [&](const at::Tensor& t) {
    return !t.defined() ||
           (reinterpret_cast<uintptr_t>(t.const_data_ptr()) % kPackBytes == 0 &&
            length * t.element_size() % kPackBytes == 0);
  });
}

const void* Data(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr() : nullptr;
}

// Blocks for `count` elements, each lane having `pack` of them.
int64_t BlocksFor(int64_t count, int64_t pack) {
  const int64_t per_block = kLanes * pack;
  return std::min((count + per_block - 1) / per_block, kMaxBlocks);
}

int64_t PackOf(bool packed, const at::Tensor& tensor) {
  return packed ? kPackBytes / tensor.element_size() : 1;
}

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

at::Tensor SwigluByKernel(const at::Tensor& gate, const at::Tensor& up) {
  const bool fits = HasKernel(gate.scalar_type()) &&
                    up.scalar_type() == gate.scalar_type() &&
                    up.sizes() == gate.sizes() && gate.numel() > 0;
  return fits ? SwigluFunction::apply(gate, up) : Swiglu(gate, up);
}

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

// ---- RMS norm, of a sum ----

struct NormOptions {
  double eps = 0;
  bool rounds = false;
};

// x + y (undefined without y), and its norm.
struct RmsNormFunction : Function<RmsNormFunction> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x_in,
                               const std::optional<at::Tensor>& y_in,
                               const std::optional<at::Tensor>& weight_in,
                               double eps, bool rounds) {
    const at::Tensor x = x_in.contiguous();
    const at::Tensor y = y_in.has_value() ? y_in->contiguous() : at::Tensor();
    const at::Tensor weight =
        weight_in.has_value() ? weight_in->contiguous() : at::Tensor();
    const int64_t columns = x.size(-1);
    const int64_t rows = x.numel() / columns;
    const at::Tensor sum = y.defined() ? at::empty_like(x) : x;
    const at::Tensor out = at::empty_like(x);
    const at::Tensor r = at::empty({rows}, x.options().dtype(at::kFloat));
    const bool packed = IsPacked(columns, {x, y, weight, sum, out});
    Launch(x.scalar_type(), rows,
           RmsNormArgs{.x = Data(x),
                       .y = Data(y),
                       .weight = Data(weight),
                       .sum = y.defined() ? sum.mutable_data_ptr() : nullptr,
                       .out = out.mutable_data_ptr(),
                       .r = r.mutable_data_ptr<float>(),
                       .rows = rows,
                       .columns = columns,
                       .eps = static_cast<float>(eps),
                       .rounds = rounds,
                       .packed = packed});
    ctx->save_for_backward({sum, weight, r});
    ctx->saved_data["rounds"] = rounds;
    ctx->saved_data["has_sum"] = y.defined();
    ctx->set_materialize_grads(false);
    return y.defined() ? variable_list{sum, out} : variable_list{out};
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const bool has_sum = ctx->saved_data["has_sum"].toBool();
    const at::Tensor of_sum = has_sum ? gradients[0] : at::Tensor();
    const at::Tensor of_out = gradients[has_sum ? 1 : 0];
    at::Tensor x_gradient = of_sum;
    at::Tensor weight_gradient;
    if (of_out.defined()) {
      std::tie(x_gradient, weight_gradient) =
          Run(ctx, of_out.contiguous(),
              of_sum.defined() ? of_sum.contiguous() : of_sum);
    }
    return {x_gradient, has_sum ? x_gradient : at::Tensor(), weight_gradient,
            at::Tensor(), at::Tensor()};
  }

 private:
  static std::tuple<at::Tensor, at::Tensor> Run(AutogradContext* ctx,
                                                const at::Tensor& gradient,
                                                const at::Tensor& of_sum) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& x = saved[0];
    const at::Tensor& weight = saved[1];
    const at::Tensor& r = saved[2];
    const int64_t columns = x.size(-1);
    const int64_t rows = x.numel() / columns;
    const int64_t blocks = std::min(rows, kNormBackwardBlocks);
    const at::Tensor out = at::empty_like(x);
    at::Tensor weights;
    // Of the tensors that there are.
    const size_t input = ctx->saved_data["has_sum"].toBool() ? 2 : 1;
    if (weight.defined() && ctx->needs_input_grad(input)) {
      weights = at::empty({blocks, columns}, r.options());
    }
    const bool packed = IsPacked(columns, {gradient, of_sum, x, weight, out});
    Launch(
        x.scalar_type(), blocks,
        RmsNormBackwardArgs{
            .gradient = Data(gradient),
            .sum_gradient = Data(of_sum),
            .x = Data(x),
            .weight = Data(weight),
            .r = r.const_data_ptr<float>(),
            .x_gradient = out.mutable_data_ptr(),
            .weight_gradients =
                weights.defined() ? weights.mutable_data_ptr<float>() : nullptr,
            .rows = rows,
            .columns = columns,
            .rounds = ctx->saved_data["rounds"].toBool(),
            .packed = packed});
    if (weights.defined()) weights = weights.sum(0).to(x.scalar_type());
    return {out, weights};
  }
};

bool NormFits(const at::Tensor& x, const std::optional<at::Tensor>& weight) {
  if (!HasKernel(x.scalar_type()) || x.dim() == 0 || x.numel() == 0) {
    return false;
  }
  const int64_t columns = x.size(-1);
  const Element element =
      x.scalar_type() == at::kFloat ? Element::kF32 : Element::kBf16;
  // Of a row whose memory is in no packs, too.
  const bool packs = columns * x.element_size() % kPackBytes == 0;
  const bool weight_fits =
      !weight.has_value() || (weight->scalar_type() == x.scalar_type() &&
                              weight->sizes() == at::IntArrayRef{columns});
  return weight_fits && PacksOf(columns, packs, element) > 0;
}

at::Tensor CastRmsNormByKernel(const at::Tensor& x, const at::Tensor& weight,
                               double eps, at::ScalarType dtype) {
  if (dtype != at::kFloat || !NormFits(x, weight)) {
    return CastRmsNorm(x, weight, eps, dtype);
  }
  return RmsNormFunction::apply(x, std::nullopt, weight, eps,
                                /*rounds=*/true)[0];
}

std::tuple<at::Tensor, at::Tensor> AddRmsNormByKernel(
    const at::Tensor& x, const at::Tensor& y,
    const std::optional<at::Tensor>& weight, std::optional<double> eps,
    std::optional<at::ScalarType> dtype) {
  const bool fits =
      eps.has_value() && dtype.value_or(at::kFloat) == at::kFloat &&
      (!dtype.has_value() || weight.has_value()) && y.sizes() == x.sizes() &&
      y.scalar_type() == x.scalar_type() && NormFits(x, weight);
  if (!fits) return AddRmsNorm(x, y, weight, eps, dtype);
  const variable_list made =
      RmsNormFunction::apply(x, y, weight, *eps, dtype.has_value());
  return {made[0], made[1]};
}

// ---- Cross-entropy ----

// [2, batch]: CrossEntropyTerms of class ids; without `max` of each row's own.
struct TermsFunction : Function<TermsFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& logits_in,
                            const std::optional<at::Tensor>& max_in,
                            const at::Tensor& target_in, int64_t offset,
                            int64_t ignore_index) {
    const at::Tensor logits = logits_in.contiguous();
    const at::Tensor target = target_in.to(at::kLong).contiguous();
    const int64_t rows = target.numel();
    const auto in_f32 = logits.options().dtype(at::kFloat);
    const at::Tensor max = max_in.has_value()
                               ? max_in->to(at::kFloat).contiguous()
                               : at::empty({rows}, in_f32);
    std::vector<int64_t> sizes = target.sizes().vec();
    sizes.insert(sizes.begin(), 2);
    const at::Tensor terms = at::empty(sizes, in_f32);
    float* const out = terms.mutable_data_ptr<float>();
    const int64_t columns = logits.size(-1);
    Launch(
        logits.scalar_type(), rows,
        CrossEntropyArgs{
            .logits = Data(logits),
            .max = max_in.has_value() ? max.const_data_ptr<float>() : nullptr,
            .own_max =
                max_in.has_value() ? nullptr : max.mutable_data_ptr<float>(),
            .target = target.const_data_ptr<int64_t>(),
            .sums = out,
            .picked = out + rows,
            .rows = rows,
            .columns = columns,
            .offset = offset,
            .ignore_index = ignore_index,
            .packed = IsPacked(columns, {logits})});
    ctx->save_for_backward({logits, max, target});
    ctx->saved_data["offset"] = offset;
    ctx->saved_data["ignore_index"] = ignore_index;
    return terms;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& logits = saved[0];
    const at::Tensor gradient = gradients[0].contiguous();
    const at::Tensor out = at::empty_like(logits);
    const int64_t columns = logits.size(-1);
    const int64_t rows = logits.numel() / columns;
    const float* const of_terms = gradient.const_data_ptr<float>();
    Launch(logits.scalar_type(), rows,
           CrossEntropyBackwardArgs{
               .logits = Data(logits),
               .max = saved[1].const_data_ptr<float>(),
               .target = saved[2].const_data_ptr<int64_t>(),
               .sum_gradients = of_terms,
               .picked_gradients = of_terms + rows,
               .logit_gradients = out.mutable_data_ptr(),
               .rows = rows,
               .columns = columns,
               .offset = ctx->saved_data["offset"].toInt(),
               .ignore_index = ctx->saved_data["ignore_index"].toInt(),
               .packed = IsPacked(columns, {logits, out})});
    return {out, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

bool TermsFit(const at::Tensor& logits, const at::Tensor& target) {
  return HasKernel(logits.scalar_type()) && logits.dim() > 0 &&
         logits.numel() > 0 &&
         at::isIntegralType(target.scalar_type(), /*includeBool=*/false) &&
         target.sizes() == logits.sizes().slice(0, logits.dim() - 1);
}

at::Tensor CrossEntropyTermsByKernel(
    const at::Tensor& logits, const at::Tensor& max, const at::Tensor& target,
    const std::optional<at::Tensor>& weight, int64_t dim, int64_t offset,
    int64_t classes, int64_t ignore_index, double label_smoothing) {
  const bool last = dim == -1 || dim == logits.dim() - 1;
  const bool fits = last && !(label_smoothing > 0) && !weight.has_value() &&
                    TermsFit(logits, target) && max.sizes() == target.sizes() &&
                    offset >= 0 && offset + logits.size(-1) <= classes;
  if (!fits) {
    return CrossEntropyTerms(logits, max, target, weight, dim, offset, classes,
                             ignore_index, label_smoothing);
  }
  const at::Tensor ids = CheckedIds("Target", target, classes, ignore_index);
  return TermsFunction::apply(logits, max, ids, offset, ignore_index);
}

at::Tensor CrossEntropyByKernel(const at::Tensor& logits,
                                const at::Tensor& target, int64_t reduction,
                                int64_t ignore_index,
                                std::optional<at::ScalarType> dtype) {
  const at::ScalarType type = dtype.value_or(logits.scalar_type());
  if (!HasKernel(type) || logits.dim() != 2 || !TermsFit(logits, target)) {
    return CrossEntropy(logits, target, reduction, ignore_index, dtype);
  }
  const at::Tensor ids =
      CheckedIds("Target", target, logits.size(-1), ignore_index);
  const at::Tensor terms =
      TermsFunction::apply(logits, std::nullopt, ids, 0, ignore_index);
  const at::Tensor ignored = ids.eq(ignore_index);
  at::Tensor loss = terms[0].log().sub(terms[1]).masked_fill(ignored, 0);
  if (reduction != at::Reduction::None) loss = loss.sum();
  if (reduction == at::Reduction::Mean) {
    loss = loss.div(ignored.logical_not().sum());
  }
  return loss.to(type);
}

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

}  // namespace

void UseFusedKernels(KernelLauncher* launcher, c10::DispatchKey backend) {
  RegisterShardedOperators();
  kernels = launcher;
  // A backend's own kernel keeps autograd off the calls, so it has both keys.
  for (const c10::DispatchKey key :
       {backend,
        c10::getAutogradKeyFromBackend(c10::toBackendComponent(backend))}) {
    // Lives as long as the process.
    auto* library = new torch::Library(torch::Library::IMPL, "shardplane", key,
                                       __FILE__, __LINE__);
    library->impl("dropout", &DropoutByKernel);
    library->impl("swiglu", &SwigluByKernel);
    library->impl("rotary", &RotaryByKernel);
    library->impl("cast_rms_norm", &CastRmsNormByKernel);
    library->impl("add_rms_norm", &AddRmsNormByKernel);
    library->impl("cross_entropy", &CrossEntropyByKernel);
    library->impl("cross_entropy_terms", &CrossEntropyTermsByKernel);
  }
}

}  // namespace shardplane
