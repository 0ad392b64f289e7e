// The kernel beside the formula in f64, and in the place of ATen's. On a CPU,
// and in the target tagged gpu on one.
#include "worker/adam_kernel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "ATen/TensorOperators.h"
#include "ATen/core/Tensor.h"
#include "ATen/ops/allclose.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/empty_like.h"
#include "ATen/ops/full.h"
#include "ATen/ops/maximum.h"
#include "c10/core/DeviceGuard.h"
#include "tests/matchers.h"
#include "worker/captured_update.h"
#include "worker/device_for_test.h"
#include "worker/graph_for_test.h"
#include "worker/kernels_for_test.h"
#include "worker/optimizers.h"

namespace shardplane {
namespace {

struct Case {
  const char* name;
  AdamOptions options;
  int64_t steps = 1;
  double clip_scale = 1;
};

class AdamKernelTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override { KernelsInUse().Take(); }

  at::Tensor Values(int64_t count, at::ScalarType type, int seed) {
    return (at::arange(count, at::kDouble) * 12.9898 + seed * 78.233)
        .sin()
        .to(device_, type);
  }
  at::Tensor Number(double value) {
    return at::full({}, value, at::dtype(at::kFloat).device(device_));
  }
  // With `aside`, not where a pack begins.
  AdamOperands Operands(int64_t count, at::ScalarType type, bool aside,
                        const at::Tensor& steps, bool amsgrad) {
    const auto some = [&](int seed) {
      return Values(count + 1, type, seed)
          .slice(0, aside ? 1 : 0, aside ? count + 1 : count);
    };
    const auto squares = [&](int seed) { return some(seed).abs().clone(); };
    return {some(0),
            some(1),
            some(2),
            squares(3),
            amsgrad ? squares(4) : at::Tensor(),
            steps};
  }
  static std::vector<at::Tensor> StateOf(const AdamOperands& of) {
    std::vector<at::Tensor> state{of.parameter, of.exp_avg, of.exp_avg_sq};
    if (of.max_exp_avg_sq.defined()) state.push_back(of.max_exp_avg_sq);
    return state;
  }

  const c10::Device device_ = c10::Device(DeviceForTest(0));
  const c10::DeviceGuard guard_{device_};
};

// As torch.optim has it.
std::vector<at::Tensor> Exact(const AdamOptions& options, double lr,
                              int64_t steps, double clip_scale,
                              const AdamOperands& of) {
  const auto wide = [](const at::Tensor& x) { return x.cpu().to(at::kDouble); };
  at::Tensor p = wide(of.parameter);
  at::Tensor g =
      wide(of.gradient) * (options.maximize ? -clip_scale : clip_scale);
  if (options.kind == AdamKind::kAdamW) {
    p = p * (1 - lr * options.weight_decay);
  } else {
    g = g + p * options.weight_decay;
  }
  const at::Tensor m =
      wide(of.exp_avg) * options.beta1 + g * (1 - options.beta1);
  const at::Tensor v =
      wide(of.exp_avg_sq) * options.beta2 + g * g * (1 - options.beta2);
  std::vector<at::Tensor> made{at::Tensor(), m, v};
  if (options.amsgrad) {
    made.push_back(at::maximum(wide(of.max_exp_avg_sq), v));
  }
  const double correction1 = 1 - std::pow(options.beta1, steps);
  const double correction2 = 1 - std::pow(options.beta2, steps);
  made[0] = p - m * (lr / correction1) /
                    (made.back().sqrt() / std::sqrt(correction2) + options.eps);
  return made;
}

TEST_P(AdamKernelTest, IsTheFormula) {
  const auto& [name, options, steps, clip_scale] = GetParam();
  const double lr = 0.25;
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    for (const bool aside : {false, true}) {
      const at::Tensor count = Number(static_cast<double>(steps));
      std::vector<AdamOperands> all;
      std::vector<std::vector<at::Tensor>> expected;
      // More than a chunk, and ends within a pack.
      for (const int64_t size : {1, 7, 16, 300, 65536 + 11}) {
        all.push_back(Operands(size, type, aside, count, options.amsgrad));
        expected.push_back(Exact(options, lr, steps, clip_scale, all.back()));
      }
      ASSERT_TRUE(HasAdamKernel(all));
      AdamByKernel(options, MakeAdamTable(all), Number(lr),
                   clip_scale == 1 ? at::Tensor() : Number(clip_scale).view(1));
      EXPECT_EQ(KernelsInUse().Take(), 1);
      for (size_t i = 0; i < all.size(); ++i) {
        const std::vector<at::Tensor> found = StateOf(all[i]);
        for (size_t j = 0; j < found.size(); ++j) {
          // What is rounded once; f32 on the way, too.
          const double step = type == at::kFloat ? 1e-6 : 1. / 256;
          EXPECT_TRUE(at::allclose(found[j].cpu().to(at::kDouble),
                                   expected[i][j], step, 1e-6))
              << name << " " << type << " " << i << ", tensor " << j;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Options, AdamKernelTest,
    testing::Values(
        Case{"Adam", AdamOptions()}, Case{"Later", AdamOptions(), 1000},
        Case{"Decay", AdamOptions{.weight_decay = 0.5}, 3},
        Case{"AdamW",
             AdamOptions{.kind = AdamKind::kAdamW, .weight_decay = 0.5}, 3},
        Case{"Amsgrad", AdamOptions{.beta2 = 0.5, .amsgrad = true}, 2},
        Case{"Maximize", AdamOptions{.maximize = true}, 2},
        Case{"Clipped", AdamOptions{.eps = 1e-3}, 2, 0.125},
        Case{"NoMemory", AdamOptions{.beta1 = 0, .beta2 = 0}, 2}),
    [](const auto& info) { return info.param.name; });

TEST_F(AdamKernelTest, WhatItDoesNotTake) {
  const at::Tensor steps = Number(1);
  const auto takes = [&](auto change) {
    std::vector<AdamOperands> all{Operands(8, at::kFloat, false, steps, false),
                                  Operands(8, at::kFloat, false, steps, false)};
    change(all[1]);
    return HasAdamKernel(all);
  };
  EXPECT_TRUE(takes([](AdamOperands&) {}));
  EXPECT_FALSE(takes(
      [](AdamOperands& of) { of.gradient = of.gradient.to(at::kBFloat16); }));
  EXPECT_FALSE(takes([](AdamOperands& of) {
    of.gradient = of.gradient.view({2, 4}).t();
  }));
  EXPECT_FALSE(
      takes([](AdamOperands& of) { of.gradient = of.gradient._neg_view(); }));
  EXPECT_FALSE(HasAdamKernel(std::vector<AdamOperands>{
      Operands(8, at::kDouble, false, steps, false)}));
  EXPECT_FALSE(HasAdamKernel(
      std::vector<AdamOperands>{Operands(8, at::kHalf, false, steps, false)}));
}

// In a graph and without, to the same bits; ATen's own are near.
TEST_F(AdamKernelTest, UpdatesThatMayBeCapturedUseIt) {
  GraphCounts captured, failing{.fails = true};
  const auto through = [&](GraphCounts* counts) {
    return std::make_unique<CapturedUpdate>(
        [this, counts] {
          return std::make_unique<CountedGraph>(device_, OnCpu::kKeepsWork,
                                                counts);
        },
        [](const absl::Status&) {});
  };
  Optimizers sides[] = {Optimizers(through(&captured)),
                        Optimizers(through(&failing)), Optimizers()};
  NamedTensors parameters[3];
  NamedTensors gradients;
  for (const auto& [fqn, size] :
       {std::pair<const char*, int64_t>{"a", 37}, {"b", 5000}}) {
    for (NamedTensors& of : parameters) of[fqn] = Values(size, at::kFloat, 1);
    gradients[fqn] = at::empty_like(parameters[0][fqn]);
  }
  for (int step = 0; step < 6; ++step) {
    for (auto& [fqn, gradient] : gradients) {
      gradient.copy_(Values(gradient.numel(), at::kFloat, 10 + step));
    }
    const OptimizerOptions options{
        AdamOptions{.kind = AdamKind::kAdamW, .lr = 0.1 + step}, {}};
    int launches[3];
    for (int side = 0; side < 3; ++side) {
      KernelsInUse().Take();
      ASSERT_THAT(
          sides[side].Apply(options, parameters[side], gradients, {}, 0.5),
          IsOk());
      launches[side] = KernelsInUse().Take();
    }
    EXPECT_THAT(launches, testing::ElementsAre(
                              device_.is_cpu() || step < 3 ? 1 : 0, 1, 0));
    for (const auto& [fqn, parameter] : parameters[0]) {
      EXPECT_TRUE(parameter.equal(parameters[1].at(fqn))) << step;
      EXPECT_TRUE(at::allclose(parameter, parameters[2].at(fqn), 1e-4, 1e-4))
          << step;
    }
  }
  EXPECT_EQ(captured.captures, 1);
  EXPECT_EQ(captured.replays, 4);
}

}  // namespace
}  // namespace shardplane
