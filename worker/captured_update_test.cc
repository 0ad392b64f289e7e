// On a CPU with a graph that calls its work again; in the target tagged gpu
// with a GPU's.
#include "worker/captured_update.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ATen/TensorOperators.h"
#include "ATen/core/Tensor.h"
#include "ATen/ops/allclose.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/complex.h"
#include "absl/strings/str_cat.h"
#include "c10/core/DeviceGuard.h"
#include "tests/matchers.h"
#include "worker/device_for_test.h"
#include "worker/graph_for_test.h"
#include "worker/optimizers.h"

namespace shardplane {
namespace {

using testing::HasSubstr;

OptimizerOptions Of(Hyperparameters values) { return {std::move(values), {}}; }

// The same updates of the same parameters three times: with graphs, with graphs
// that cannot be captured, and without. Where lr is a number of f32 all three
// give the same bits.
class CapturedUpdateTest : public testing::Test {
 protected:
  struct Side {
    explicit Side(std::unique_ptr<CapturedUpdate> captured)
        : optimizers(std::move(captured)) {}
    NamedTensors parameters;
    Optimizers optimizers;
  };

  CapturedUpdateTest() : device_(DeviceForTest(0)), guard_(device_) {
    failing_.fails = true;
    Add("a", {3, 5});
    Add("b", {37});
  }

  std::unique_ptr<CapturedUpdate> Through(GraphCounts* counts,
                                          std::vector<absl::Status>* told) {
    return std::make_unique<CapturedUpdate>(
        [this, counts] {
          return std::make_unique<CountedGraph>(device_, OnCpu::kKeepsWork,
                                                counts);
        },
        [told](const absl::Status& went) { told->push_back(went); });
  }

  at::Tensor Pattern(at::IntArrayRef shape, at::ScalarType type, double from) {
    const int64_t count = c10::multiply_integers(shape);
    const at::Tensor f64 =
        at::arange(count, at::TensorOptions(at::kDouble).device(device_));
    const at::Tensor real = (f64 + from).sin().view(shape);
    return at::isComplexType(type) ? at::complex(real, real.cos()).to(type)
                                   : real.to(type);
  }
  void Add(const std::string& fqn, at::IntArrayRef shape,
           at::ScalarType type = at::kFloat) {
    for (Side* side : sides_) side->parameters[fqn] = Pattern(shape, type, 1);
    gradients_[fqn] = Pattern(shape, type, 0);
  }
  void Remove(const std::string& fqn) {
    for (Side* side : sides_) side->parameters.erase(fqn);
    gradients_.erase(fqn);
  }

  // By gradients that are new, in the same memory.
  void Update(const OptimizerOptions& options,
              std::optional<double> clip_scale = std::nullopt) {
    from_ += 2;
    for (auto& [fqn, gradient] : gradients_) {
      gradient.copy_(Pattern(gradient.sizes(), gradient.scalar_type(), from_));
    }
    for (Side* side : sides_) {
      ASSERT_THAT(side->optimizers.Apply(options, side->parameters, gradients_,
                                         {}, clip_scale),
                  IsOk());
    }
  }
  void Update(int times, const OptimizerOptions& options) {
    for (int i = 0; i < times; ++i) Update(options);
  }
  // `side` against the one with graphs.
  void ExpectSameBits(const Side& side) {
    for (const auto& [fqn, parameter] : graphs_.parameters) {
      EXPECT_TRUE(parameter.equal(side.parameters.at(fqn)))
          << fqn << "\n"
          << parameter << "\nexpected\n"
          << side.parameters.at(fqn);
    }
  }
  void ExpectSameBits() {
    ExpectSameBits(calls_);
    ExpectSameBits(without_);
  }

  const c10::Device device_;
  const c10::DeviceGuard guard_;
  GraphCounts counts_;
  GraphCounts failing_;
  std::vector<absl::Status> told_;
  std::vector<absl::Status> told_of_failing_;
  Side graphs_{Through(&counts_, &told_)};
  Side calls_{Through(&failing_, &told_of_failing_)};
  Side without_{nullptr};
  const std::vector<Side*> sides_{&graphs_, &calls_, &without_};
  NamedTensors gradients_;
  double from_ = 0;
};

struct OptionsCase {
  const char* name;
  Hyperparameters values;
  int begins = 0;  // updates before those that are alike
};

class OptionsTest : public CapturedUpdateTest,
                    public testing::WithParamInterface<OptionsCase> {};

TEST_P(OptionsTest, UpdatesAreTheSameAndFollowLr) {
  Hyperparameters values = GetParam().values;
  for (int i = 0; i < GetParam().begins + 6; ++i) {
    std::visit([&](auto& of) { of.lr = i % 2 == 0 ? 0.25 : 1. / (1 << i); },
               values);
    Update(Of(values));
    ExpectSameBits();
  }
  EXPECT_EQ(counts_.captures, 1);
  EXPECT_EQ(counts_.replays, 4);
  EXPECT_THAT(told_, testing::ElementsAre(IsOk()));
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, OptionsTest,
    testing::Values(
        OptionsCase{"Sgd", SgdOptions{.weight_decay = 0.5}},
        OptionsCase{"Momentum", SgdOptions{.momentum = 0.9, .dampening = 0.1},
                    1},
        OptionsCase{"Nesterov", SgdOptions{.momentum = 0.9, .nesterov = true},
                    1},
        OptionsCase{"SgdMaximize", SgdOptions{.maximize = true}},
        OptionsCase{"Adam", AdamOptions{.weight_decay = 0.1}},
        OptionsCase{"AdamW",
                    AdamOptions{.kind = AdamKind::kAdamW, .weight_decay = 0.1}},
        OptionsCase{"Amsgrad", AdamOptions{.beta2 = 0.5, .amsgrad = true}},
        OptionsCase{"AdamMaximize", AdamOptions{.maximize = true}}),
    [](const auto& info) { return info.param.name; });

// 1 - lr * weight_decay is 0, or -1.5e-8 by an lr that is rounded.
TEST_F(CapturedUpdateTest, AnLrThatIsNoF32IsRoundedInGraphsAndCallsAlike) {
  for (int i = 1; i <= 6; ++i) {
    Update(Of(
        AdamOptions{.kind = AdamKind::kAdamW, .lr = 0.1, .weight_decay = 10}));
    ExpectSameBits(calls_);
  }
  for (const auto& [fqn, parameter] : graphs_.parameters) {
    EXPECT_TRUE(
        at::allclose(parameter, without_.parameters.at(fqn), 1e-5, 1e-5));
  }
  EXPECT_EQ(counts_.replays, 4);
}

TEST_F(CapturedUpdateTest, GroupsHaveAnLrEach) {
  const auto options = [](double lr) {
    return OptimizerOptions{AdamOptions{.lr = lr},
                            {{{"b"}, AdamOptions{.lr = 2 * lr, .beta1 = 0.5}}}};
  };
  for (const double lr : {0.5, 0.5, 0.25, 0.125}) {
    Update(options(lr));
    ExpectSameBits();
  }
  EXPECT_EQ(counts_.replays, 2);
}

TEST_F(CapturedUpdateTest, StepsOfEachParameterAreCounted) {
  const at::Tensor late = gradients_.at("b");
  gradients_.erase("b");
  Update(2, Of(AdamOptions{.lr = 0.25}));
  gradients_["b"] = late;
  Update(4, Of(AdamOptions{.lr = 0.25}));
  ExpectSameBits();
  EXPECT_EQ(counts_.captures, 1);
  EXPECT_EQ(counts_.replays, 2);
}

TEST_F(CapturedUpdateTest, StepsThatPartAreAnotherUpdate) {
  const OptimizerOptions adam = Of(AdamOptions{.lr = 0.25});
  Update(3, adam);
  const at::Tensor skips = gradients_.at("b");
  gradients_.erase("b");
  Update(adam);
  gradients_["b"] = skips;
  Update(adam);  // 5 and 4
  ExpectSameBits();
  EXPECT_EQ(counts_.replays, 1);
  Update(2, adam);
  ExpectSameBits();
  EXPECT_EQ(counts_.captures, 2);
}

TEST_F(CapturedUpdateTest, OtherValuesAreCallsUntilTheyStay) {
  Update(4, Of(AdamOptions{.lr = 0.25}));
  EXPECT_EQ(counts_.replays, 2);
  Update(2, Of(AdamOptions{.lr = 0.25, .weight_decay = 0.5}));
  ExpectSameBits();
  EXPECT_EQ(counts_.replays, 2);
  Update(2, Of(AdamOptions{.lr = 0.25, .weight_decay = 0.5}));
  ExpectSameBits();
  EXPECT_EQ(counts_.captures, 2);
  EXPECT_EQ(counts_.replays, 4);
}

TEST_F(CapturedUpdateTest, GradientsElsewhereAreCallsAndTheGraphStays) {
  const OptimizerOptions adam = Of(AdamOptions{.lr = 0.25});
  Update(3, adam);
  const NamedTensors before = gradients_;
  gradients_["a"] = before.at("a").clone();
  Update(adam);
  EXPECT_EQ(counts_.replays, 1);
  gradients_ = before;
  Update(adam);
  ExpectSameBits();
  EXPECT_EQ(counts_.captures, 1);
  EXPECT_EQ(counts_.replays, 2);
}

TEST_F(CapturedUpdateTest, ParametersElsewhereAreCalls) {
  const OptimizerOptions sgd = Of(SgdOptions{.lr = 0.25});
  Update(3, sgd);
  const NamedTensors before = graphs_.parameters;  // keeps their memory
  for (Side* side : sides_) {
    for (auto& [fqn, parameter] : side->parameters) {
      parameter = parameter.clone();
    }
  }
  Update(sgd);
  ExpectSameBits();
  EXPECT_EQ(counts_.replays, 1);
}

TEST_F(CapturedUpdateTest, LoadedParametersAreUpdated) {
  const OptimizerOptions adam = Of(AdamOptions{.lr = 0.25});
  Update(4, adam);
  for (Side* side : sides_) side->parameters["a"].fill_(3);
  Update(adam);
  ExpectSameBits();
  EXPECT_EQ(counts_.replays, 3);
}

TEST_F(CapturedUpdateTest, StateThatIsResetBeginsAnew) {
  for (const Hyperparameters& values :
       {Hyperparameters(SgdOptions{.lr = 0.25, .momentum = 0.5}),
        Hyperparameters(AdamOptions{.lr = 0.25})}) {
    for (int i = 0; i < 2; ++i) {
      for (Side* side : sides_) side->optimizers.Reset();
      Update(5, Of(values));
      ExpectSameBits();
    }
  }
  EXPECT_GE(counts_.captures, 2);
}

TEST_F(CapturedUpdateTest, ClippingIsPartOfTheGraph) {
  for (const double scale : {0.5, 1., 0.75, 1., 0.3}) {
    Update(Of(SgdOptions{.lr = 0.25}), scale);
    ExpectSameBits();
  }
  EXPECT_EQ(counts_.captures, 1);
  EXPECT_EQ(counts_.replays, 3);
  EXPECT_TRUE(gradients_.at("b").equal(Pattern({37}, at::kFloat, from_)))
      << "gradients stay";
  Update(Of(SgdOptions{.lr = 0.25}));
  ExpectSameBits();
  EXPECT_EQ(counts_.replays, 3) << "without clipping it is another update";
}

// Where eps outweighs the rest, Adam's update shows the scale.
TEST_F(CapturedUpdateTest, ScalesAreNotRoundedToBf16) {
  Add("c", {1025}, at::kBFloat16);
  for (Side* side : sides_) side->parameters["c"].zero_();
  for (int i = 0; i < 4; ++i) {
    Update(Of(AdamOptions{.lr = 0.25, .beta1 = 0, .beta2 = 0, .eps = 4}),
           1. / 3);
    ExpectSameBits();
  }
  EXPECT_EQ(counts_.replays, 2);
}

TEST_F(CapturedUpdateTest, ComplexAndStridedGradients) {
  Add("c", {4, 5}, at::kComplexFloat);
  Add("d", {4, 5});
  gradients_["d"] = gradients_.at("d").t().contiguous().t();
  for (int i = 0; i < 4; ++i) {
    Update(Of(AdamOptions{.lr = 0.25}), 0.5);
    ExpectSameBits();
  }
  EXPECT_EQ(counts_.replays, 2);
}

TEST_F(CapturedUpdateTest, F64IsUpdatedBesideTheGraphByAnF64Lr) {
  Add("c", {7}, at::kDouble);
  const auto expect_same = [this] {
    for (const Side* side : {&calls_, &without_}) {
      EXPECT_TRUE(graphs_.parameters.at("c").equal(side->parameters.at("c")));
    }
  };
  for (int i = 0; i < 4; ++i) {
    Update(Of(AdamOptions{.lr = 0.1}), 0.7);
    expect_same();
    ExpectSameBits(calls_);
  }
  EXPECT_EQ(counts_.replays, 2);
  Remove("a");
  Remove("b");
  for (int i = 0; i < 4; ++i) {
    Update(Of(AdamOptions{.lr = 0.1}));
    expect_same();
  }
  EXPECT_EQ(counts_.captures, 1);
}

TEST_F(CapturedUpdateTest, WhatFailsToBeCapturedIsCallsForGood) {
  Update(6, Of(AdamOptions{.lr = 0.25}));
  ExpectSameBits(without_);
  Update(6, Of(AdamOptions{.lr = 0.25, .weight_decay = 0.5}));
  EXPECT_EQ(failing_.captures, 1);
  EXPECT_EQ(failing_.replays, 0);
  ASSERT_EQ(told_of_failing_.size(), 1u);
  EXPECT_THAT(std::string(told_of_failing_[0].message()),
              HasSubstr("capturing an update: operation not permitted when "
                        "capturing"));
}

TEST_F(CapturedUpdateTest, WhatChangesAgainAndAgainIsCallsForGood) {
  for (int i = 1; i <= 8; ++i) {
    Update(3, Of(SgdOptions{.lr = 0.25, .weight_decay = i * 0.0625}));
  }
  EXPECT_EQ(told_.size(), 8u);
  EXPECT_THAT(told_, testing::Each(IsOk()));
  const OptimizerOptions ninth = Of(SgdOptions{.lr = 0.25});
  Update(3, ninth);
  ASSERT_EQ(told_.size(), 9u);
  EXPECT_THAT(told_.back(), StatusIs(absl::StatusCode::kResourceExhausted,
                                     HasSubstr("another after 8")));
  Update(3, Of(SgdOptions{.lr = 0.25, .weight_decay = 0.5}));
  Update(3, ninth);
  ExpectSameBits();
  EXPECT_EQ(told_.size(), 9u);
  EXPECT_EQ(counts_.captures, 8);
  EXPECT_EQ(counts_.replays, 8);
}

}  // namespace
}  // namespace shardplane
