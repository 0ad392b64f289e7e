#include "client/inline_tensor.h"

#include <cstdint>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(InlineTensorTest, HasTypeShapeAndLittleEndianBytes) {
  const v1::Tensor tensor = InlineTensor<int16_t>({2, 1}, {1, -2});
  EXPECT_EQ(tensor.type().dtype(), v1::DTYPE_INT16);
  EXPECT_THAT(tensor.type().shape(), ElementsAre(2, 1));
  EXPECT_EQ(tensor.inline_(), std::string("\x01\x00\xfe\xff", 4));
}

template <typename T>
class DTypeTest : public ::testing::Test {};
using Types =
    ::testing::Types<float, double, int64_t, int32_t, int16_t, int8_t, uint8_t>;
TYPED_TEST_SUITE(DTypeTest, Types);

TYPED_TEST(DTypeTest, ValuesComeBack) {
  const std::vector<TypeParam> values = {TypeParam{1}, TypeParam{0},
                                         static_cast<TypeParam>(-3)};
  const v1::Tensor tensor = InlineTensor<TypeParam>({3}, values);
  EXPECT_THAT(ValuesOf<TypeParam>(tensor), IsOkAndHolds(values));
}

TEST(InlineTensorTest, AScalarAndNothing) {
  EXPECT_THAT(ValuesOf<float>(InlineTensor<float>({}, {2.5f})),
              IsOkAndHolds(ElementsAre(2.5f)));
  EXPECT_THAT(ValuesOf<float>(InlineTensor<float>({0}, {})),
              IsOkAndHolds(IsEmpty()));
}

TEST(InlineTensorTest, OtherDTypesAndUploadsAreRefused) {
  v1::Tensor tensor = InlineTensor<float>({1}, {2.5f});
  EXPECT_THAT(
      ValuesOf<double>(tensor),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("expected an inline tensor of DTYPE_FLOAT64, got: one "
                         "of DTYPE_FLOAT32")));
  tensor.set_upload("u");
  EXPECT_THAT(ValuesOf<float>(tensor), HasReason("DTYPE_MISMATCH"));
}

TEST(InlineTensorTest, HalfAnElementIsRefused) {
  EXPECT_THAT(ValuesOf<float>(absl::string_view("12345")),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "expected elements of 4 bytes, got: 5 bytes"));
}

}  // namespace
}  // namespace shardplane
