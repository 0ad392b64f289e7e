// Kernels whose blocks have rows.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/empty_like.h"
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

// Blocks of a norm's backward, each of which writes a row more.
constexpr int64_t kNormBackwardBlocks = 512;

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
    const at::Tensor x = RowsInPacks(x_in);
    const at::Tensor y = RowsInPacks(y_in.value_or(at::Tensor()));
    const at::Tensor weight = RowsInPacks(weight_in.value_or(at::Tensor()));
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
          Run(ctx, RowsInPacks(of_out), RowsInPacks(of_sum));
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
  // RowsInPacks then moves a row whose memory is in none.
  const bool packs = columns * x.element_size() % kPackBytes == 0;
  const bool weight_fits =
      !weight.has_value() || (weight->scalar_type() == x.scalar_type() &&
                              weight->sizes() == at::IntArrayRef{columns});
  return weight_fits && PacksOf(columns, packs, ElementOf(x.scalar_type())) > 0;
}

// ---- Cross-entropy ----

// [2, batch]: CrossEntropyTerms of class ids.
struct TermsFunction : Function<TermsFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& logits_in,
                            const at::Tensor& max_in,
                            const at::Tensor& target_in, int64_t offset,
                            int64_t ignore_index) {
    const at::Tensor logits = logits_in.contiguous();
    const at::Tensor target = target_in.to(at::kLong).contiguous();
    const int64_t rows = target.numel();
    const at::Tensor max = max_in.to(at::kFloat).contiguous();
    std::vector<int64_t> sizes = target.sizes().vec();
    sizes.insert(sizes.begin(), 2);
    const at::Tensor terms =
        at::empty(sizes, logits.options().dtype(at::kFloat));
    float* const out = terms.mutable_data_ptr<float>();
    const int64_t columns = logits.size(-1);
    Launch(logits.scalar_type(), rows,
           CrossEntropyArgs{.logits = Data(logits),
                            .max = max.const_data_ptr<float>(),
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

// The loss of rows of logits that have all classes, reduced, in f32.
struct LossFunction : Function<LossFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& logits_in,
                            const at::Tensor& target_in, int64_t reduction,
                            int64_t ignore_index) {
    const at::Tensor logits = logits_in.contiguous();
    const at::Tensor target = target_in.to(at::kLong).contiguous();
    const int64_t rows = logits.size(0);
    const int64_t columns = logits.size(1);
    const auto in_f32 = logits.options().dtype(at::kFloat);
    const at::Tensor exponents = at::empty({2, rows}, in_f32);
    const at::Tensor terms = at::empty({2, rows}, in_f32);
    float* const max = exponents.mutable_data_ptr<float>();
    float* const losses = terms.mutable_data_ptr<float>();
    Launch(logits.scalar_type(), rows,
           LossArgs{.logits = Data(logits),
                    .target = target.const_data_ptr<int64_t>(),
                    .max = max,
                    .sums = max + rows,
                    .losses = losses,
                    .counts = losses + rows,
                    .rows = rows,
                    .columns = columns,
                    .ignore_index = ignore_index,
                    .packed = IsPacked(columns, {logits})});
    const bool each_row = reduction == at::Reduction::None;
    const at::Tensor loss_and_count = each_row ? terms : terms.sum(1);
    const bool mean = reduction == at::Reduction::Mean;
    const at::Tensor count = mean ? loss_and_count[1] : at::Tensor();
    ctx->save_for_backward({logits, target, exponents, count});
    ctx->saved_data["ignore_index"] = ignore_index;
    ctx->saved_data["each_row"] = each_row;
    return mean ? loss_and_count[0].div(count) : loss_and_count[0];
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& logits = saved[0];
    const at::Tensor& count = saved[3];
    const at::Tensor gradient = gradients[0].contiguous();
    const at::Tensor out = at::empty_like(logits);
    const int64_t rows = logits.size(0);
    const int64_t columns = logits.size(1);
    const float* const max = saved[2].const_data_ptr<float>();
    Launch(
        logits.scalar_type(), rows,
        LossBackwardArgs{
            .logits = Data(logits),
            .target = saved[1].const_data_ptr<int64_t>(),
            .max = max,
            .sums = max + rows,
            .gradient = gradient.const_data_ptr<float>(),
            .count = count.defined() ? count.const_data_ptr<float>() : nullptr,
            .logit_gradients = out.mutable_data_ptr(),
            .rows = rows,
            .columns = columns,
            .ignore_index = ctx->saved_data["ignore_index"].toInt(),
            .each_row = ctx->saved_data["each_row"].toBool(),
            .packed = IsPacked(columns, {logits, out})});
    return {out, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

bool TermsFit(const at::Tensor& logits, const at::Tensor& target) {
  return HasKernel(logits.scalar_type()) && logits.dim() > 0 &&
         logits.numel() > 0 &&
         at::isIntegralType(target.scalar_type(), /*includeBool=*/false) &&
         target.sizes() == logits.sizes().slice(0, logits.dim() - 1);
}

}  // namespace

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
  const at::Tensor ids = CheckedIds("Target", target, {classes, ignore_index});
  return TermsFunction::apply(logits, max, ids, offset, ignore_index);
}

at::Tensor CrossEntropyByKernel(const at::Tensor& logits,
                                const at::Tensor& target, int64_t reduction,
                                int64_t ignore_index,
                                std::optional<at::ScalarType> dtype) {
  const at::ScalarType type = dtype.value_or(logits.scalar_type());
  const at::Tensor rows = RowsOf(logits);
  if (!HasKernel(type) || rows.dim() != 2 || !TermsFit(rows, target)) {
    return CrossEntropy(logits, target, reduction, ignore_index, dtype);
  }
  const at::Tensor ids =
      CheckedIds("Target", target, {rows.size(-1), ignore_index});
  return LossFunction::apply(rows, ids, reduction, ignore_index).to(type);
}

}  // namespace shardplane
