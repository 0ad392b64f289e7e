#include "client/shardctl/text_values.h"

#include "gtest/gtest.h"

namespace shardplane {
namespace {

TEST(TextValuesTest, Bytes) {
  EXPECT_EQ(BytesText(0), "0 B");
  EXPECT_EQ(BytesText(1023), "1023 B");
  EXPECT_EQ(BytesText(1536), "1.5 KiB");
  EXPECT_EQ(BytesText(int64_t{1} << 40), "1.0 TiB");
}

TEST(TextValuesTest, AgesHaveTwoUnits) {
  EXPECT_EQ(AgeText(absl::ZeroDuration()), "0s");
  EXPECT_EQ(AgeText(-absl::Seconds(3)), "0s");
  EXPECT_EQ(AgeText(absl::Seconds(42)), "42s");
  EXPECT_EQ(AgeText(absl::Seconds(185)), "3m5s");
  EXPECT_EQ(AgeText(absl::Hours(2)), "2h");
  EXPECT_EQ(AgeText(absl::Hours(76)), "3d4h");
  EXPECT_EQ(AgeText(absl::Hours(24 * 812 + 5)), "812d");
}

TEST(TextValuesTest, ATimeThatIsNotSetHasNoAge) {
  EXPECT_EQ(AgeSince({}, absl::FromUnixSeconds(100)), "-");
  google::protobuf::Timestamp then;
  then.set_seconds(40);
  EXPECT_EQ(AgeSince(then, absl::FromUnixSeconds(100)), "1m");
}

TEST(TextValuesTest, Seconds) {
  EXPECT_EQ(SecondsText(12.3e-6), "12.3us");
  EXPECT_EQ(SecondsText(0.0123), "12.3ms");
  EXPECT_EQ(SecondsText(1.234), "1.23s");
}

TEST(TextValuesTest, Types) {
  v1::TensorType type;
  type.set_dtype(v1::DTYPE_BFLOAT16);
  EXPECT_EQ(TypeText(type), "bf16[]");
  type.add_shape(8);
  type.add_shape(10);
  EXPECT_EQ(TypeText(type), "bf16[8, 10]");
}

TEST(TextValuesTest, ScalarsOfFloats) {
  v1::Tensor tensor;
  EXPECT_EQ(ScalarOf(tensor), std::nullopt);
  tensor.mutable_type()->set_dtype(v1::DTYPE_FLOAT64);
  tensor.set_inline_(std::string("\0\0\0\0\0\0\xf8\x3f", 8));
  EXPECT_EQ(ScalarOf(tensor), 1.5);
  tensor.mutable_type()->set_dtype(v1::DTYPE_FLOAT32);
  EXPECT_EQ(ScalarOf(tensor), std::nullopt);  // eight bytes
  tensor.set_inline_(std::string("\0\0\xc0\x3f", 4));
  EXPECT_EQ(ScalarOf(tensor), 1.5);
  tensor.mutable_type()->set_dtype(v1::DTYPE_BFLOAT16);
  tensor.set_inline_(std::string("\xc0\x3f", 2));
  EXPECT_EQ(ScalarOf(tensor), 1.5);
}

TEST(TextValuesTest, LastParts) {
  EXPECT_EQ(LastPart("deployments/mlp"), "mlp");
  EXPECT_EQ(LastPart("mlp"), "mlp");
  EXPECT_EQ(EnumText("STATE_AWAITING_DATA", "STATE_"), "AWAITING_DATA");
}

}  // namespace
}  // namespace shardplane
