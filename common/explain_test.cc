#include "common/explain.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/compile.h"
#include "common/compile_fixture.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// All that an explanation is made of.
class ExplainTest : public testing::Test {
 protected:
  void Plan(GraphModule module, std::vector<PlanEntry> entries,
            std::vector<MeshDim> mesh = {{"tp", 4}}) {
    request_ = {std::move(module), std::move(entries)};
    request_.mesh = std::move(mesh);
    request_.input_grad = true;
    mesh_ = *DeviceMesh::Create(request_.mesh);
    plan_ = ParallelizePlan{request_.plan};
    resolved_ = *ResolvePlan(request_.module, mesh_, plan_, {});
  }
  void Compiled() { compiled_ = *Compile(request_); }

  absl::StatusOr<Explanation> Why(const std::string& fqn) const {
    std::vector<ExplainedProgram> programs;
    if (compiled_) programs.push_back({"p", &compiled_->program});
    return Explain({.module = request_.module,
                    .mesh = mesh_,
                    .plan = plan_,
                    .resolved = resolved_,
                    .diagnostics = resolved_.diagnostics,
                    .programs = programs},
                   fqn);
  }

  Request request_;
  DeviceMesh mesh_;
  std::optional<ParallelizePlan> plan_;
  ResolvedPlan resolved_;
  std::optional<CompiledProgram> compiled_;
};

TEST_F(ExplainTest, AModuleHasItsMatchesInThePlansOrder) {
  const ParallelStyle prepare{PrepareModuleInput{{{Shard{0}, Replicate{}}}, {}},
                              ""};
  Plan(Mlp(), {Entry("net1", prepare), Entry("net*", Colwise()),
               Entry("net1", Colwise()), Entry("relu", prepare)});
  const auto why = Why("net1");
  ASSERT_THAT(why, IsOk());
  EXPECT_EQ(why->kind, Explanation::Kind::kModule);
  EXPECT_EQ(why->module_type, "torch.nn.Linear");
  EXPECT_THAT(why->matches,
              ElementsAre(ExplainedMatch{"net1",
                                         "PrepareModuleInput(S(0) -> R)",
                                         "tp",
                                         MatchOutcome::kApplied,
                                         {"input S(0) -> R"}},
                          ExplainedMatch{"net*",
                                         "ColwiseParallel(R -> S(-1))",
                                         "tp",
                                         MatchOutcome::kApplied,
                                         {"weight [S(0)]", "bias [S(0)]",
                                          "input R", "output S(-1)"}},
                          ExplainedMatch{
                              "net1",
                              "ColwiseParallel(R -> S(-1))",
                              "tp",
                              MatchOutcome::kCountedOnce,
                              {"nothing more: \"net*\" has said the same"}}));
}

// f64; 16 rows of 10 over 3 ranks are 6, 6 and 4.
TEST_F(ExplainTest, TensorsHaveOffsetsAndBytesOnEachRank) {
  Plan(Mlp(), {Entry("net1", Colwise())}, {{"tp", 3}});
  const auto why = Why("net1.weight");
  ASSERT_THAT(why, IsOk());
  EXPECT_EQ(why->kind, Explanation::Kind::kParameter);
  EXPECT_THAT(why->matches, SizeIs(1));
  ASSERT_THAT(why->tensors, SizeIs(1));
  EXPECT_TRUE(why->tensors[0].requires_grad);
  EXPECT_THAT(
      why->tensors[0].parts,
      ElementsAre(
          ExplainedPart{0, {{Extent{0, 6}}, {Extent{0, 10}}}, 6 * 10 * 8},
          ExplainedPart{1, {{Extent{6, 6}}, {Extent{0, 10}}}, 6 * 10 * 8},
          ExplainedPart{2, {{Extent{12, 4}}, {Extent{0, 10}}}, 4 * 10 * 8}));
  EXPECT_THAT(why->bytes, ElementsAre(480, 480, 320));
}

TEST_F(ExplainTest, ParentsCountTheirChildren) {
  Plan(Mlp(), {Entry("net1", Colwise()), Entry("net2", Rowwise())},
       {{"tp", 2}});
  const auto why = Why("");
  ASSERT_THAT(why, IsOk());
  EXPECT_THAT(why->matches, IsEmpty());
  EXPECT_THAT(why->tensors, IsEmpty());
  const int64_t bytes = 8 * (8 * 10 + 8 + 10 * 8 + 10);
  EXPECT_THAT(why->bytes, ElementsAre(bytes, bytes));
}

TEST_F(ExplainTest, CollectivesAreThoseOfTheModule) {
  Plan(Mlp(), {Entry("net1", Colwise()), Entry("net2", Rowwise())});
  Compiled();
  const auto forward = Why("net2");
  ASSERT_THAT(forward, IsOk());
  ASSERT_THAT(forward->collectives, SizeIs(1));
  const ExplainedCollective& sum = forward->collectives[0];
  EXPECT_EQ(sum.program, "p");
  EXPECT_EQ(sum.phase, "forward");
  EXPECT_EQ(sum.kind, "all_reduce");
  EXPECT_EQ(sum.mesh_dim, "tp");
  EXPECT_EQ(sum.bytes, 8 * 10 * 8);
  EXPECT_EQ(sum.why, "sum of a rowwise linear");
  EXPECT_EQ(sum.tensor, "f64[8, 10]");
  EXPECT_THAT(sum.modules, ElementsAre("net2"));

  const auto backward = Why("net1");
  ASSERT_THAT(backward->collectives, SizeIs(1));
  EXPECT_EQ(backward->collectives[0].phase, "backward");
  EXPECT_THAT(Why("relu")->collectives, IsEmpty());
  EXPECT_THAT(Why("")->collectives, SizeIs(2));
}

TEST_F(ExplainTest, AParameterHasTheCollectivesOfItsGradient) {
  ModuleNode norm = Mod("norm", "LayerNorm");
  norm.attributes["normalized_shape"] = {ArgumentList{{int64_t{10}}}};
  Plan(*GraphModule::Create(
           {Mod("", "Sequential"), norm},
           {Param("norm.weight", {10}), Param("norm.bias", {10}, false)}),
       {Entry("norm", {SequenceParallel{0}, ""})});
  Compiled();
  EXPECT_THAT(Why("norm.weight")->collectives, SizeIs(1));
  EXPECT_THAT(Why("norm.bias")->collectives, IsEmpty());
}

TEST_F(ExplainTest, WhatIsOverriddenSaysSo) {
  Plan(TiedLinears(), {Entry("in", Colwise()), Entry("out", Rowwise())});
  const auto why = Why("out");
  ASSERT_THAT(why, IsOk());
  ASSERT_THAT(why->matches, SizeIs(1));
  EXPECT_EQ(why->matches[0].outcome, MatchOutcome::kPartly);
  EXPECT_EQ(why->matches[0].contributed[0],
            "weight [S(1)], but it is one tensor with what another entry "
            "stores as [S(0)]");
  EXPECT_EQ(why->tensors[0].alias_of, "in.weight");
  EXPECT_THAT(why->diagnostics, SizeIs(1));
  EXPECT_EQ(Why("in")->matches[0].outcome, MatchOutcome::kApplied);
  // It counts where its first name is, and where one asks for it.
  EXPECT_EQ(why->bytes[0], 0);
  EXPECT_EQ(Why("out.weight")->bytes[0], 3 * 10 * 8);
}

TEST_F(ExplainTest, AnUnknownNameIsAnsweredWithTheClosest) {
  Plan(Mlp(), {Entry("net1", Colwise())});
  EXPECT_THAT(
      Why("net3"),
      AllOf(StatusIs(absl::StatusCode::kNotFound,
                     "fqn: expected the name of a module, parameter or "
                     "buffer (did you mean \"net1\"?), got: \"net3\""),
            HasReason("FQN_NOT_FOUND"), HasMetadata("suggestion", "net1"),
            HasMetadata("field", "fqn")));
  EXPECT_THAT(Why("net1.wieght").status().message(),
              HasSubstr("did you mean \"net1.weight\"?"));
  EXPECT_THAT(Why("something else").status().message(),
              HasSubstr("buffer, got: \"something else\""));
}

TEST_F(ExplainTest, WithoutAPlanNothingMatches) {
  Plan(Mlp(), {});
  plan_ = std::nullopt;
  const auto why = Why("net1");
  ASSERT_THAT(why, IsOk());
  EXPECT_THAT(why->matches, IsEmpty());
  EXPECT_THAT(why->tensors, SizeIs(2));
}

}  // namespace
}  // namespace shardplane
