#include "common/initializer.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/example_modules.h"
#include "common/float16.h"
#include "common/host_tensor.h"
#include "common/spec_enumeration.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::HasSubstr;

using Kind = Initializer::Kind;

const Initializer kUniform = {Kind::kUniform, -0.25, 0.5};
const Initializer kNormal = {Kind::kNormal, 3, 2};

std::vector<Stretches> Whole(const Shape& shape) {
  std::vector<Stretches> whole;
  for (const int64_t size : shape) whole.push_back({Extent{0, size}});
  return whole;
}

std::string Bytes(const Initializer& initializer, uint64_t seed,
                  const std::string& fqn, const TensorType& type) {
  return InitialValues(initializer, seed, fqn, type, Whole(type.shape)).value();
}

std::vector<double> Doubles(const Initializer& initializer, uint64_t seed,
                            const std::string& fqn, const Shape& shape) {
  const std::string bytes =
      Bytes(initializer, seed, fqn, {DType::kFloat64, shape});
  std::vector<double> values(bytes.size() / sizeof(double));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

TEST(InitialValues, AreTheSameOnEveryMesh) {
  for (const Initializer& initializer : {kUniform, kNormal}) {
    const TensorType type{DType::kFloat32, {5, 7}};
    const HostTensor global{type, Bytes(initializer, 1, "net1.weight", type)};
    for (const DeviceMesh& mesh : SmallMeshes()) {
      for (const DTensorSpec& spec : AllSpecs(mesh, 2)) {
        for (int rank = 0; rank < mesh.size(); ++rank) {
          const std::vector<Stretches> part =
              LocalStretches(type.shape, spec, mesh, mesh.Coordinate(rank));
          ASSERT_THAT(InitialValues(initializer, 1, "net1.weight", type, part),
                      IsOkAndHolds(SliceHost(global, part).bytes))
              << mesh.ToString() << " " << ToString(spec) << " rank " << rank;
        }
      }
    }
  }
}

TEST(InitialValues, DependOnSeedFqnAndIndex) {
  const std::vector<double> values = Doubles(kUniform, 1, "a", {4});

  EXPECT_NE(values, Doubles(kUniform, 2, "a", {4}));
  EXPECT_NE(values, Doubles(kUniform, uint64_t{1} << 32, "a", {4}));
  EXPECT_NE(values, Doubles(kUniform, 1, "b", {4}));
  EXPECT_NE(values[0], values[1]);
}

TEST(InitialValues, AZeroRowIsZeroAndNothingElse) {
  Initializer padded = kUniform;
  padded.zero_row = 1;
  std::vector<double> expected = Doubles(kUniform, 1, "a", {3, 2});
  expected[2] = expected[3] = 0;

  EXPECT_EQ(Doubles(padded, 1, "a", {3, 2}), expected);

  const TensorType type{DType::kFloat64, {3, 2}};
  const std::vector<Stretches> part = {{Extent{1, 2}}, {Extent{1, 1}}};
  EXPECT_THAT(
      InitialValues(padded, 1, "a", type, part),
      IsOkAndHolds(SliceHost({type, Bytes(padded, 1, "a", type)}, part).bytes));
}

TEST(InitialValues, RefusesAZeroRowOutside) {
  for (const Shape& shape : {Shape{2, 4}, Shape{}}) {
    Initializer padded = kUniform;
    padded.zero_row = 2;
    EXPECT_THAT(
        InitialValues(padded, 0, "p", {DType::kFloat32, shape}, Whole(shape)),
        AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("row 2, which is to be zero, must be one of "
                                 "the tensor; got: f32")),
              HasMetadata("fqn", Eq("p"))));
  }
}

// By index alone: a reshaped parameter keeps its values.
TEST(InitialValues, DoNotDependOnTheShape) {
  EXPECT_EQ(Doubles(kNormal, 1, "a", {6}), Doubles(kNormal, 1, "a", {2, 3}));
}

// Pinned, so that a run can be repeated with a later release.
TEST(InitialValues, StayTheSameForGood) {
  const std::vector<double> uniform =
      Doubles({Kind::kUniform, 0, 1}, 42, "net1.weight", {2});
  const std::vector<double> normal =
      Doubles({Kind::kNormal, 0, 1}, 42, "net1.weight", {2});

  EXPECT_THAT(uniform, ElementsAre(0.0069653328762485645, 0.3475274428125026));
  EXPECT_NEAR(normal[0], 0.056813741547398176, 1e-14);
  EXPECT_NEAR(normal[1], 0.3622356745135121, 1e-14);
}

struct Moments {
  double mean = 0;
  double variance = 0;
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
};

Moments MomentsOf(const std::vector<double>& values) {
  Moments moments;
  for (const double value : values) {
    moments.mean += value / static_cast<double>(values.size());
    moments.low = std::min(moments.low, value);
    moments.high = std::max(moments.high, value);
  }
  for (const double value : values) {
    moments.variance += (value - moments.mean) * (value - moments.mean) /
                        static_cast<double>(values.size());
  }
  return moments;
}

// Five standard errors of the mean of 40000 values.
TEST(InitialValues, UniformHasItsMoments) {
  const Moments moments = MomentsOf(Doubles(kUniform, 7, "w", {200, 200}));

  EXPECT_NEAR(moments.mean, 0.125, 5 * 0.2165 / 200);
  EXPECT_NEAR(moments.variance, 0.75 * 0.75 / 12, 0.002);
  EXPECT_GE(moments.low, -0.25);
  EXPECT_LT(moments.high, 0.5);
}

TEST(InitialValues, NormalHasItsMoments) {
  const Moments moments = MomentsOf(Doubles(kNormal, 7, "w", {200, 200}));

  EXPECT_NEAR(moments.mean, 3, 5 * 2.0 / 200);
  EXPECT_NEAR(moments.variance, 4, 0.15);
  EXPECT_LT(moments.low, 3 - 3 * 2);
  EXPECT_GT(moments.high, 3 + 3 * 2);
}

struct DTypeCase {
  std::string name;
  DType dtype;
  std::string ones;
};
void PrintTo(const DTypeCase& c, std::ostream* os) { *os << c.name; }

class ConstantTest : public ::testing::TestWithParam<DTypeCase> {};

TEST_P(ConstantTest, FillsAnyType) {
  const TensorType type{GetParam().dtype, {1}};

  EXPECT_EQ(Bytes({Kind::kOnes}, 0, "p", type), GetParam().ones);
  EXPECT_EQ(Bytes({Kind::kZeros}, 0, "p", type),
            std::string(GetParam().ones.size(), '\0'));
}

std::string Raw(std::vector<int> bytes) {
  return std::string(bytes.begin(), bytes.end());
}

INSTANTIATE_TEST_SUITE_P(
    All, ConstantTest,
    ::testing::Values(
        DTypeCase{"f32", DType::kFloat32, Raw({0, 0, 0x80, 0x3f})},
        DTypeCase{"f64", DType::kFloat64, Raw({0, 0, 0, 0, 0, 0, 0xf0, 0x3f})},
        DTypeCase{"f16", DType::kFloat16, Raw({0, 0x3c})},
        DTypeCase{"bf16", DType::kBFloat16, Raw({0x80, 0x3f})},
        DTypeCase{"i64", DType::kInt64, Raw({1, 0, 0, 0, 0, 0, 0, 0})},
        DTypeCase{"i32", DType::kInt32, Raw({1, 0, 0, 0})},
        DTypeCase{"i16", DType::kInt16, Raw({1, 0})},
        DTypeCase{"i8", DType::kInt8, Raw({1})},
        DTypeCase{"u8", DType::kUInt8, Raw({1})},
        DTypeCase{"bool", DType::kBool, Raw({1})},
        DTypeCase{"c64", DType::kComplex64,
                  Raw({0, 0, 0x80, 0x3f, 0, 0, 0, 0})},
        DTypeCase{"c128", DType::kComplex128,
                  Raw({0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0})}),
    CaseName<DTypeCase>);

// Narrow types have the wide values, rounded.
TEST(InitialValues, AreRoundedToTheType) {
  const double wide = Doubles(kNormal, 3, "p", {1})[0];
  uint16_t half = 0;
  std::memcpy(&half, Bytes(kNormal, 3, "p", {DType::kFloat16, {1}}).data(), 2);
  uint16_t bfloat16 = 0;
  std::memcpy(&bfloat16, Bytes(kNormal, 3, "p", {DType::kBFloat16, {1}}).data(),
              2);

  EXPECT_EQ(half, FloatToHalf(static_cast<float>(wide)));
  EXPECT_EQ(bfloat16, FloatToBFloat16(static_cast<float>(wide)));
}

TEST(InitialValues, RefusesRandomIntegers) {
  EXPECT_THAT(
      InitialValues(kUniform, 0, "steps", {DType::kInt64, {2}}, Whole({2})),
      AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                     HasSubstr("\"steps\": random initial values need "
                               "a floating-point type; got: i64[2]")),
            HasMetadata("fqn", Eq("steps"))));
}

TEST(InitialValues, RefusesRandomComplexNumbers) {
  EXPECT_THAT(
      InitialValues(kNormal, 0, "turns", {DType::kComplex64, {2}}, Whole({2})),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("\"turns\": random initial values need a "
                         "floating-point type; got: c64[2]")));
}

TEST(InitialValues, RefusesPartsOutside) {
  const TensorType type{DType::kFloat32, {4}};

  EXPECT_THAT(InitialValues(kUniform, 0, "p", type, {{Extent{3, 2}}}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("must lie inside the tensor; got: f32[4]")));
  EXPECT_THAT(InitialValues(kUniform, 0, "p", type, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("f32")));
}

struct DefaultCase {
  std::string name;
  std::string type;
  std::vector<std::string> bases;
  std::string parameter;
  Initializer expected;
};
void PrintTo(const DefaultCase& c, std::ostream* os) { *os << c.name; }

class DefaultInitializerTest : public ::testing::TestWithParam<DefaultCase> {};

GraphModule OneModule(const std::string& type,
                      const std::vector<std::string>& bases) {
  return ModuleBuilder("Root")
      .Module("m", type, bases)
      .Parameter("m.weight", {8, 16})
      .Parameter("m.bias", {8})
      .Parameter("m.scale", {8})
      .Build();
}

TEST_P(DefaultInitializerTest, IsAsInTorch) {
  const GraphModule module = OneModule(GetParam().type, GetParam().bases);

  EXPECT_THAT(DefaultInitializer(
                  module, *module.FindParameter("m." + GetParam().parameter)),
              IsOkAndHolds(GetParam().expected));
}

INSTANTIATE_TEST_SUITE_P(All, DefaultInitializerTest,
                         ::testing::Values(
                             // Fan in 16: 1/sqrt(16), for the bias as well.
                             DefaultCase{"linear weight",
                                         "torch.nn.Linear",
                                         {},
                                         "weight",
                                         {Kind::kUniform, -0.25, 0.25}},
                             DefaultCase{"linear bias",
                                         "torch.nn.modules.linear.Linear",
                                         {},
                                         "bias",
                                         {Kind::kUniform, -0.25, 0.25}},
                             DefaultCase{"linear subclass",
                                         "my.Linear2",
                                         {"torch.nn.Linear"},
                                         "weight",
                                         {Kind::kUniform, -0.25, 0.25}},
                             DefaultCase{"embedding",
                                         "torch.nn.Embedding",
                                         {},
                                         "weight",
                                         {Kind::kNormal, 0, 1}},
                             DefaultCase{"layer norm weight",
                                         "torch.nn.LayerNorm",
                                         {},
                                         "weight",
                                         {Kind::kOnes, 0, 0}},
                             DefaultCase{"layer norm bias",
                                         "torch.nn.LayerNorm",
                                         {},
                                         "bias",
                                         {Kind::kZeros, 0, 0}},
                             DefaultCase{"rms norm weight",
                                         "torch.nn.RMSNorm",
                                         {},
                                         "weight",
                                         {Kind::kOnes, 0, 0}}),
                         CaseName<DefaultCase>);

TEST(DefaultInitializer, SaysWhatToDoForOthers) {
  for (const char* type : {"my.Attention", "torch.nn.Linear"}) {
    const GraphModule module = OneModule(type, {});
    EXPECT_THAT(
        DefaultInitializer(module, *module.FindParameter("m.scale")),
        AllOf(StatusIs(absl::StatusCode::kUnimplemented,
                       HasSubstr(absl::StrCat("got: \"scale\" of a module of "
                                              "type ",
                                              type))),
              HasReason("NO_DEFAULT_INITIALIZER"),
              HasMetadata("fqn", Eq("m.scale"))));
  }
}

// The weight f32[8, 4] of an Embedding with that padding_idx.
absl::StatusOr<Initializer> DefaultWithPadding(Argument padding) {
  ModuleNode root;
  root.type = "torch.nn.Embedding";
  root.attributes["padding_idx"] = std::move(padding);
  Parameter weight;
  weight.fqn = "weight";
  weight.type.shape = {8, 4};
  const GraphModule module = GraphModule::Create({root}, {weight}).value();
  return DefaultInitializer(module, weight);
}

TEST(DefaultInitializer, ThePaddingRowIsZero) {
  const Initializer normal = {Kind::kNormal, 0, 1};
  Initializer padded = normal;
  padded.zero_row = 6;

  EXPECT_THAT(DefaultWithPadding({}), IsOkAndHolds(normal));
  EXPECT_THAT(DefaultWithPadding({int64_t{6}}), IsOkAndHolds(padded));
  EXPECT_THAT(DefaultWithPadding({int64_t{-2}}), IsOkAndHolds(padded));
}

TEST(DefaultInitializer, RefusesAPaddingRowThatIsNone) {
  for (const int64_t padding : {-9, 8}) {
    EXPECT_THAT(
        DefaultWithPadding({padding}),
        AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(absl::StrCat(
                           "must be one of its 8 rows; got: ", padding))),
              HasMetadata("fqn", Eq("weight"))));
  }
}

}  // namespace
}  // namespace shardplane
