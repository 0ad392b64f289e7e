#include "coordinator/upload_book.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const TensorType kType{DType::kFloat32, {2, 3}};

TEST(UploadBookTest, ParametersAreKnownByRank) {
  UploadBook book;
  book.AddParameter("net1.weight", {0, 2});
  EXPECT_TRUE(book.HasParameter("net1.weight", 2));
  EXPECT_FALSE(book.HasParameter("net1.weight", 1));
  EXPECT_FALSE(book.HasParameter("net1.bias", 0));
}

TEST(UploadBookTest, UploadIsThereOnce) {
  UploadBook book;
  EXPECT_THAT(
      book.Check("x", kType, "inputs[0]"),
      AllOf(StatusIs(absl::StatusCode::kNotFound, HasSubstr("got: \"x\"")),
            HasReason("UPLOAD_NOT_FOUND"), HasMetadata("field", "inputs[0]")));
  ASSERT_THAT(book.Add("x", kType, 7), IsOk());
  EXPECT_THAT(book.Check("x", kType, "inputs[0]"), IsOk());
  book.Use({"x"}, StepNumber{1});
  EXPECT_THAT(book.Check("x", kType, "inputs[0]"),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("\"x\", which was used")));
}

TEST(UploadBookTest, TypesMustFit) {
  UploadBook book;
  ASSERT_THAT(book.Add("x", kType, 7), IsOk());
  EXPECT_THAT(
      book.Check("x", {DType::kFloat32, {3, 2}}, "inputs[0]"),
      StatusIs(absl::StatusCode::kInvalidArgument,
               "inputs[0]: expected an upload of f32[3, 2], got: \"x\" of "
               "f32[2, 3]"));
}

TEST(UploadBookTest, FingerprintsOutliveUseUntilForgotten) {
  UploadBook book;
  for (const auto& [id, crc32] : std::vector<std::pair<std::string, uint32_t>>{
           {"forward", 6}, {"x", 7}, {"y", 8}, {"z", 9}}) {
    ASSERT_THAT(book.Add(id, kType, crc32), IsOk());
  }
  book.Use({"forward"}, StepNumber{0});
  book.Use({"x"}, StepNumber{1});
  book.Use({"y"}, StepNumber{2});
  EXPECT_EQ(book.Fingerprint("x"), "7");
  book.ForgetUsed(StepNumber{1});
  EXPECT_EQ(book.Fingerprint("forward"), "");
  EXPECT_EQ(book.Fingerprint("x"), "7");
  book.ForgetUsed(StepNumber{2});
  EXPECT_EQ(book.Fingerprint("x"), "");
  EXPECT_EQ(book.Fingerprint("y"), "8");
  EXPECT_EQ(book.Fingerprint("z"), "9");
}

TEST(UploadBookTest, IsBounded) {
  UploadBook book;
  for (size_t i = 0; i < UploadBook::kMaxUploads; ++i) {
    ASSERT_THAT(book.Add(std::to_string(i), kType, 0), IsOk());
  }
  EXPECT_THAT(
      book.Add("more", kType, 0),
      StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("\"more\"")));
  EXPECT_THAT(book.Add("0", kType, 0), IsOk());
}

}  // namespace
}  // namespace shardplane
