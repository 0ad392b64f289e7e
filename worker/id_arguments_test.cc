#include "worker/id_arguments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "ATen/core/List.h"
#include "ATen/core/Tensor.h"
#include "ATen/core/dispatch/Dispatcher.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/tensor.h"
#include "tests/matchers.h"
#include "worker/data_faults.h"

namespace shardplane {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using Arguments = std::vector<c10::IValue>;

c10::IValue None() { return {}; }
// f32[3, 4]
at::Tensor Self() { return at::ones({3, 4}); }
at::Tensor Source() { return at::ones({3, 2}); }
at::Tensor Of(int64_t first, int64_t second) {
  return at::tensor({first, second}, at::kLong);
}
c10::IValue Dims(const std::vector<std::optional<at::Tensor>>& ids) {
  c10::List<std::optional<at::Tensor>> list;
  for (const auto& each : ids) list.push_back(each);
  return list;
}

struct Case {
  const char* name;      // of the operator, as the dispatcher has it
  const char* overload;  // "": aten.NAME.default
  // With two ids of a dim of 4, the first of which is 1.
  Arguments (*arguments)(const at::Tensor& ids);
  bool from_end = false;
  const char* what = "Index";

  std::string target() const {
    return std::string("aten.") + name + "." +
           (*overload == '\0' ? "default" : overload);
  }
};

const at::Tensor Rows(const at::Tensor& ids) { return ids.expand({3, 2}); }
at::Tensor Columns(const at::Tensor& ids) { return ids.view({2, 1}); }

const Case kCases[] = {
    {"gather", "",
     [](const at::Tensor& ids) {
       return Arguments{Self(), -1, Rows(ids), false};
     }},
    {"index_select", "",
     [](const at::Tensor& ids) {
       return Arguments{Self(), 1, ids};
     }},
    {"take", "",
     [](const at::Tensor& ids) {
       return Arguments{at::ones({2, 2}), ids};
     },
     true},
    {"put", "",
     [](const at::Tensor& ids) {
       return Arguments{at::ones({2, 2}), ids, at::ones({2}), true};
     },
     true},
    {"take_along_dim", "",
     [](const at::Tensor& ids) {
       return Arguments{at::ones({2, 2}), ids, None()};
     }},
    {"max_unpool2d", "",
     [](const at::Tensor& ids) {
       return Arguments{at::ones({1, 1, 2}), ids.view({1, 1, 2}),
                        std::vector<int64_t>{2, 2}};
     }},
    {"multi_margin_loss", "",
     [](const at::Tensor& ids) {
       return Arguments{at::ones({2, 4}), ids, 1, 1, None(), 1};
     },
     false, "Target"},
    {"scatter", "src",
     [](const at::Tensor& ids) {
       return Arguments{Self(), 1, Rows(ids), Source()};
     }},
    {"scatter", "value",
     [](const at::Tensor& ids) {
       return Arguments{Self(), 1, Rows(ids), 2.0};
     }},
    {"scatter", "reduce",
     [](const at::Tensor& ids) {
       return Arguments{Self(), 1, Rows(ids), Source(), "add"};
     }},
    {"scatter", "value_reduce",
     [](const at::Tensor& ids) {
       return Arguments{Self(), 1, Rows(ids), 2.0, "add"};
     }},
    {"scatter_add", "",
     [](const at::Tensor& ids) {
       return Arguments{Self(), 1, Rows(ids), Source()};
     }},
    {"scatter_reduce", "two",
     [](const at::Tensor& ids) {
       return Arguments{Self(), 1, Rows(ids), Source(), "sum", true};
     }},
    {"index_add", "",
     [](const at::Tensor& ids) {
       return Arguments{Self(), 1, ids, Source(), 1};
     }},
    {"index_copy", "",
     [](const at::Tensor& ids) {
       return Arguments{Self(), 1, ids, Source()};
     }},
    {"index_reduce", "",
     [](const at::Tensor& ids) {
       return Arguments{Self(), 1, ids, Source(), "amax", true};
     }},
    {"index_fill", "int_Scalar",
     [](const at::Tensor& ids) {
       return Arguments{Self(), 1, ids, 2.0};
     },
     true},
    {"index_fill", "int_Tensor",
     [](const at::Tensor& ids) {
       return Arguments{Self(), 1, ids, at::ones({})};
     },
     true},
    {"index", "Tensor",
     [](const at::Tensor& ids) {
       return Arguments{Self(), Dims({std::nullopt, ids})};
     },
     true},
    {"_unsafe_index", "Tensor",
     [](const at::Tensor& ids) {
       return Arguments{Self(), Dims({std::nullopt, ids})};
     },
     true},
    // A mask of two dims, then ids of the third.
    {"index", "Tensor",
     [](const at::Tensor& ids) {
       return Arguments{at::ones({2, 1, 4}),
                        Dims({at::ones({2, 1}, at::kBool), ids})};
     },
     true},
    {"index_put", "",
     [](const at::Tensor& ids) {
       return Arguments{Self(), Dims({at::tensor({0, 2}, at::kLong), ids}),
                        at::ones({2}), false};
     },
     true},
    {"_unsafe_index_put", "",
     [](const at::Tensor& ids) {
       return Arguments{Self(), Dims({at::tensor({0, 2}, at::kLong), ids}),
                        at::ones({2}), false};
     },
     true},
    {"one_hot", "",
     [](const at::Tensor& ids) {
       return Arguments{ids, 4};
     },
     false, "Class"},
    {"cross_entropy_loss", "",
     [](const at::Tensor& ids) {
       return Arguments{at::ones({2, 4}), ids, None(), 1, -100, 0.0};
     },
     false, "Target"},
    // f32[N, C, d]
    {"cross_entropy_loss", "",
     [](const at::Tensor& ids) {
       return Arguments{
           at::ones({2, 4, 1}), Columns(ids), None(), 0, -100, 0.1};
     },
     false, "Target"},
    {"nll_loss_nd", "",
     [](const at::Tensor& ids) {
       return Arguments{at::ones({2, 4}), ids, None(), 2, -100};
     },
     false, "Target"},
};

class IdArgumentsTest : public testing::TestWithParam<Case> {
 protected:
  // What the operator makes of them, checked.
  static at::Tensor Call(const at::Tensor& ids) {
    Arguments arguments = GetParam().arguments(ids);
    const CheckIdArguments check = FindIdArguments(GetParam().target());
    EXPECT_NE(check, nullptr);
    if (check != nullptr) check(arguments);
    return Result(std::move(arguments));
  }
  static at::Tensor Result(Arguments arguments) {
    const c10::OperatorHandle op =
        c10::Dispatcher::singleton().findSchemaOrThrow(
            (std::string("aten::") + GetParam().name).c_str(),
            GetParam().overload);
    op.callBoxed(arguments);
    return arguments[0].toTensor();
  }
};

TEST_P(IdArgumentsTest, GoodOnesStay) {
  const int64_t last = GetParam().from_end ? -4 : 3;
  for (const bool defers : {false, true}) {
    DataFaults faults(defers);
    const at::Tensor ids = Of(1, last);
    EXPECT_TRUE(Call(ids).equal(Result(GetParam().arguments(ids))));
    EXPECT_THAT(faults.status(), IsOk());
  }
}

TEST_P(IdArgumentsTest, BadOnesAreNotedAndTheOperatorGoesOn) {
  for (const int64_t bad :
       {int64_t{4}, int64_t{1} << 40, int64_t{GetParam().from_end ? -5 : -1}}) {
    at::Tensor made[2];
    for (const bool defers : {false, true}) {
      DataFaults faults(defers);
      made[defers] = Call(Of(1, bad));
      EXPECT_THAT(
          faults.status(),
          AllOf(StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr(GetParam().what +
                                         (" " + std::to_string(bad)) + " is"),
                               HasSubstr(GetParam().from_end ? "[-4, 4)"
                                                             : "[0, 4)"))),
                HasReason("INDEX_OUT_OF_RANGE")));
    }
    EXPECT_TRUE(made[0].equal(made[1])) << "both took 0";
    EXPECT_TRUE(made[0].equal(Result(GetParam().arguments(Of(1, 0)))));
  }
}

INSTANTIATE_TEST_SUITE_P(Operators, IdArgumentsTest, testing::ValuesIn(kCases),
                         [](const auto& info) {
                           return info.param.name +
                                  std::string(info.param.overload) +
                                  std::to_string(info.index);
                         });

TEST(FindIdArgumentsTest, OthersHaveNone) {
  EXPECT_EQ(FindIdArguments("aten.add.Tensor"), nullptr);
}

// By remainders, as torch has it.
TEST(TakenTest, AnyIdAlongADim) {
  Arguments arguments = {Self(), Of(-12, 12).view({1, 2}), 1};
  DataFaults faults;
  FindIdArguments("aten.take_along_dim.default")(arguments);
  EXPECT_TRUE(arguments[1].toTensor().flatten().equal(Of(-12, 12)));
  EXPECT_THAT(faults.status(), IsOk());
}

// -1 ends a row's classes.
TEST(MarginsTest, EndsOfRows) {
  const CheckIdArguments check =
      FindIdArguments("aten.multilabel_margin_loss.default");
  for (const int64_t bad : {-2, 4}) {
    DataFaults faults;
    Arguments arguments = {at::ones({4}), Of(0, -1), 1};
    check(arguments);
    EXPECT_THAT(faults.status(), IsOk());
    arguments[1] = Of(0, bad);
    check(arguments);
    EXPECT_THAT(std::string(faults.status().message()),
                HasSubstr("Target " + std::to_string(bad)));
  }
}

TEST(ClassesTest, IgnoredOnesProbabilitiesAndNarrowTypes) {
  const CheckIdArguments check =
      FindIdArguments("aten.cross_entropy_loss.default");
  for (const bool defers : {false, true}) {
    DataFaults faults(defers);
    Arguments ignored = {at::ones({2, 4}), Of(7, 3), None(), 1, 7, 0.0};
    check(ignored);
    EXPECT_TRUE(ignored[1].toTensor().equal(Of(7, 3)));
    Arguments probabilities = {
        at::ones({2, 4}), at::ones({2, 4}).mul(9), None(), 1, -100, 0.0};
    check(probabilities);
    // More classes than the type has numbers.
    Arguments bytes = {
        at::ones({2, 300}), Of(255, 44).to(at::kByte), None(), 1, -100, 0.0};
    check(bytes);
    EXPECT_TRUE(bytes[1].toTensor().equal(Of(255, 44)));
    EXPECT_EQ(bytes[1].toTensor().scalar_type(), at::kByte);
    EXPECT_THAT(faults.status(), IsOk());
  }
}

// Each of self and mask is expanded to the other's shape.
TEST(MaskScatteredTest, AsManyAsTheSourceHas) {
  const CheckIdArguments check = FindIdArguments("aten.masked_scatter.default");
  const at::Tensor mask = at::ones({2, 1}, at::kBool);
  for (const bool defers : {false, true}) {
    DataFaults faults(defers);
    for (const at::Tensor& self : {at::ones({2, 3}), at::ones({3})}) {
      Arguments arguments = {self, mask, at::ones({6})};
      check(arguments);
      EXPECT_TRUE(arguments[1].toTensor().logical_and(mask).equal(mask));
    }
    EXPECT_THAT(faults.status(), IsOk());
  }
}

TEST(MaskScatteredTest, MoreThanTheSourceHas) {
  const CheckIdArguments check = FindIdArguments("aten.masked_scatter.default");
  for (const bool defers : {false, true}) {
    for (const at::Tensor& self : {at::ones({2, 3}), at::ones({3})}) {
      for (const int64_t elements : {5, 0}) {
        DataFaults faults(defers);
        Arguments arguments = {self, at::ones({2, 1}, at::kBool),
                               at::ones({elements})};
        check(arguments);
        EXPECT_FALSE(arguments[1].toTensor().any().item().toBool());
        EXPECT_THAT(
            std::string(faults.status().message()),
            HasSubstr("Number of masked elements 6 is out of bounds: expected "
                      "one in [0, " +
                      std::to_string(elements + 1) + ")"));
      }
    }
  }
}

// What it does not take, it refuses itself.
TEST(MaskScatteredTest, ShapesAndTypesAreLeftToIt) {
  const CheckIdArguments check = FindIdArguments("aten.masked_scatter.default");
  for (const at::Tensor& mask :
       {at::ones({2}, at::kBool), at::ones({3}, at::kByte)}) {
    DataFaults faults;
    Arguments arguments = {at::ones({3}), mask, at::ones({1})};
    check(arguments);
    EXPECT_TRUE(arguments[1].toTensor().is_same(mask));
    EXPECT_THAT(faults.status(), IsOk());
  }
}

// No dim is there for ids: the operator says so.
TEST(OfDimsTest, MoreThanThereAre) {
  Arguments arguments = {at::ones({3}), Dims({Of(0, 1), Of(9, 9)})};
  DataFaults faults;
  FindIdArguments("aten.index.Tensor")(arguments);
  EXPECT_THAT(faults.status(), IsOk());
}

}  // namespace
}  // namespace shardplane
