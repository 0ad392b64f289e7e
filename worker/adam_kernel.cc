#include "worker/adam_kernel.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ATen/core/Tensor.h"
#include "ATen/ops/empty.h"
#include "absl/algorithm/container.h"
#include "worker/kernel_calls.h"
#include "worker/torch_tensors.h"

namespace shardplane {
namespace {

// Elements that a block updates at a time.
constexpr int64_t kChunk = int64_t{1} << 16;

static_assert(sizeof(AdamTensor) % sizeof(int64_t) == 0 &&
              sizeof(AdamChunk) % sizeof(int64_t) == 0);

AdamTensor PlaceOf(const AdamOperands& state) {
  return {.parameter = state.parameter.mutable_data_ptr(),
          .gradient = state.gradient.const_data_ptr(),
          .exp_avg = state.exp_avg.mutable_data_ptr(),
          .exp_avg_sq = state.exp_avg_sq.mutable_data_ptr(),
          .max_exp_avg_sq = state.max_exp_avg_sq.defined()
                                ? state.max_exp_avg_sq.mutable_data_ptr()
                                : nullptr,
          .steps = state.steps.const_data_ptr<float>(),
          .packed = AreAligned({state.parameter, state.gradient, state.exp_avg,
                                state.exp_avg_sq, state.max_exp_avg_sq})};
}

bool Fits(const AdamOperands& state, const at::Tensor& first) {
  const auto fits = [&](const at::Tensor& tensor) {
    return tensor.scalar_type() == first.scalar_type() &&
           tensor.device() == first.device() && tensor.is_contiguous() &&
           !tensor.is_neg() &&  // else memory says something else
           tensor.numel() == state.parameter.numel();
  };
  return fits(state.parameter) && fits(state.gradient) && fits(state.exp_avg) &&
         fits(state.exp_avg_sq) &&
         (!state.max_exp_avg_sq.defined() || fits(state.max_exp_avg_sq));
}

}  // namespace

bool HasAdamKernel(absl::Span<const AdamOperands> states) {
  const at::Tensor& first = states[0].parameter;
  return HasKernels(first) && HasKernel(first.scalar_type()) &&
         absl::c_all_of(states, [&](const AdamOperands& state) {
           return Fits(state, first);
         });
}

AdamTable MakeAdamTable(absl::Span<const AdamOperands> states) {
  std::vector<AdamTensor> tensors;
  std::vector<AdamChunk> chunks;
  for (const AdamOperands& state : states) {
    for (int64_t at = 0; at < state.parameter.numel(); at += kChunk) {
      chunks.push_back({static_cast<int64_t>(tensors.size()), at,
                        std::min(at + kChunk, state.parameter.numel())});
    }
    tensors.push_back(PlaceOf(state));
  }
  const size_t tensor_bytes = tensors.size() * sizeof(AdamTensor);
  const size_t chunk_bytes = chunks.size() * sizeof(AdamChunk);
  const at::Tensor host = at::empty(
      {static_cast<int64_t>((tensor_bytes + chunk_bytes) / sizeof(int64_t))},
      at::kLong);
  char* const bytes = static_cast<char*>(host.mutable_data_ptr());
  std::memcpy(bytes, tensors.data(), tensor_bytes);
  std::memcpy(bytes + tensor_bytes, chunks.data(), chunk_bytes);
  const at::Tensor& first = states[0].parameter;
  return {.places = CopyTo(host, first.device()),
          .tensors = static_cast<int64_t>(tensors.size()),
          .chunks = static_cast<int64_t>(chunks.size()),
          .type = first.scalar_type()};
}

void AdamByKernel(const AdamOptions& options, const AdamTable& table,
                  const at::Tensor& lr, const at::Tensor& clip_scale) {
  if (table.chunks == 0) return;
  const char* const bytes =
      static_cast<const char*>(table.places.const_data_ptr());
  Launch(table.type, std::min(table.chunks, kMostBlocks),
         AdamArgs{.tensors = reinterpret_cast<const AdamTensor*>(bytes),
                  .chunks = reinterpret_cast<const AdamChunk*>(
                      bytes + table.tensors * sizeof(AdamTensor)),
                  .chunk_count = table.chunks,
                  .lr = lr.const_data_ptr<float>(),
                  .clip_scale = clip_scale.defined()
                                    ? clip_scale.const_data_ptr<float>()
                                    : nullptr,
                  .beta1 = static_cast<float>(options.beta1),
                  .new1 = static_cast<float>(1 - options.beta1),
                  .log_beta1 = static_cast<float>(std::log(options.beta1)),
                  .beta2 = static_cast<float>(options.beta2),
                  .new2 = static_cast<float>(1 - options.beta2),
                  .log_beta2 = static_cast<float>(std::log(options.beta2)),
                  .eps = static_cast<float>(options.eps),
                  .weight_decay = static_cast<float>(options.weight_decay),
                  .decoupled = options.kind == AdamKind::kAdamW,
                  .maximize = options.maximize});
}

}  // namespace shardplane
