// What the kernels compute: kernels.h says what. A body is a block's work,
//   Body<T>(block, args), of the row kernels Body<T, kPacks>(block, args)
// T being float or Bf16.
#ifndef SHARDPLANE_WORKER_KERNELS_BODIES_H_
#define SHARDPLANE_WORKER_KERNELS_BODIES_H_

#include <cmath>
#include <cstdint>

#include "worker/kernels/kernels.h"
#include "worker/kernels/lanes.h"

namespace shardplane {

template <typename T>
inline constexpr int kPack = kPackBytes / sizeof(T);

struct Add {
  SHARDPLANE_DEVICE float operator()(float a, float b) const { return a + b; }
};

struct Larger {
  SHARDPLANE_DEVICE float operator()(float a, float b) const {
    return a < b || b != b ? b : a;  // NaN stays
  }
};

// f(begin) of every pack that this block has of `count` elements.
template <int N, typename Block, typename F>
SHARDPLANE_DEVICE void EachPack(const Block& block, int64_t count, F f) {
  block.Each([&](int lane) {
    const int64_t step = block.count() * kLanes * N;
    int64_t begin = (block.index() * kLanes + lane) * N;
    for (; begin < count; begin += step) f(begin);
  });
}

template <typename T, int N, typename Block>
SHARDPLANE_DEVICE void SwigluPacks(const Block& block, const SwigluArgs& args) {
  EachPack<N>(block, args.count, [&](int64_t i) {
    const auto gate = Load<N>(static_cast<const T*>(args.gate) + i);
    const auto up = Load<N>(static_cast<const T*>(args.up) + i);
    Pack<T, N> out;
    for (int j = 0; j < N; ++j) {
      const float g = ToFloat(gate.values[j]);
      Store(g * Sigmoid<T>(g) * ToFloat(up.values[j]), out.values[j]);
    }
    Store(out, static_cast<T*>(args.out) + i);
  });
}

template <typename T, typename Block>
SHARDPLANE_DEVICE void Swiglu(const Block& block, const SwigluArgs& args) {
  args.packed ? SwigluPacks<T, kPack<T>>(block, args)
              : SwigluPacks<T, 1>(block, args);
}

template <typename T, int N, typename Block>
SHARDPLANE_DEVICE void SwigluBackwardPacks(const Block& block,
                                           const SwigluBackwardArgs& args) {
  EachPack<N>(block, args.count, [&](int64_t i) {
    const auto gradient = Load<N>(static_cast<const T*>(args.gradient) + i);
    const auto gate = Load<N>(static_cast<const T*>(args.gate) + i);
    const auto up = Load<N>(static_cast<const T*>(args.up) + i);
    Pack<T, N> of_gate;
    Pack<T, N> of_up;
    for (int j = 0; j < N; ++j) {
      const float d = ToFloat(gradient.values[j]);
      const float g = ToFloat(gate.values[j]);
      const float s = Sigmoid<T>(g);
      Store(d * ToFloat(up.values[j]) * s * (1 + g * (1 - s)),
            of_gate.values[j]);
      Store(d * g * s, of_up.values[j]);
    }
    Store(of_gate, static_cast<T*>(args.gate_gradient) + i);
    Store(of_up, static_cast<T*>(args.up_gradient) + i);
  });
}

template <typename T, typename Block>
SHARDPLANE_DEVICE void SwigluBackward(const Block& block,
                                      const SwigluBackwardArgs& args) {
  args.packed ? SwigluBackwardPacks<T, kPack<T>>(block, args)
              : SwigluBackwardPacks<T, 1>(block, args);
}

template <typename T, int N, typename Block>
SHARDPLANE_DEVICE void RotaryPacks(const Block& block, const RotaryArgs& args) {
  const int64_t count =
      int64_t{args.sizes[0]} * args.sizes[1] * args.sizes[2] * args.half;
  EachPack<N>(block, count, [&](int64_t item) {
    uint32_t left = static_cast<uint32_t>(item);
    const uint32_t i = left % args.half;
    left /= args.half;
    int64_t places[4] = {i, i, i, i};  // of x, cos, sin, out
    for (int dim = kRotaryDims - 1; dim >= 0; --dim) {
      const int64_t index = left % args.sizes[dim];
      left /= args.sizes[dim];
      places[0] += index * args.x_strides[dim];
      places[1] += index * args.cos_strides[dim];
      places[2] += index * args.sin_strides[dim];
      places[3] += index * args.out_strides[dim];
    }
    const T* const x = static_cast<const T*>(args.x) + places[0];
    const T* const cos = static_cast<const T*>(args.cos) + places[1];
    const T* const sin = static_cast<const T*>(args.sin) + places[2];
    const auto x1 = Load<N>(x), x2 = Load<N>(x + args.half);
    const auto c1 = Load<N>(cos), c2 = Load<N>(cos + args.half);
    const auto s1 = Load<N>(sin), s2 = Load<N>(sin + args.half);
    Pack<T, N> out1;
    Pack<T, N> out2;
    for (int j = 0; j < N; ++j) {
      const float a = ToFloat(x1.values[j]);
      const float b = ToFloat(x2.values[j]);
      const float sin1 = ToFloat(s1.values[j]);
      const float sin2 = ToFloat(s2.values[j]);
      Store(a * ToFloat(c1.values[j]) + b * (args.backward ? sin2 : -sin1),
            out1.values[j]);
      Store(b * ToFloat(c2.values[j]) + a * (args.backward ? -sin1 : sin2),
            out2.values[j]);
    }
    T* const out = static_cast<T*>(args.out) + places[3];
    Store(out1, out);
    Store(out2, out + args.half);
  });
}

template <typename T, typename Block>
SHARDPLANE_DEVICE void Rotary(const Block& block, const RotaryArgs& args) {
  args.packed ? RotaryPacks<T, kPack<T>>(block, args)
              : RotaryPacks<T, 1>(block, args);
}

// A lane's part of a row: pack k begins at column (k kLanes + lane) N.
template <typename T, int N, int kPacks>
struct RowPart {
  // f(k, column) of every pack that the row has.
  template <typename F>
  SHARDPLANE_DEVICE static void Each(int lane, int64_t columns, F f) {
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
    for (int k = 0; k < kPacks; ++k) {
      const int64_t column = (int64_t{k} * kLanes + lane) * N;
      if (column < columns) f(k, column);
    }
  }

  SHARDPLANE_DEVICE void LoadFrom(const T* row, int lane, int64_t columns) {
    Each(lane, columns,
         [&](int k, int64_t column) { packs[k] = Load<N>(row + column); });
  }

  SHARDPLANE_DEVICE float at(int k, int j) const {
    return ToFloat(packs[k].values[j]);
  }

  Pack<T, N> packs[kPacks];
};

template <typename T, int N, int kPacks, typename Block>
SHARDPLANE_DEVICE void RmsNormRows(const Block& block,
                                   const RmsNormArgs& args) {
  using Part = RowPart<T, N, kPacks>;
  typename Block::template PerLane<Part> x(block);
  typename Block::template PerLane<float> squares(block);
  const int64_t columns = args.columns;
  for (int64_t row = block.index(); row < args.rows; row += block.count()) {
    const int64_t begin = row * columns;
    block.Each([&](int lane) {
      x[lane].LoadFrom(static_cast<const T*>(args.x) + begin, lane, columns);
      float sum = 0;
      Part::Each(lane, columns, [&](int k, int64_t column) {
        Pack<T, N>& pack = x[lane].packs[k];
        if (args.y != nullptr) {
          const auto y =
              Load<N>(static_cast<const T*>(args.y) + begin + column);
          for (int j = 0; j < N; ++j) {
            Store(ToFloat(pack.values[j]) + ToFloat(y.values[j]),
                  pack.values[j]);
          }
          Store(pack, static_cast<T*>(args.sum) + begin + column);
        }
        for (int j = 0; j < N; ++j) {
          sum += x[lane].at(k, j) * x[lane].at(k, j);
        }
      });
      squares[lane] = sum;
    });
    const float mean = block.Reduce(squares, 0, Add()) / columns;
    const float r = 1 / sqrtf(mean + args.eps);
    block.Each([&](int lane) {
      if (lane == 0) args.r[row] = r;
      Part::Each(lane, columns, [&](int k, int64_t column) {
        Pack<T, N> out;
        Pack<T, N> weight;
        if (args.weight != nullptr) {
          weight = Load<N>(static_cast<const T*>(args.weight) + column);
        }
        for (int j = 0; j < N; ++j) {
          const float scaled = x[lane].at(k, j) * r;
          const float kept = args.rounds ? Rounded<T>(scaled) : scaled;
          Store(
              args.weight != nullptr ? kept * ToFloat(weight.values[j]) : kept,
              out.values[j]);
        }
        Store(out, static_cast<T*>(args.out) + begin + column);
      });
    });
  }
}

template <typename T, int kPacks, typename Block>
SHARDPLANE_DEVICE void RmsNorm(const Block& block, const RmsNormArgs& args) {
  args.packed ? RmsNormRows<T, kPack<T>, kPacks>(block, args)
              : RmsNormRows<T, 1, kPacks>(block, args);
}

template <int N, int kPacks>
struct Sums {
  float values[kPacks][N];
};

// With h = x r and d = gradient weight:
//   x's gradient = r (d - h mean(d h)), weight's = sum over rows of gradient h
template <typename T, int N, int kPacks, typename Block>
SHARDPLANE_DEVICE void RmsNormBackwardRows(const Block& block,
                                           const RmsNormBackwardArgs& args) {
  using Part = RowPart<T, N, kPacks>;
  typename Block::template PerLane<Part> x(block), gradient(block), more(block),
      weight(block);
  typename Block::template PerLane<Sums<N, kPacks>> sums(block);
  typename Block::template PerLane<float> products(block);
  const int64_t columns = args.columns;
  const auto weighted = [&](int lane, int k, int j) {
    const float g = gradient[lane].at(k, j);
    return args.weight != nullptr ? g * weight[lane].at(k, j) : g;
  };
  block.Each([&](int lane) {
    if (args.weight != nullptr) {
      weight[lane].LoadFrom(static_cast<const T*>(args.weight), lane, columns);
    }
    sums[lane] = {};
  });
  for (int64_t row = block.index(); row < args.rows; row += block.count()) {
    const int64_t begin = row * columns;
    const float r = args.r[row];
    block.Each([&](int lane) {
      x[lane].LoadFrom(static_cast<const T*>(args.x) + begin, lane, columns);
      gradient[lane].LoadFrom(static_cast<const T*>(args.gradient) + begin,
                              lane, columns);
      if (args.sum_gradient != nullptr) {
        more[lane].LoadFrom(static_cast<const T*>(args.sum_gradient) + begin,
                            lane, columns);
      }
      float product = 0;
      Part::Each(lane, columns, [&](int k, int64_t) {
        for (int j = 0; j < N; ++j) {
          const float h = x[lane].at(k, j) * r;
          product += weighted(lane, k, j) * h;
          sums[lane].values[k][j] +=
              gradient[lane].at(k, j) * (args.rounds ? Rounded<T>(h) : h);
        }
      });
      products[lane] = product;
    });
    const float mean = block.Reduce(products, 0, Add()) / columns;
    block.Each([&](int lane) {
      Part::Each(lane, columns, [&](int k, int64_t column) {
        Pack<T, N> out;
        for (int j = 0; j < N; ++j) {
          const float h = x[lane].at(k, j) * r;
          const float of_x = r * (weighted(lane, k, j) - h * mean);
          Store(
              args.sum_gradient != nullptr ? of_x + more[lane].at(k, j) : of_x,
              out.values[j]);
        }
        Store(out, static_cast<T*>(args.x_gradient) + begin + column);
      });
    });
  }
  if (args.weight_gradients == nullptr) return;
  block.Each([&](int lane) {
    float* const to = args.weight_gradients + block.index() * columns;
    Part::Each(lane, columns, [&](int k, int64_t column) {
      for (int j = 0; j < N; ++j) to[column + j] = sums[lane].values[k][j];
    });
  });
}

template <typename T, int kPacks, typename Block>
SHARDPLANE_DEVICE void RmsNormBackward(const Block& block,
                                       const RmsNormBackwardArgs& args) {
  args.packed ? RmsNormBackwardRows<T, kPack<T>, kPacks>(block, args)
              : RmsNormBackwardRows<T, 1, kPacks>(block, args);
}

// f(begin) of every pack of a lane in a row of any length.
template <int N, typename F>
SHARDPLANE_DEVICE void EachRowPack(int lane, int64_t columns, F f) {
  for (int64_t i = int64_t{lane} * N; i < columns; i += kLanes * N) f(i);
}

// The target's column here, or -1.
template <typename Args>
SHARDPLANE_DEVICE int64_t TargetColumn(const Args& args, int64_t row) {
  const int64_t target = args.target[row];
  const int64_t column = target - args.offset;
  const bool here =
      target != args.ignore_index && column >= 0 && column < args.columns;
  return here ? column : -1;
}

template <typename T, int N, typename Block>
SHARDPLANE_DEVICE void CrossEntropyRows(const Block& block,
                                        const CrossEntropyArgs& args) {
  typename Block::template PerLane<float> sums(block);
  for (int64_t r = block.index(); r < args.rows; r += block.count()) {
    const T* const row = static_cast<const T*>(args.logits) + r * args.columns;
    const float max = args.max[r];
    block.Each([&](int lane) {
      float sum = 0;
      EachRowPack<N>(lane, args.columns, [&](int64_t i) {
        const auto pack = Load<N>(row + i);
        for (int j = 0; j < N; ++j) {
          sum += Exp<T>(ToFloat(pack.values[j]) - max);
        }
      });
      sums[lane] = sum;
    });
    const float sum = block.Reduce(sums, 0, Add());
    block.Each([&](int lane) {
      if (lane != 0) return;
      const int64_t column = TargetColumn(args, r);
      args.sums[r] = sum;
      args.picked[r] = column < 0 ? 0 : ToFloat(row[column]) - max;
    });
  }
}

template <typename T, typename Block>
SHARDPLANE_DEVICE void CrossEntropy(const Block& block,
                                    const CrossEntropyArgs& args) {
  args.packed ? CrossEntropyRows<T, kPack<T>>(block, args)
              : CrossEntropyRows<T, 1>(block, args);
}

template <typename T, int N, typename Block>
SHARDPLANE_DEVICE void CrossEntropyBackwardRows(
    const Block& block, const CrossEntropyBackwardArgs& args) {
  for (int64_t r = block.index(); r < args.rows; r += block.count()) {
    const int64_t begin = r * args.columns;
    const T* const row = static_cast<const T*>(args.logits) + begin;
    const int64_t target = TargetColumn(args, r);
    const float max = args.max[r];
    const float of_sum = args.sum_gradients[r];
    const float of_picked = args.picked_gradients[r];
    block.Each([&](int lane) {
      EachRowPack<N>(lane, args.columns, [&](int64_t i) {
        const auto pack = Load<N>(row + i);
        Pack<T, N> out;
        for (int j = 0; j < N; ++j) {
          const float exp = Exp<T>(ToFloat(pack.values[j]) - max);
          Store(of_sum * exp + (i + j == target ? of_picked : 0),
                out.values[j]);
        }
        Store(out, static_cast<T*>(args.logit_gradients) + begin + i);
      });
    });
  }
}

template <typename T, typename Block>
SHARDPLANE_DEVICE void CrossEntropyBackward(
    const Block& block, const CrossEntropyBackwardArgs& args) {
  args.packed ? CrossEntropyBackwardRows<T, kPack<T>>(block, args)
              : CrossEntropyBackwardRows<T, 1>(block, args);
}

// The largest of what a lane has seen, and the sum of exp(x - largest).
struct Exponents {
  float max;
  float sum;
};

// Times what it takes for `sum` to be of a larger one. Where there was nothing
// but -inf, the sum is of nothing.
template <typename T>
SHARDPLANE_DEVICE float SumFor(const Exponents& seen, float max) {
  return seen.max > -INFINITY ? seen.sum * Exp<T>(seen.max - max) : 0;
}

template <typename T, int N, typename Block>
SHARDPLANE_DEVICE void LossRows(const Block& block, const LossArgs& args) {
  typename Block::template PerLane<Exponents> seen(block);
  typename Block::template PerLane<float> values(block);
  for (int64_t r = block.index(); r < args.rows; r += block.count()) {
    const T* const row = static_cast<const T*>(args.logits) + r * args.columns;
    block.Each([&](int lane) {
      Exponents mine{-INFINITY, 0};
      EachRowPack<N>(lane, args.columns, [&](int64_t i) {
        const auto pack = Load<N>(row + i);
        float max = mine.max;
        for (int j = 0; j < N; ++j) {
          max = Larger()(max, ToFloat(pack.values[j]));
        }
        float sum = SumFor<T>(mine, max);
        for (int j = 0; j < N; ++j) {
          sum += Exp<T>(ToFloat(pack.values[j]) - max);
        }
        // NaN of -inf beside -inf.
        mine = {max, max == -INFINITY ? 0 : sum};
      });
      seen[lane] = mine;
      values[lane] = mine.max;
    });
    const float max = block.Reduce(values, -INFINITY, Larger());
    block.Each([&](int lane) { values[lane] = SumFor<T>(seen[lane], max); });
    const float sum = block.Reduce(values, 0, Add());
    block.Each([&](int lane) {
      if (lane != 0) return;
      const int64_t target = args.target[r];
      const bool counts = target != args.ignore_index;
      args.max[r] = max;
      args.sums[r] = sum;
      args.counts[r] = counts ? 1 : 0;
      args.losses[r] = counts ? logf(sum) - (ToFloat(row[target]) - max) : 0;
    });
  }
}

template <typename T, typename Block>
SHARDPLANE_DEVICE void Loss(const Block& block, const LossArgs& args) {
  args.packed ? LossRows<T, kPack<T>>(block, args)
              : LossRows<T, 1>(block, args);
}

template <typename T, int N, typename Block>
SHARDPLANE_DEVICE void LossBackwardRows(const Block& block,
                                        const LossBackwardArgs& args) {
  const float of_one = args.count != nullptr ? 1 / *args.count : 1;
  for (int64_t r = block.index(); r < args.rows; r += block.count()) {
    const int64_t begin = r * args.columns;
    const T* const row = static_cast<const T*>(args.logits) + begin;
    const int64_t target = args.target[r];
    const bool counts = target != args.ignore_index;
    const float max = args.max[r];
    const float gradient = args.gradient[args.each_row ? r : 0] * of_one;
    const float scale = gradient / args.sums[r];
    block.Each([&](int lane) {
      EachRowPack<N>(lane, args.columns, [&](int64_t i) {
        const auto pack = Load<N>(row + i);
        const int at = static_cast<int>(target - i);  // in the pack, or not
        Pack<T, N> out;
        for (int j = 0; j < N; ++j) {
          const float all = scale * Exp<T>(ToFloat(pack.values[j]) - max);
          Store(counts ? all - (j == at ? gradient : 0) : 0, out.values[j]);
        }
        Store(out, static_cast<T*>(args.logit_gradients) + begin + i);
      });
    });
  }
}

template <typename T, typename Block>
SHARDPLANE_DEVICE void LossBackward(const Block& block,
                                    const LossBackwardArgs& args) {
  args.packed ? LossBackwardRows<T, kPack<T>>(block, args)
              : LossBackwardRows<T, 1>(block, args);
}

template <typename T, typename Block>
SHARDPLANE_DEVICE void CheckIds(const Block& block, const CheckIdsArgs& args) {
  EachPack<1>(block, args.count, [&](int64_t i) {
    const int64_t id = args.ids[i];
    const bool good =
        (id >= args.lowest && id < args.limit) || id == args.ignored;
    args.out[i] = good ? id : 0;
    if (!good) *args.bad = true;
  });
}

// The numbers of an update, of one tensor.
struct AdamNumbers {
  float sign_and_scale;  // of gradients
  float decay;           // of a parameter, where that is decoupled
  float rate;            // lr / (1 - beta1^steps)
  float scale;           // 1 / sqrt(1 - beta2^steps)
};

SHARDPLANE_DEVICE inline AdamNumbers NumbersOf(const AdamArgs& args,
                                               const AdamTensor& tensor) {
  const float steps = *tensor.steps;
  const float scale = args.clip_scale != nullptr ? *args.clip_scale : 1;
  return {args.maximize ? -scale : scale,
          args.decoupled ? *args.lr * args.weight_decay : 0,
          *args.lr / -expm1f(steps * args.log_beta1),
          1 / sqrtf(-expm1f(steps * args.log_beta2))};
}

template <typename T, int N, typename Block>
SHARDPLANE_DEVICE void AdamPacks(const Block& block, const AdamArgs& args,
                                 const AdamTensor& tensor,
                                 const AdamNumbers& numbers, int64_t begin,
                                 int64_t end) {
  T* const parameters = static_cast<T*>(tensor.parameter);
  T* const means = static_cast<T*>(tensor.exp_avg);
  T* const squares = static_cast<T*>(tensor.exp_avg_sq);
  T* const largest = static_cast<T*>(tensor.max_exp_avg_sq);
  const float added = args.decoupled ? 0 : args.weight_decay;
  block.Each([&](int lane) {
    for (int64_t i = begin + lane * N; i < end; i += kLanes * N) {
      auto parameter = Load<N>(parameters + i);
      const auto gradient = Load<N>(static_cast<const T*>(tensor.gradient) + i);
      auto mean = Load<N>(means + i);
      auto square = Load<N>(squares + i);
      Pack<T, N> most;
      if (largest != nullptr) most = Load<N>(largest + i);
      for (int j = 0; j < N; ++j) {
        const float p = ToFloat(parameter.values[j]);
        const float g =
            ToFloat(gradient.values[j]) * numbers.sign_and_scale + added * p;
        const float m = args.beta1 * ToFloat(mean.values[j]) + args.new1 * g;
        const float v =
            args.beta2 * ToFloat(square.values[j]) + args.new2 * g * g;
        float over = v;
        if (largest != nullptr) {
          over = Larger()(ToFloat(most.values[j]), v);
          Store(over, most.values[j]);
        }
        Store(p - numbers.decay * p -
                  Quotient<T>(numbers.rate * m,
                              Root<T>(over) * numbers.scale + args.eps),
              parameter.values[j]);
        Store(m, mean.values[j]);
        Store(v, square.values[j]);
      }
      Store(parameter, parameters + i);
      Store(mean, means + i);
      Store(square, squares + i);
      if (largest != nullptr) Store(most, largest + i);
    }
  });
}

template <typename T, typename Block>
SHARDPLANE_DEVICE void AdamUpdate(const Block& block, const AdamArgs& args) {
  for (int64_t i = block.index(); i < args.chunk_count; i += block.count()) {
    const AdamChunk chunk = args.chunks[i];
    const AdamTensor tensor = args.tensors[chunk.tensor];
    const AdamNumbers numbers = NumbersOf(args, tensor);
    const int64_t length = chunk.end - chunk.begin;
    const int64_t whole =
        tensor.packed ? chunk.end - length % kPack<T> : chunk.begin;
    AdamPacks<T, kPack<T>>(block, args, tensor, numbers, chunk.begin, whole);
    AdamPacks<T, 1>(block, args, tensor, numbers, whole, chunk.end);
  }
}

struct Words {
  uint32_t values[4];
};

// As common/philox, which a GPU cannot call.
SHARDPLANE_DEVICE inline Words PhiloxWords(Words c, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xd2511f53} * c.values[0];
    const uint64_t b = uint64_t{0xcd9e8d57} * c.values[2];
    c = {{static_cast<uint32_t>(b >> 32) ^ c.values[1] ^ k0,
          static_cast<uint32_t>(b),
          static_cast<uint32_t>(a >> 32) ^ c.values[3] ^ k1,
          static_cast<uint32_t>(a)}};
    k0 += 0x9e3779b9;
    k1 += 0xbb67ae85;
  }
  return c;
}

SHARDPLANE_DEVICE inline Words TwoNumbers(uint64_t a, uint64_t b) {
  return {{static_cast<uint32_t>(a), static_cast<uint32_t>(a >> 32),
           static_cast<uint32_t>(b), static_cast<uint32_t>(b >> 32)}};
}

SHARDPLANE_DEVICE inline int64_t PlaceInWhole(const DropoutArgs& args,
                                              int64_t i) {
  int64_t place = args.origin;
  for (int dim = kDropoutDims - 1; dim >= 0; --dim) {
    place += i % args.sizes[dim] * args.strides[dim];
    i /= args.sizes[dim];
  }
  return place;
}

template <typename T, typename Block>
SHARDPLANE_DEVICE void Dropout(const Block& block, const DropoutArgs& args) {
  constexpr int kWords = 4;  // of one block of random numbers
  EachPack<kWords>(block, args.count, [&](int64_t begin) {
    const Words stream = PhiloxWords(
        TwoNumbers(args.random[1], args.node),
        static_cast<uint32_t>(args.random[0]),
        static_cast<uint32_t>(static_cast<uint64_t>(args.random[0]) >> 32));
    uint64_t drawn = ~uint64_t{0};
    Words words = {};
    for (int64_t i = begin; i < begin + kWords && i < args.count; ++i) {
      const uint64_t place = PlaceInWhole(args, i);
      if (place / kWords != drawn) {
        drawn = place / kWords;
        Words counter = TwoNumbers(drawn, 0);
        counter.values[2] = stream.values[2];
        counter.values[3] = stream.values[3];
        words = PhiloxWords(counter, stream.values[0], stream.values[1]);
      }
      const bool keeps = words.values[place % kWords] >= args.threshold;
      const float x = ToFloat(static_cast<const T*>(args.x)[i]);
      Store(keeps ? x * args.scale : 0.0f, static_cast<T*>(args.out)[i]);
    }
  });
}

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_KERNELS_BODIES_H_
