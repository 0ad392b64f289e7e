// Parameters that lie in files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "tests/matchers.h"
#include "worker/programs_for_test.h"
#include "worker/torch_executor.h"
#include "worker/torch_executor_for_test.h"

namespace shardplane {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// f32 to bf16 rounds; the others travel as without files.
TEST_F(TorchExecutorTest, EachRankReadsItsPartOfFiles) {
  weights_.Write(
      "m.safetensors",
      SafetensorsOf({{"tied", F32({3, 2}, {1, 2, 3, 4, 5, 1.001})}}));
  const Initializer files{.kind = Initializer::Kind::kFiles,
                          .path = "m.safetensors",
                          .names = {"w", "tied"}};
  StageOn(1, "parameter:other", F32({2}, {7, 8}));
  const auto weight = [&](const char* fqn, DType dtype, int dim) {
    return ParameterSource{.fqn = fqn,
                           .type = {dtype, {3, 2}},
                           .spec = {{Shard{dim}}, {}},
                           .initializer = files};
  };
  Materialize({.parameters = {{.fqn = "other",
                               .type = {DType::kFloat32, {2}},
                               .spec = {{Shard{0}}, {}}},
                              weight("rows", DType::kFloat32, 0),
                              weight("columns", DType::kBFloat16, 1)},
               .src_data_rank = 1},
              ElementsAre(CollectiveCount{"materialize", "scatter", 1, 8}));
  EXPECT_THAT(Read(1, ParameterKey{"other"}), ElementsAre(8));
  EXPECT_THAT(Read(0, ParameterKey{"rows"}), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(Read(1, ParameterKey{"rows"}), ElementsAre(5, 1.001f));
  const auto columns = executors_[1]->Read(ParameterKey{"columns"});
  ASSERT_THAT(columns, IsOk());
  EXPECT_EQ(columns->local.type, (TensorType{DType::kBFloat16, {3, 1}}));
  EXPECT_EQ(columns->local.bytes,
            std::string("\x00\x40\x80\x40\x80\x3f", 6));  // 2, 4, 1
}

// Nobody has begun to wait for others then.
TEST_F(TorchExecutorTest, FilesAreLookedForBeforeAnythingTravels) {
  weights_.Write("m.safetensors", SafetensorsOf({{"w", F32({2}, {1, 2})}}));
  MaterializeSpec spec = TwoWeights();
  const auto of = [](const char* path, Shape shape) {
    return ParameterSource{
        .fqn = "w",
        .type = {DType::kFloat32, std::move(shape)},
        .spec = {{Replicate{}}, {}},
        .initializer = Initializer{
            .kind = Initializer::Kind::kFiles, .path = path, .names = {"w"}}};
  };
  spec.parameters.push_back(of("gone.safetensors", {2}));
  EXPECT_THAT(executors_[0]->Materialize(spec, nullptr),
              AllOf(StatusIs(StatusCode::kNotFound, HasSubstr("gone")),
                    HasMetadata("fqn", "w")));
  spec.parameters.back() = of("m.safetensors", {3});
  EXPECT_THAT(executors_[0]->Materialize(spec, nullptr),
              AllOf(StatusIs(StatusCode::kInvalidArgument,
                             AllOf(HasSubstr("expected data of f32[3], got: "
                                             "f32[2], \"w\" of"),
                                   HasSubstr("m.safetensors"))),
                    HasReason("PARAMETER_TYPE_DIFFERS")));
}

}  // namespace
}  // namespace shardplane
