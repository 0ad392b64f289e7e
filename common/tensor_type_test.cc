#include "common/tensor_type.h"

#include <cstdint>
#include <ostream>
#include <string>

#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

struct DTypeCase {
  std::string name;  // the text form
  DType dtype;
  int64_t byte_size;
  bool floating_point;
  bool complex = false;
};
void PrintTo(const DTypeCase& c, std::ostream* os) { *os << c.name; }

class DTypeTest : public ::testing::TestWithParam<DTypeCase> {};

TEST_P(DTypeTest, HasTextSizeAndKind) {
  EXPECT_EQ(ToString(GetParam().dtype), GetParam().name);
  EXPECT_EQ(ByteSize(GetParam().dtype), GetParam().byte_size);
  EXPECT_EQ(IsFloatingPoint(GetParam().dtype), GetParam().floating_point);
  EXPECT_EQ(IsComplex(GetParam().dtype), GetParam().complex);
  EXPECT_EQ(CarriesGradient(GetParam().dtype),
            GetParam().floating_point || GetParam().complex);
}

INSTANTIATE_TEST_SUITE_P(
    All, DTypeTest,
    ::testing::Values(DTypeCase{"f32", DType::kFloat32, 4, true},
                      DTypeCase{"f64", DType::kFloat64, 8, true},
                      DTypeCase{"f16", DType::kFloat16, 2, true},
                      DTypeCase{"bf16", DType::kBFloat16, 2, true},
                      DTypeCase{"i64", DType::kInt64, 8, false},
                      DTypeCase{"i32", DType::kInt32, 4, false},
                      DTypeCase{"i16", DType::kInt16, 2, false},
                      DTypeCase{"i8", DType::kInt8, 1, false},
                      DTypeCase{"u8", DType::kUInt8, 1, false},
                      DTypeCase{"bool", DType::kBool, 1, false},
                      DTypeCase{"c64", DType::kComplex64, 8, false, true},
                      DTypeCase{"c128", DType::kComplex128, 16, false, true}),
    CaseName<DTypeCase>);

TEST(DType, PartsOfComplexNumbers) {
  EXPECT_EQ(RealOf(DType::kComplex64), DType::kFloat32);
  EXPECT_EQ(RealOf(DType::kComplex128), DType::kFloat64);
  EXPECT_EQ(RealOf(DType::kInt16), DType::kInt16);
  EXPECT_EQ(ComplexOf(DType::kFloat64), DType::kComplex128);
  EXPECT_EQ(ComplexOf(DType::kFloat32), DType::kComplex64);
  EXPECT_EQ(ComplexOf(DType::kInt64), DType::kComplex64);
  EXPECT_EQ(ComplexOf(DType::kComplex128), DType::kComplex128);
}

TEST(TensorType, TextForm) {
  EXPECT_EQ(ToString(TensorType{DType::kFloat32, {8, 10}}), "f32[8, 10]");
  EXPECT_EQ(ToString(TensorType{DType::kInt64, {}}), "i64[]");
}

TEST(TensorType, CountsElementsAndBytes) {
  EXPECT_EQ(NumElements(Shape{}), 1);
  EXPECT_EQ(NumElements(Shape{3, 0, 5}), 0);
  EXPECT_EQ(ByteSize(TensorType{DType::kBFloat16, {3, 5}}), 30);
}

}  // namespace
}  // namespace shardplane
