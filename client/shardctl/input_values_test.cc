#include "client/shardctl/input_values.h"

#include <cstring>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::Lt;
using ::testing::SizeIs;

v1::TensorType TypeOf(v1::DType dtype, const std::vector<int64_t>& shape) {
  v1::TensorType type;
  type.set_dtype(dtype);
  type.mutable_shape()->Add(shape.begin(), shape.end());
  return type;
}

template <typename T>
std::vector<T> ValuesOf(const v1::Tensor& tensor) {
  std::vector<T> values(tensor.inline_().size() / sizeof(T));
  std::memcpy(values.data(), tensor.inline_().data(), tensor.inline_().size());
  return values;
}

Document Json(const char* text) { return Document::parse(text); }

TEST(InputValuesTest, NestedLists) {
  const auto tensor = TensorOf(TypeOf(v1::DTYPE_FLOAT32, {2, 2}),
                               Json("[[1, \"2.5\"], [-3, 4e-1]]"));
  ASSERT_THAT(tensor, IsOk());
  EXPECT_THAT(ValuesOf<float>(*tensor), ElementsAre(1, 2.5f, -3, 0.4f));
}

TEST(InputValuesTest, ANumberFillsIt) {
  const auto tensor = TensorOf(TypeOf(v1::DTYPE_INT64, {3}), Json("\"7\""));
  ASSERT_THAT(tensor, IsOk());
  EXPECT_THAT(ValuesOf<int64_t>(*tensor), ElementsAre(7, 7, 7));
  EXPECT_THAT(
      ValuesOf<double>(*TensorOf(TypeOf(v1::DTYPE_FLOAT64, {}), Json("1.5"))),
      ElementsAre(1.5));
}

TEST(InputValuesTest, ShortFloatsAreRounded) {
  // 1 + 2^-8 lies between two: to the even one, 1. 1 + 3 * 2^-8: up.
  const auto bf16 = TensorOf(TypeOf(v1::DTYPE_BFLOAT16, {3}),
                             Json("[1.00390625, 1.01171875, -2]"));
  EXPECT_THAT(ValuesOf<uint16_t>(*bf16), ElementsAre(0x3F80, 0x3F82, 0xC000));
  // Ties go to even: 1 + 2^-11 down, 1 + 3 * 2^-11 up, 2047.5 * 2^-10 to 2.
  const auto f16 = TensorOf(
      TypeOf(v1::DTYPE_FLOAT16, {9}),
      Json("[1, -0.5, 1.00048828125, 1.00146484375, 1.99951171875, 65519, "
           "65520, 5.9604644775390625e-8, 6.103515625e-5]"));
  EXPECT_THAT(ValuesOf<uint16_t>(*f16),
              ElementsAre(0x3C00, 0xB800, 0x3C00, 0x3C02, 0x4000, 0x7BFF,
                          0x7C00, 0x0001, 0x0400));
  const auto truth = TensorOf(TypeOf(v1::DTYPE_BOOL, {2}), Json("[true, 0]"));
  EXPECT_THAT(ValuesOf<uint8_t>(*truth), ElementsAre(1, 0));
}

TEST(InputValuesTest, WhatDoesNotFit) {
  const auto type = TypeOf(v1::DTYPE_INT32, {2});
  EXPECT_THAT(TensorOf(type, Json("[1]")),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "expected 2 elements along dim 0 of i32[2], got: 1"));
  EXPECT_THAT(TensorOf(type, Json("[1, 1.5]")),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "expected an integer, got: 1.5"));
  EXPECT_THAT(TensorOf(type, Json("[1, \"x\"]")),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "expected an integer, got: x"));
  EXPECT_THAT(
      TensorOf(TypeOf(v1::DTYPE_COMPLEX64, {1}), Json("[1]")),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("real dtype")));
}

TEST(InputValuesTest, RandomOnesDependOnSeedAndIndex) {
  const auto type = TypeOf(v1::DTYPE_FLOAT64, {1000});
  const auto values = ValuesOf<double>(*RandomTensor(type, 1, 0, 2));
  EXPECT_THAT(values, AllOf(SizeIs(1000), Each(AllOf(Ge(-1), Lt(1)))));
  EXPECT_EQ(values, ValuesOf<double>(*RandomTensor(type, 1, 0, 2)));
  EXPECT_NE(values, ValuesOf<double>(*RandomTensor(type, 2, 0, 2)));
  EXPECT_NE(values, ValuesOf<double>(*RandomTensor(type, 1, 1, 2)));
  double sum = 0;
  for (const double value : values) sum += value;
  EXPECT_NEAR(sum / 1000, 0, 0.1);
}

TEST(InputValuesTest, RandomIntegersStayBelow) {
  const auto values = ValuesOf<int64_t>(
      *RandomTensor(TypeOf(v1::DTYPE_INT64, {1000}), 1, 0, 3));
  EXPECT_THAT(values, Each(AllOf(Ge(0), Lt(3))));
  EXPECT_THAT(values, ::testing::IsSupersetOf({0, 1, 2}));
  EXPECT_THAT(
      ValuesOf<uint8_t>(*RandomTensor(TypeOf(v1::DTYPE_BOOL, {100}), 1, 0, 50)),
      Each(Lt(2)));
}

}  // namespace
}  // namespace shardplane
