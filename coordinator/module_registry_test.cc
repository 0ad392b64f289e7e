#include "coordinator/module_registry.h"

#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/example_modules.h"
#include "coordinator/mlp_example.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const absl::Time kNow = absl::FromUnixSeconds(1000);

ModuleSpec SpecOf(GraphModule module) {
  return {std::make_shared<const GraphModule>(std::move(module)), {}};
}

class ModuleRegistryTest : public ::testing::Test {
 protected:
  absl::StatusOr<ModuleRecord> Create(const std::string& id,
                                      const std::string& uid = "u1") {
    return registry_.Create(ModuleId{id}, SpecOf(SequentialMlp()), uid, kNow);
  }
  std::vector<std::string> Ids() {
    std::vector<std::string> ids;
    for (const ModuleRecord& record : registry_.List()) {
      ids.push_back(record.id.value);
    }
    return ids;
  }
  ModuleRegistry registry_{3};
};

TEST_F(ModuleRegistryTest, KeepsWhatIsCreated) {
  ModuleSpec spec = SpecOf(SequentialMlp());
  spec.labels = {{"team", "a"}};
  const auto created = registry_.Create(ModuleId{"mlp"}, spec, "u1", kNow);
  ASSERT_THAT(created, IsOk());
  const auto found = registry_.Find(ModuleId{"mlp"});
  ASSERT_THAT(found, IsOk());
  EXPECT_EQ(found->uid, "u1");
  EXPECT_EQ(found->create_time, kNow);
  EXPECT_EQ(found->etag(), created->etag());
  EXPECT_EQ(found->spec.labels, spec.labels);
  EXPECT_EQ(*found->spec.module, SequentialMlp());
  EXPECT_EQ(found->parameter_count, 10 * 16 + 16 + 16 * 10 + 10);
  EXPECT_EQ(found->parameter_bytes, 4 * found->parameter_count);
}

TEST_F(ModuleRegistryTest, TiedWeightsCountOnceAndBuffersNever) {
  const TensorType type{DType::kFloat64, {3, 2}};
  const auto module = GraphModule::Create(
      {{.fqn = "", .type = "M"}},
      {{.fqn = "a", .type = type},
       {.fqn = "b", .type = type, .alias_of = "a"},
       {.fqn = "c", .type = type, .requires_grad = false, .buffer = true},
       {.fqn = "d", .type = {DType::kFloat32, {}}, .requires_grad = false}});
  ASSERT_THAT(module, IsOk());
  const ModuleRecord record = DescribeModule(ModuleId{"m"}, SpecOf(*module));
  EXPECT_EQ(record.parameter_count, 7);
  EXPECT_EQ(record.parameter_bytes, 6 * 8 + 4);
}

TEST_F(ModuleRegistryTest, HugeModulesDoNotOverflow) {
  const TensorType type{DType::kFloat32, {int64_t{1} << 60}};
  const auto module =
      GraphModule::Create({{.fqn = "", .type = "M"}},
                          {{.fqn = "a", .type = type},
                           {.fqn = "b", .type = type, .requires_grad = false}});
  ASSERT_THAT(module, IsOk());
  EXPECT_EQ(DescribeModule(ModuleId{"m"}, SpecOf(*module)).parameter_bytes,
            std::numeric_limits<int64_t>::max());
}

TEST_F(ModuleRegistryTest, NameIsTakenUntilItIsDeleted) {
  const auto first = Create("mlp", "u1");
  ASSERT_THAT(first, IsOk());
  EXPECT_THAT(
      Create("mlp", "u2"),
      AllOf(StatusIs(absl::StatusCode::kAlreadyExists,
                     HasSubstr("got: modules/mlp")),
            HasReason("MODULE_EXISTS"), HasMetadata("field", "module_id")));
  EXPECT_EQ(registry_.Find(ModuleId{"mlp"})->uid, "u1");
  EXPECT_THAT(registry_.Delete(ModuleId{"mlp"}, "", false), IsOk());
  const auto second = Create("mlp", "u2");
  ASSERT_THAT(second, IsOk());
  EXPECT_NE(second->etag(), first->etag());
}

TEST_F(ModuleRegistryTest, UnknownModulesAreNamed) {
  EXPECT_THAT(
      registry_.Find(ModuleId{"no"}),
      AllOf(StatusIs(absl::StatusCode::kNotFound, HasSubstr("got: modules/no")),
            HasReason("MODULE_NOT_FOUND"),
            HasMetadata("resource", "modules/no")));
  EXPECT_THAT(registry_.Delete(ModuleId{"no"}, "", false),
              HasReason("MODULE_NOT_FOUND"));
  EXPECT_THAT(registry_.Delete(ModuleId{"no"}, "any", true), IsOk());
}

TEST_F(ModuleRegistryTest, StaleEtagIsAborted) {
  const auto created = Create("mlp");
  ASSERT_THAT(created, IsOk());
  EXPECT_THAT(
      registry_.Delete(ModuleId{"mlp"}, "\"old\"", true),
      AllOf(StatusIs(absl::StatusCode::kAborted, HasSubstr("got: \"old\"")),
            HasReason("ETAG_MISMATCH"),
            HasMetadata("expected", created->etag())));
  EXPECT_THAT(Ids(), ElementsAre("mlp"));
  EXPECT_THAT(registry_.Delete(ModuleId{"mlp"}, created->etag(), false),
              IsOk());
  EXPECT_THAT(Ids(), IsEmpty());
}

TEST_F(ModuleRegistryTest, ListsInTheOrderOfIdsUpToALimit) {
  for (const char* id : {"b", "c", "a"}) {
    ASSERT_THAT(Create(id), IsOk());
  }
  EXPECT_THAT(Ids(), ElementsAre("a", "b", "c"));
  EXPECT_THAT(registry_.CheckRoomFor(ModuleId{"d"}),
              AllOf(StatusIs(absl::StatusCode::kResourceExhausted,
                             HasSubstr("fewer than 3")),
                    HasReason("TOO_MANY_MODULES")));
  EXPECT_THAT(Create("d"), HasReason("TOO_MANY_MODULES"));
  EXPECT_THAT(registry_.Delete(ModuleId{"b"}, "", false), IsOk());
  EXPECT_THAT(Create("d"), IsOk());
  EXPECT_THAT(Ids(), ElementsAre("a", "c", "d"));
}

}  // namespace
}  // namespace shardplane
