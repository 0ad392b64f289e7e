// The kernels of worker/fused_operators: names, arguments, how they are
// started. Neither CUDA nor torch: bodies.h has what they compute, fused.cu
// makes them kernels of a GPU, and host_kernels runs the same bodies on a CPU.
#ifndef SHARDPLANE_WORKER_KERNELS_KERNELS_H_
#define SHARDPLANE_WORKER_KERNELS_KERNELS_H_

#include <cstdint>

namespace shardplane {

// Threads of a block, of all kernels.
inline constexpr int kLanes = 256;
inline constexpr int kPackBytes = 16;
// A row that stays in registers has so many packs a thread, or, where it is not
// `packed`, so many elements. What computes rows is compiled for each.
inline constexpr int kPackCounts[] = {1, 2, 4, 8};

// Of tensors. Sums and functions are computed in f32.
enum class Element { kF32, kBf16 };

// Pointers are to memory of the device. `packed`: all those to elements are
// aligned to kPackBytes, and so is the length of every row. Tensors are
// contiguous but where strides (in elements) are given.

// out = silu(gate) * up, of `count` elements.
struct SwigluArgs {
  const void* gate;
  const void* up;
  void* out;
  int64_t count;
  bool packed;
};

struct SwigluBackwardArgs {
  const void* gradient;
  const void* gate;
  const void* up;
  void* gate_gradient;
  void* up_gradient;
  int64_t count;
  bool packed;
};

inline constexpr int kRotaryDims = 3;

// x [a, b, c, 2 half]; cos and sin are broadcast to it by strides of 0; the
// last dim's stride is 1 everywhere. a b c half < 2^31.
//   out[i]        = x[i] cos[i] - x[i + half] sin[i]              i < half
//   out[i + half] = x[i + half] cos[i + half] + x[i] sin[i + half]
// `backward`: x is the gradient of that, and out x's.
struct RotaryArgs {
  const void* x;
  const void* cos;
  const void* sin;
  void* out;
  int32_t sizes[kRotaryDims];
  int32_t half;
  int64_t x_strides[kRotaryDims];
  int64_t cos_strides[kRotaryDims];
  int64_t sin_strides[kRotaryDims];
  int64_t out_strides[kRotaryDims];
  bool backward;
  bool packed;  // the length of a half is
};

// Of x [rows, columns], or of x + y:
//   r = 1 / sqrt(mean(x^2) + eps) of each row
//   out = x r weight; `rounds`: x r is rounded to the elements' type before
// PacksOf the columns is not 0, here and backward.
struct RmsNormArgs {
  const void* x;
  const void* y;       // nullptr: none
  const void* weight;  // nullptr: ones
  void* sum;           // x + y; nullptr without y
  void* out;
  float* r;  // [rows]
  int64_t rows;
  int64_t columns;
  float eps;
  bool rounds;
  bool packed;
};

// Block b has rows b, b + blocks, ... and writes row b of weight_gradients.
struct RmsNormBackwardArgs {
  const void* gradient;      // of out
  const void* sum_gradient;  // of the sum; nullptr: none
  const void* x;             // or the sum
  const void* weight;        // nullptr: ones
  const float* r;
  void* x_gradient;         // y's too
  float* weight_gradients;  // [blocks, columns], to be added up; nullptr: none
  int64_t rows;
  int64_t columns;
  bool rounds;
  bool packed;
};

// Of logits [rows, columns], classes `offset` ... of more, x = logits - max:
//   sums[row]   = sum of exp(x)
//   picked[row] = x of the target; 0 if it is elsewhere or `ignore_index`
struct CrossEntropyArgs {
  const void* logits;
  const float* max;  // [rows]
  const int64_t* target;
  float* sums;
  float* picked;
  int64_t rows;
  int64_t columns;
  int64_t offset;
  int64_t ignore_index;
  bool packed;
};

// logit_gradients = sum_gradients exp(x), and picked_gradients more where the
// target is.
struct CrossEntropyBackwardArgs {
  const void* logits;
  const float* max;
  const int64_t* target;
  const float* sum_gradients;     // [rows]
  const float* picked_gradients;  // [rows]
  void* logit_gradients;
  int64_t rows;
  int64_t columns;
  int64_t offset;
  int64_t ignore_index;
  bool packed;
};

// Of logits [rows, columns], which have all classes, x = logits - max of the
// row:
//   sums[row]   = sum of exp(x)
//   losses[row] = log(sums[row]) - x of the target
//   counts[row] = 1
// and loss and count of a row whose target is `ignore_index` are 0.
struct LossArgs {
  const void* logits;
  const int64_t* target;
  float* max;     // [rows]
  float* sums;    // [rows]
  float* losses;  // [rows]
  float* counts;  // [rows]
  int64_t rows;
  int64_t columns;
  int64_t ignore_index;
  bool packed;
};

// logit_gradients = gradient / count (exp(x) / sum - 1 where the target is); 0
// of a row whose target is `ignore_index`.
struct LossBackwardArgs {
  const void* logits;
  const int64_t* target;
  const float* max;
  const float* sums;
  const float* gradient;  // [rows] if `each_row`, else [1]
  const float* count;     // [1]; nullptr: 1
  void* logit_gradients;
  int64_t rows;
  int64_t columns;
  int64_t ignore_index;
  bool each_row;
  bool packed;
};

// out = ids, where they are in [lowest, limit) or `ignored`, else 0 and `bad`
// is set, which was false. Of any type of elements: ids are integers.
struct CheckIdsArgs {
  const int64_t* ids;
  int64_t* out;
  bool* bad;
  int64_t count;
  int64_t lowest;
  int64_t limit;
  int64_t ignored;
};

// Of one parameter, whose elements lie in one run. `packed`: all of its tensors
// begin where a pack may.
struct AdamTensor {
  void* parameter;
  const void* gradient;
  void* exp_avg;
  void* exp_avg_sq;
  void* max_exp_avg_sq;  // nullptr: no amsgrad
  const float* steps;    // updates, this one counted
  bool packed;
};
// Elements [begin, end) of a tensor; begin is a multiple of a pack.
struct AdamChunk {
  int64_t tensor;
  int64_t begin;
  int64_t end;
};

// Chunk by chunk, as torch.optim.Adam has it, in f32; `tensors`, `chunks` and
// what pointers lead to are memory of the device.
struct AdamArgs {
  const AdamTensor* tensors;
  const AdamChunk* chunks;
  int64_t chunk_count;
  const float* lr;               // [1]
  const float* clip_scale;       // [1], of gradients; nullptr: 1
  float beta1, new1, log_beta1;  // new: 1 - beta, as it is rounded itself
  float beta2, new2, log_beta2;
  float eps;
  float weight_decay;
  bool decoupled;  // weight decay, as AdamW has it
  bool maximize;
};

inline constexpr int kDropoutDims = 4;

// out = x * scale where the mask of common/dropout_mask keeps, else 0: of a
// part of a tensor, whose element i lies at
//   origin + sum over dims of (its index of the part's dim) stride
// of the whole, row-major. Its own gradient, too.
struct DropoutArgs {
  const void* x;
  void* out;
  const int64_t* random;  // [2]: seed, step
  int64_t node;
  uint64_t threshold;  // words from it on keep
  float scale;
  int64_t count;
  int64_t origin;
  int64_t sizes[kDropoutDims];  // of the part; 1 before its first dim
  int64_t strides[kDropoutDims];
};

// The smallest of kPackCounts that has room for a row. 0: it is too long.
constexpr int PacksOf(int64_t columns, bool packed, Element element) {
  const int64_t bytes = element == Element::kF32 ? 4 : 2;
  const int64_t lanes = kLanes * (packed ? kPackBytes / bytes : 1);
  for (const int packs : kPackCounts) {
    if (columns <= packs * lanes) return packs;
  }
  return 0;
}

// Kernel, its arguments, its body: X(name, Args, Body). Those of the second
// list are compiled for each of kPackCounts.
#define SHARDPLANE_KERNELS(X)                                               \
  X(dropout, DropoutArgs, Dropout)                                          \
  X(swiglu, SwigluArgs, Swiglu)                                             \
  X(swiglu_backward, SwigluBackwardArgs, SwigluBackward)                    \
  X(rotary, RotaryArgs, Rotary)                                             \
  X(cross_entropy, CrossEntropyArgs, CrossEntropy)                          \
  X(cross_entropy_backward, CrossEntropyBackwardArgs, CrossEntropyBackward) \
  X(adam, AdamArgs, AdamUpdate)                                             \
  X(check_ids, CheckIdsArgs, CheckIds)                                      \
  X(loss, LossArgs, Loss)                                                   \
  X(loss_backward, LossBackwardArgs, LossBackward)
#define SHARDPLANE_ROW_KERNELS(X)   \
  X(rms_norm, RmsNormArgs, RmsNorm) \
  X(rms_norm_backward, RmsNormBackwardArgs, RmsNormBackward)

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_KERNELS_KERNELS_H_
