#include "worker/weights/safetensors.h"

#include <sys/stat.h>
#include <unistd.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"
#include "worker/weights/safetensors_for_test.h"

namespace shardplane {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

std::string Bytes(const SafetensorsFile& file, int64_t offset, int64_t size) {
  std::string bytes(size, '\0');
  EXPECT_THAT(file.Read(offset, absl::MakeSpan(bytes.data(), bytes.size())),
              IsOk());
  return bytes;
}

TEST(SafetensorsTest, TensorsLieWhereTheHeaderSays) {
  const TestFolder folder;
  const HostTensor a = Counting({DType::kFloat32, {2, 3}});
  const HostTensor b = Counting({DType::kInt64, {}});
  const HostTensor c = Counting({DType::kBFloat16, {0, 4}});
  const auto file = SafetensorsFile::Open(folder.Write(
      "a.safetensors", SafetensorsOf({{"a", a}, {"b", b}, {"c", c}})));
  ASSERT_THAT(file, IsOk());
  const auto& tensors = (*file)->header().tensors;
  ASSERT_EQ(tensors.size(), 3);
  EXPECT_EQ(tensors.at("a").type, a.type);
  EXPECT_EQ(tensors.at("b").type, b.type);
  EXPECT_EQ(tensors.at("c").type, c.type);
  EXPECT_EQ(Bytes(**file, tensors.at("a").offset, 24), a.bytes);
  EXPECT_EQ(Bytes(**file, tensors.at("b").offset, 8), b.bytes);
  EXPECT_EQ(tensors.at("c").offset, (*file)->size());
}

struct HeaderCase {
  const char* name;
  const char* json;
  const char* message;
};

class BadHeaderTest : public testing::TestWithParam<HeaderCase> {};

TEST_P(BadHeaderTest, IsRefused) {
  EXPECT_THAT(ParseSafetensorsHeader(GetParam().json, 100, 124),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(GetParam().message)));
  // A file that has it, too.
  const TestFolder folder;
  EXPECT_THAT(
      SafetensorsFile::Open(folder.Write(
          "x", WithHeader(GetParam().json, std::string(24, '\0')))),
      AllOf(StatusIs(absl::StatusCode::kDataLoss,
                     AllOf(HasSubstr("/x"), HasSubstr(GetParam().message))),
            HasReason("WEIGHTS_MALFORMED")));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadHeaderTest,
    testing::Values(
        HeaderCase{"NoJson", "{", "expected a JSON object"},
        HeaderCase{"NoObject", "[]", "expected a JSON object"},
        HeaderCase{"Twice", R"({"w": 1, "w": 2})", "\"w\" stands twice"},
        HeaderCase{"NoTensor", R"({"w": 1})", "expected dtype"},
        HeaderCase{"NoType", R"({"w": {"shape": [1], "data_offsets": [0, 4]}})",
                   "expected dtype"},
        HeaderCase{
            "NegativeShape",
            R"({"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}})",
            "expected dtype"},
        HeaderCase{
            "OneOffset",
            R"({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0]}})",
            "expected dtype"},
        HeaderCase{
            "Backwards",
            R"({"w": {"dtype": "F32", "shape": [1], "data_offsets": [8, 4]}})",
            "got: 8 to 4"},
        HeaderCase{
            "BeyondTheEnd",
            R"({"w": {"dtype": "F32", "shape": [7], "data_offsets": [0, 28]}})",
            "within 24, got: 0 to 28"},
        HeaderCase{
            "TooFewBytes",
            R"({"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}})",
            "the bytes of f32[3], got: 8"},
        HeaderCase{"MoreThanCounts", R"({"w": {"dtype": "F32", "shape":
             [4294967296, 4294967296], "data_offsets": [0, 0]}})",
                   "got: 0"}),
    [](const auto& info) { return info.param.name; });

TEST(SafetensorsTest, OtherTypesAreKeptByName) {
  const auto header = ParseSafetensorsHeader(
      R"({"w": {"dtype": "F8_E4M3", "shape": [3], "data_offsets": [0, 3]}})", 0,
      3);
  ASSERT_THAT(header, IsOk());
  EXPECT_THAT(header->foreign, ElementsAre(Pair("w", "F8_E4M3")));
  EXPECT_TRUE(header->tensors.empty());
}

TEST(SafetensorsTest, FilesThatAreNone) {
  const TestFolder folder;
  const auto open = [&](const char* name, const std::string& text) {
    return SafetensorsFile::Open(folder.Write(name, text)).status();
  };
  EXPECT_THAT(SafetensorsFile::Open(folder / "gone"),
              AllOf(StatusIs(absl::StatusCode::kNotFound, HasSubstr("gone")),
                    HasReason("WEIGHTS_NOT_FOUND")));
  EXPECT_THAT(SafetensorsFile::Open(folder / "."),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("got: none")));
  EXPECT_THAT(open("short", "1234567"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("7 bytes")));
  EXPECT_THAT(open("cut", WithHeader("{}  ", "").substr(0, 10)),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("at most 2 bytes, got: 4")));
  EXPECT_THAT(open("other", "\xff\xff\xff\xff\xff\xff\xff\xff{}"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("got: 1844")));
  EXPECT_THAT(open("empty", WithHeader("{}", "")), IsOk());
  // A pipe would wait for who writes.
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(SafetensorsFile::Open(folder / "pipe"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("got: none")));
}

TEST(SafetensorsTest, FileThatBecomesShorterIsAnError) {
  const TestFolder folder;
  const std::string path = folder.Write(
      "a", SafetensorsOf({{"a", Counting({DType::kFloat32, {100}})}}));
  const auto file = SafetensorsFile::Open(path);
  ASSERT_THAT(file, IsOk());
  const int64_t offset = (*file)->header().tensors.at("a").offset;
  ASSERT_EQ(truncate(path.c_str(), offset + 200), 0);
  char bytes[100];
  EXPECT_THAT((*file)->Read(offset + 100, absl::MakeSpan(bytes)), IsOk());
  EXPECT_THAT((*file)->Read(offset + 150, absl::MakeSpan(bytes)),
              AllOf(StatusIs(absl::StatusCode::kDataLoss,
                             HasSubstr(absl::StrCat(offset + 200, " bytes"))),
                    HasReason("WEIGHTS_MALFORMED")));
  RunReader runs(*file);
  for (int i = 0; i < 2; ++i) {  // nothing is kept of what failed
    EXPECT_THAT(runs.Read(offset + 150, absl::MakeSpan(bytes)),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("no more")));
  }
}

// Windows, what goes beyond them, and runs that need none, in any order.
TEST(SafetensorsTest, RunsAreTheFilesBytes) {
  const TestFolder folder;
  const HostTensor a = Counting({DType::kFloat32, {700'001}});
  const auto file =
      SafetensorsFile::Open(folder.Write("a", SafetensorsOf({{"a", a}})));
  ASSERT_THAT(file, IsOk());
  const int64_t offset = (*file)->header().tensors.at("a").offset;
  const auto size = static_cast<int64_t>(a.bytes.size());
  RunReader runs(*file);
  std::mt19937 random(1);
  for (const int64_t most : {16, 4095, 4096, 20'000}) {
    for (int i = 0; i < 500; ++i) {
      const int64_t from = random() % size;
      const int64_t count = std::min<int64_t>(random() % most + 1, size - from);
      std::string got(count, '\0');
      ASSERT_THAT(runs.Read(offset + from, absl::MakeSpan(got.data(), count)),
                  IsOk());
      ASSERT_EQ(got, a.bytes.substr(from, count)) << from << " " << count;
    }
  }
}

// Whatever is in a file, opening it says so or what it has lies inside.
TEST(SafetensorsTest, ChangedBytesHarmNothing) {
  const TestFolder folder;
  const std::string whole =
      SafetensorsOf({{"a", Counting({DType::kFloat32, {2, 3}})},
                     {"b", Counting({DType::kInt64, {4}})}});
  std::mt19937 random(7);
  int refused = 0;
  for (int i = 0; i < 2000; ++i) {
    std::string changed = whole;
    for (int edits = random() % 3 + 1; edits > 0; --edits) {
      changed[random() % changed.size()] = static_cast<char>(random());
    }
    changed.resize(changed.size() - random() % 3);
    const auto file = SafetensorsFile::Open(folder.Write("a", changed));
    if (!file.ok()) {
      ++refused;
      continue;
    }
    for (const auto& [name, tensor] : (*file)->header().tensors) {
      Bytes(**file, tensor.offset, ByteSize(tensor.type));
    }
  }
  EXPECT_GT(refused, 1000);
  EXPECT_LT(refused, 2000);
}

}  // namespace
}  // namespace shardplane
