#include "proto/convert/types.h"

#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/convert/random_values.h"
#include "proto/convert/testing.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

template <typename Message>
auto Back(const Message& message) {
  return FromProto(message, "root");
}

template <typename Value>
void ExpectRoundTrip(const Value& value) {
  const auto back = Back(ToProto(value));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_TRUE(*back == value);
}

TEST(TypesTest, EveryDTypeAndReduceOpComesBack) {
  for (int i = pb::DType_MIN + 1; i <= pb::DType_MAX; ++i) {
    const auto dtype = FromProto(static_cast<pb::DType>(i), "dtype");
    ASSERT_TRUE(dtype.ok()) << i;
    EXPECT_EQ(ToProto(*dtype), i);
  }
  for (int i = pb::ReduceOp_MIN + 1; i <= pb::ReduceOp_MAX; ++i) {
    const auto op = FromProto(static_cast<pb::ReduceOp>(i), "op");
    ASSERT_TRUE(op.ok()) << i;
    EXPECT_EQ(ToProto(*op), i);
  }
  EXPECT_EQ(*FromProto(pb::REDUCE_OP_UNSPECIFIED, "op"), ReduceOp::kSum);
}

TEST(TypesTest, RandomValuesComeBack) {
  RandomValues random(TestSeed());
  for (int i = 0; i < 500; ++i) {
    ExpectRoundTrip(random.AnyTensorType());
    ExpectRoundTrip(random.AnyPlacement(-3));
    ExpectRoundTrip(random.AnySpec(1 + random.Below(4)));
    ExpectRoundTrip(random.AnyMesh());
    ExpectRoundTrip(random.AnyInitializer());
  }
}

TEST(TypesTest, TensorsComeBack) {
  const HostTensor tensor{{DType::kFloat32, {2}}, "12345678"};
  const auto inlined = FromProto(ToProto(tensor), "x");
  ASSERT_TRUE(inlined.ok()) << inlined.status();
  EXPECT_EQ(std::get<HostTensor>(*inlined), tensor);
  const UploadedTensor upload{tensor.type, "batch-7"};
  const auto uploaded = FromProto(ToProto(upload), "x");
  ASSERT_TRUE(uploaded.ok()) << uploaded.status();
  EXPECT_EQ(std::get<UploadedTensor>(*uploaded), upload);
  EXPECT_TRUE(
      FromProto(ToProto(HostTensor{{DType::kInt8, {3, 0}}, ""}), "x").ok());
}

TEST(TypesTest, BytesOfATensorThatIsMovedAreNotCopied) {
  const int64_t size = 1000;
  pb::Tensor message =
      ToProto(HostTensor{{DType::kInt8, {size}}, std::string(size, 'x')});
  const char* const bytes = message.inline_().data();
  const auto inlined = FromProto(std::move(message), "x");
  ASSERT_TRUE(inlined.ok()) << inlined.status();
  EXPECT_EQ(std::get<HostTensor>(*inlined).bytes.data(), bytes);
}

TEST(TypesTest, InlineTensorOverTheLimitSaysToUpload) {
  const int64_t size = kMaxInlineBytes + 1;
  const HostTensor tensor{{DType::kInt8, {size}}, std::string(size, 'x')};
  const absl::Status status = FromProto(ToProto(tensor), "inputs[1]").status();
  EXPECT_THAT(status, IsFieldError(absl::StatusCode::kResourceExhausted,
                                   "inputs[1].inline"));
  EXPECT_THAT(std::string(status.message()),
              testing::HasSubstr("UploadTensor"));
}

TEST(TypesTest, FieldPathsAreWrittenOut) {
  const FieldPath root("deployment");
  const FieldPath plan = root.Member("plan");
  const FieldPath entry = plan.Element("entries", 2);
  EXPECT_EQ(entry.Member("value").ToString(),
            "deployment.plan.entries[2].value");
  EXPECT_EQ(entry.Entry("kwargs", "dim").ToString(),
            "deployment.plan.entries[2].kwargs[\"dim\"]");
  EXPECT_EQ(FieldPath("").Member("name").ToString(), "name");
}

template <typename Message>
void ExpectRefused(const std::vector<BadMessage>& table) {
  for (const BadMessage& bad : table) {
    SCOPED_TRACE(bad.name);
    EXPECT_THAT(Back(ParseText<Message>(bad.text)).status(),
                IsFieldError(bad.code, bad.field));
  }
}

TEST(TypesTest, BadTensorTypesAreRefused) {
  ExpectRefused<pb::TensorType>({
      {"no dtype", "shape: 2", "root.dtype"},
      {"unknown dtype", "dtype: 77", "root.dtype"},
      {"negative extent", "dtype: DTYPE_INT8 shape: [2, -1]", "root.shape[1]"},
      {"17 dims",
       "dtype: DTYPE_INT8 "
       "shape: [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]",
       "root.shape"},
      {"product too large", "dtype: DTYPE_INT8 shape: [4611686018427387904, 2]",
       "root.shape"},
      {"bytes too large", "dtype: DTYPE_FLOAT64 shape: 2305843009213693952",
       "root.shape"},
      {"too large behind a zero",
       "dtype: DTYPE_INT8 shape: [4611686018427387904, 2, 0]", "root.shape"},
  });
}

TEST(TypesTest, BadPlacementsAreRefused) {
  ExpectRefused<pb::Placement>({
      {"no kind", "", "root"},
      {"dim too small", "shard { dim: -17 }", "root.shard.dim"},
      {"dim too large", "shard { dim: 16 }", "root.shard.dim"},
      {"unknown reduce op", "partial { op: 9 }", "root.partial.op"},
  });
  ExpectRefused<pb::DTensorSpec>({
      {"no kind", "placements {}", "root.placements[0]"},
      {"negative dim",
       "placements { replicate {} } placements { shard { dim: "
       "-1 } }",
       "root.placements[1].shard.dim"},
      {"order names no mesh dim", "placements { shard {} } cut_order: 1",
       "root.cut_order[0]"},
      {"order names a negative mesh dim",
       "placements { shard {} } cut_order: -1", "root.cut_order[0]"},
      {"order names what does not cut",
       "placements { replicate {} } cut_order: 0", "root.cut_order[0]"},
      {"order twice", "placements { shard {} } cut_order: [0, 0]",
       "root.cut_order[1]"},
  });
}

TEST(TypesTest, BadMeshesAreRefused) {
  ExpectRefused<pb::DeviceMesh>({
      {"no dims", "", "root.dims"},
      {"size zero", "dims { name: 'tp' }", "root.dims"},
      {"no name", "dims { size: 2 }", "root.dims"},
      {"a name twice", "dims { name: 'a' size: 2 } dims { name: 'a' size: 2 }",
       "root.dims"},
      {"too many ranks",
       "dims { name: 'a' size: 2147483647 } "
       "dims { name: 'b' size: 2147483647 } "
       "dims { name: 'c' size: 2147483647 }",
       "root.dims"},
  });
}

TEST(TypesTest, BadInitializersAreRefused) {
  ExpectRefused<pb::Initializer>({
      {"no kind", "", "root"},
      {"low over high", "uniform { low: 1 high: 0 }", "root.uniform"},
      {"not a number", "uniform { low: nan high: 0 }", "root.uniform"},
      {"range not finite", "uniform { low: -1.7e308 high: 1.7e308 }",
       "root.uniform"},
      {"infinite mean", "normal { mean: inf std: 1 }", "root.normal"},
      {"negative std", "normal { std: -1 }", "root.normal"},
  });
}

TEST(TypesTest, BadTensorsAreRefused) {
  ExpectRefused<pb::Tensor>({
      {"no type", "inline: ''", "root.type.dtype"},
      {"no data", "type { dtype: DTYPE_INT8 }", "root"},
      {"empty id", "type { dtype: DTYPE_INT8 } upload: ''", "root.upload"},
      {"too few bytes", "type { dtype: DTYPE_INT32 } inline: 'abc'",
       "root.inline"},
      {"too many bytes", "type { dtype: DTYPE_INT8 shape: 0 } inline: 'a'",
       "root.inline"},
  });
}

}  // namespace
}  // namespace shardplane
