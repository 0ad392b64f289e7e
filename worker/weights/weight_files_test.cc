#include "worker/weights/weight_files.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"
#include "worker/weights/safetensors_for_test.h"

namespace shardplane {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string FileOf(const std::vector<std::string>& names) {
  std::vector<std::pair<std::string, HostTensor>> tensors;
  for (const std::string& name : names) {
    tensors.emplace_back(name, Counting({DType::kFloat32, {2}}));
  }
  return SafetensorsOf(tensors);
}

constexpr char kIndex[] =
    R"({"metadata": {"total_size": 16}, "weight_map":
        {"a": "one.safetensors", "b": "more/two.safetensors",
         "c": "one.safetensors"}})";

class WeightFilesTest : public testing::Test {
 protected:
  WeightFilesTest() {
    folder_.Write("root/single.safetensors", FileOf({"a", "b"}));
    folder_.Write("root/llama/model.safetensors", FileOf({"w"}));
    folder_.Write("root/big/model.safetensors.index.json", kIndex);
    folder_.Write("root/big/one.safetensors", FileOf({"a"}));
    folder_.Write("root/big/more/two.safetensors", FileOf({"b"}));
    folder_.Write("outside.safetensors", FileOf({"a"}));
  }

  absl::StatusOr<WeightFiles::Found> Find(
      const std::string& path, const std::vector<std::string>& names) {
    return files_.Find(path, names);
  }
  // The file's name, and the tensor's in it.
  std::string Place(const std::string& path,
                    const std::vector<std::string>& names) {
    const auto found = Find(path, names);
    EXPECT_THAT(found, IsOk());
    if (!found.ok()) return "";
    EXPECT_EQ(found->tensor.type, (TensorType{DType::kFloat32, {2}}));
    return std::filesystem::path(found->file->path()).filename().string() +
           ":" + found->name;
  }

  const TestFolder folder_;
  WeightFiles files_{folder_ / "root/"};
};

TEST_F(WeightFilesTest, FilesFoldersAndIndices) {
  EXPECT_EQ(Place("single.safetensors", {"a"}), "single.safetensors:a");
  EXPECT_EQ(Place("llama", {"w"}), "model.safetensors:w");
  EXPECT_EQ(Place("llama/", {"w"}), "model.safetensors:w");
  EXPECT_EQ(Place("big", {"a"}), "one.safetensors:a");
  EXPECT_EQ(Place("big", {"b"}), "two.safetensors:b");
  EXPECT_EQ(Place("big/model.safetensors.index.json", {"b"}),
            "two.safetensors:b");
  EXPECT_EQ(Place(folder_ / "root/./big/../llama", {"w"}),
            "model.safetensors:w");
}

TEST_F(WeightFilesTest, FirstNameThatIsThere) {
  EXPECT_EQ(Place("single.safetensors", {"x", "b", "a"}),
            "single.safetensors:b");
  EXPECT_THAT(
      Find("single.safetensors", {"x", "y"}),
      AllOf(StatusIs(absl::StatusCode::kNotFound,
                     HasSubstr("single.safetensors: expected \"x\" or \"y\", "
                               "got: 2 tensors: \"a\", \"b\"")),
            HasReason("WEIGHT_NOT_IN_FILES")));
  EXPECT_THAT(Find("big", {"c"}),
              AllOf(StatusIs(absl::StatusCode::kDataLoss,
                             HasSubstr("\"c\", as the index says")),
                    HasReason("WEIGHTS_MALFORMED")));
}

TEST_F(WeightFilesTest, EachFileIsOpenedOnce) {
  const auto a = Find("single.safetensors", {"a"});
  const auto b = Find("single.safetensors", {"b"});
  ASSERT_THAT(a, IsOk());
  ASSERT_THAT(b, IsOk());
  EXPECT_EQ(a->file, b->file);
}

TEST_F(WeightFilesTest, NothingOutsideTheRootIsRead) {
  std::filesystem::create_symlink(folder_ / "outside.safetensors",
                                  folder_ / "root/link.safetensors");
  std::filesystem::create_symlink(folder_ / "root/single.safetensors",
                                  folder_ / "root/big/inner.safetensors");
  folder_.Write("root/leads/model.safetensors.index.json",
                R"({"weight_map": {"a": "../../outside.safetensors"}})");
  folder_.Write("root-2/model.safetensors", FileOf({"a"}));
  std::filesystem::create_directory(folder_ / "root/linked");
  std::filesystem::create_symlink(folder_ / "outside.safetensors",
                                  folder_ / "root/linked/model.safetensors");
  const auto outside =
      AllOf(StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("/root")),
            HasReason("WEIGHTS_OUTSIDE_ROOT"));
  for (const std::string& path :
       {std::string("../outside.safetensors"), std::string("../gone"),
        std::string("link.safetensors"), std::string("leads"),
        std::string("linked"), std::string("../root-2"),
        folder_ / "outside.safetensors", std::string("/etc/passwd")}) {
    EXPECT_THAT(Find(path, {"a"}), outside) << path;
  }
  EXPECT_EQ(Place("big/inner.safetensors", {"a"}), "inner.safetensors:a");
}

// As caches of models are: links to files without a suffix, elsewhere.
TEST_F(WeightFilesTest, LinkedFoldersWork) {
  folder_.Write("root/blobs/1f", kIndex);
  folder_.Write("root/blobs/2e", FileOf({"a"}));
  std::filesystem::create_directories(folder_ / "root/snapshots/main");
  std::filesystem::create_symlink(
      "../../blobs/1f",
      folder_ / "root/snapshots/main/model.safetensors.index.json");
  std::filesystem::create_symlink(
      "../../blobs/2e", folder_ / "root/snapshots/main/one.safetensors");
  folder_.Write("root/snapshots/main/more/two.safetensors", FileOf({"b"}));
  EXPECT_EQ(Place("snapshots/main", {"a"}), "one.safetensors:a");
  // A root that is a link itself.
  std::filesystem::create_directory_symlink(folder_ / "root",
                                            folder_ / "models");
  WeightFiles linked(folder_ / "models");
  EXPECT_THAT(linked.Find("snapshots/main", {"a"}), IsOk());
  EXPECT_THAT(linked.Find(folder_ / "models/llama", {"w"}), IsOk());
}

TEST_F(WeightFilesTest, NoRootNoFiles) {
  WeightFiles none("");
  EXPECT_THAT(none.Find("single.safetensors", {"a"}),
              AllOf(StatusIs(absl::StatusCode::kFailedPrecondition,
                             HasSubstr("--weights_root")),
                    HasReason("NO_WEIGHTS_ROOT")));
}

TEST_F(WeightFilesTest, WhatIsNotThere) {
  std::filesystem::create_directory(folder_ / "root/empty");
  for (const char* path : {"gone", "empty", "big/gone.safetensors"}) {
    EXPECT_THAT(Find(path, {"a"}),
                AllOf(StatusIs(absl::StatusCode::kNotFound, HasSubstr(path)),
                      HasReason("WEIGHTS_NOT_FOUND")))
        << path;
  }
}

TEST_F(WeightFilesTest, IndicesThatAreNone) {
  for (const char* text : {"", "[]", "{}", R"({"weight_map": []})",
                           R"({"weight_map": {"a": 1}})"}) {
    const TestFolder folder;
    folder.Write("index.json", text);
    WeightFiles files(folder / "");
    EXPECT_THAT(
        files.Find("index.json", {{"a"}}),
        AllOf(StatusIs(absl::StatusCode::kDataLoss, HasSubstr("weight_map")),
              HasReason("WEIGHTS_MALFORMED")))
        << text;
  }
}

TEST_F(WeightFilesTest, TypesThatShardplaneLacksAreNamed) {
  folder_.Write("root/f8.safetensors",
                WithHeader(R"({"w": {"dtype": "F8_E5M2", "shape": [2],
                           "data_offsets": [0, 2]}})",
                           "ab"));
  EXPECT_THAT(Find("f8.safetensors", {"w"}),
              AllOf(StatusIs(absl::StatusCode::kUnimplemented,
                             HasSubstr("got: F8_E5M2")),
                    HasReason("WEIGHT_TYPE_UNKNOWN")));
}

}  // namespace
}  // namespace shardplane
