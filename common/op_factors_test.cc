// What each row says about dims, as text: "!" a dim that must be whole, "+" one
// that is summed over, anything else passes.
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/op_rows_fixture.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

constexpr DType kI64 = DType::kInt64;

class OpRules : public testing::TestWithParam<RuleCase> {};

TEST_P(OpRules, NameWhatPasses) {
  EXPECT_EQ(RuleOf(GetParam()), GetParam().rule);
}

const Argument kNone;
const Shape k468 = {4, 6, 8};

INSTANTIATE_TEST_SUITE_P(
    Along, OpRules,
    testing::Values(
        RuleCase{"aten.cumsum.default",
                 {k468},
                 {T(), Int(1)},
                 "[4, 6!, 8] -> [4, 6!, 8]"},
        RuleCase{"aten.flip.default",
                 {k468},
                 {T(), Ints({0, -1})},
                 "[4!, 6, 8!] -> [4!, 6, 8!]"},
        RuleCase{"aten.roll.default",
                 {k468},
                 {T(), Ints({2}), Ints({1})},
                 "[4, 6!, 8] -> [4, 6!, 8]"},
        RuleCase{"aten.roll.default",
                 {k468},
                 {T(), Ints({2})},
                 "[4!, 6!, 8!] -> [4!, 6!, 8!]"},
        RuleCase{"aten.sort.default",
                 {k468},
                 {T()},
                 "[4, 6, 8!] -> [4, 6, 8!], [4, 6, 8!]"},
        RuleCase{"aten.sort.stable",
                 {k468},
                 {T()},
                 "[4!, 6, 8] -> [4!, 6, 8], [4!, 6, 8]",
                 {{"stable", {true}}, {"dim", Int(0)}}},
        RuleCase{"aten.max.dim",
                 {k468},
                 {T(), Int(1)},
                 "[4, 6!, 8] -> [4, 8], [4, 8]"},
        RuleCase{"aten.min.dim",
                 {k468},
                 {T(), Int(1), {true}},
                 "[4, 6!, 8] -> [4, , 8], [4, , 8]"},
        RuleCase{"aten.argmax.default", {k468}, {T()}, "[4!, 6!, 8!] -> []"},
        RuleCase{"aten.var.correction",
                 {k468},
                 {T(), Ints({0, 2})},
                 "[4!, 6, 8!] -> [, 6, ]",
                 {{"correction", Int(0)}, {"keepdim", {true}}}},
        RuleCase{"aten.var_mean.correction",
                 {k468},
                 {T()},
                 "[4!, 6!, 8!] -> [], []"},
        RuleCase{"aten.linalg_vector_norm.default",
                 {k468},
                 {T(), Int(2), Ints({-1}), {true}},
                 "[4, 6, 8!] -> [4, 6, ]"},
        RuleCase{"aten.cosine_similarity.default",
                 {k468, {4, 6, 8}},
                 {T(), T(), Int(2)},
                 "[4, 6, 8!], [4, 6, 8!] -> [4, 6]"},
        RuleCase{"aten.topk.default",
                 {k468},
                 {T(), Int(3), Int(1)},
                 "[4, 6!, 8] -> [4, 3!, 8], [4, 3!, 8]"},
        RuleCase{"aten.diff.default",
                 {k468},
                 {T(), Int(2)},
                 "[4, 6, 8!] -> [4, 6, 6!]"},
        RuleCase{"aten.diff.default",
                 {k468, {1, 6, 8}},
                 {T(), Int(1), Int(0), T()},
                 "[4!, 6, 8], [1!, 6, 8] -> [4!, 6, 8]"},
        RuleCase{"aten.pad.default",
                 {k468},
                 {T(), Ints({0, 0, 2, 1})},
                 "[4, 6!, 8] -> [4, 9!, 8]"},
        RuleCase{
            "aten.glu.default", {k468}, {T()}, "[4, 6, 2!*4] -> [4, 6, 4]"},
        RuleCase{"aten.unfold.default",
                 {k468},
                 {T(), Int(2), Int(4), Int(2)},
                 "[4, 6, 8!] -> [4, 6, 3!, 4!]"}),
    RuleName);

INSTANTIATE_TEST_SUITE_P(
    Picking, OpRules,
    testing::Values(RuleCase{"aten.index.Tensor",
                             {k468, {5, 3}},
                             {T(), {ArgumentList{kNone, T()}}},
                             "[4, 6!, 8], [5, 3] -> [4, 5, 3, 8]",
                             {},
                             1},
                    RuleCase{"aten.index.Tensor",
                             {k468, {5, 1}, {3}},
                             {T(), {ArgumentList{T(), kNone, T()}}},
                             "[4!, 6, 8!], [5, ], [3] -> [5, 3, 6]",
                             {},
                             1},
                    RuleCase{"aten.index_put.default",
                             {k468, {3}, {3, 8}},
                             {T(), {ArgumentList{kNone, T()}}, T()},
                             "[4, 6!, 8], [3!], [3!, 8] -> [4, 6!, 8]",
                             {},
                             1},
                    RuleCase{"aten.gather.default",
                             {k468, {4, 6, 3}},
                             {T(), Int(2), T()},
                             "[4, 6, 8!], [4, 6, 3] -> [4, 6, 3]",
                             {},
                             1},
                    RuleCase{"aten.gather.default",
                             {k468, {2, 6, 3}},
                             {T(), Int(2), T()},
                             "[4!, 6, 8!], [2!, 6, 3] -> [2!, 6, 3]",
                             {},
                             1},
                    RuleCase{"aten.take_along_dim.default",
                             {k468, {4, 6, 3}},
                             {T(), T(), Int(-1)},
                             "[4, 6, 8!], [4, 6, 3] -> [4, 6, 3]",
                             {},
                             1},
                    RuleCase{"aten.scatter_add.default",
                             {{6, 8}, {6, 4}, {6, 4}},
                             {T(), Int(1), T(), T()},
                             "[6, 8!], [6, 4!], [6, 4!] -> [6, 8!]",
                             {},
                             1},
                    RuleCase{"aten.scatter.value",
                             {{6, 8}, {5, 4}},
                             {T(), Int(1), T(), {0.5}},
                             "[6!, 8!], [5!, 4!] -> [6!, 8!]",
                             {},
                             1},
                    RuleCase{"aten.index_select.default",
                             {k468, {5}},
                             {T(), Int(1), T()},
                             "[4, 6!, 8], [5] -> [4, 5, 8]",
                             {},
                             1},
                    RuleCase{"aten.index_add.default",
                             {k468, {3}, {4, 3, 8}},
                             {T(), Int(1), T(), T()},
                             "[4, 6!, 8], [3!], [4, 3!, 8] -> [4, 6!, 8]",
                             {},
                             1},
                    RuleCase{"aten.select_scatter.default",
                             {k468, {4, 8}},
                             {T(), T(), Int(1), Int(0)},
                             "[4, 6!, 8], [4, 8] -> [4, 6!, 8]"},
                    RuleCase{"aten.slice_scatter.default",
                             {k468, {4, 2, 8}},
                             {T(), T(), Int(1), Int(0), Int(2)},
                             "[4, 6!, 8], [4, 2!, 8] -> [4, 6!, 8]"},
                    RuleCase{"aten.one_hot.default",
                             {{4, 6}},
                             {T(), Int(3)},
                             "[4, 6] -> [4, 6, 3!]",
                             {},
                             0},
                    RuleCase{"aten.histc.default",
                             {{4, 6}},
                             {T(), Int(3), {0.0}, {1.0}},
                             "[4+, 6+] -> [3!]"},
                    RuleCase{"aten.histc.default",
                             {{4, 6}},
                             {T(), Int(3)},
                             "[4!, 6!] -> [3!]"},
                    RuleCase{"aten.bucketize.Tensor",
                             {k468, {3}},
                             {T(), T()},
                             "[4, 6, 8], [3!] -> [4, 6, 8]"}),
    RuleName);

TEST(OpRefusals, SayWhatIsLacking) {
  const auto message = [](OpCall call, std::vector<TensorType> operands) {
    call.operands = std::move(operands);
    const auto op = MakeOpInstance(call);
    EXPECT_EQ(op.status().code(), absl::StatusCode::kUnimplemented);
    return std::string(op.status().message());
  };
  using testing::HasSubstr;
  const TensorType x{DType::kFloat64, {4, 6}};
  EXPECT_THAT(message({"aten.bernoulli.p", {T(), {0.5}}}, {x}),
              HasSubstr("draws random numbers, which would differ by rank"));
  EXPECT_THAT(message({"aten.nonzero.default", {T()}}, {x}),
              HasSubstr("depends on values"));
  EXPECT_THAT(message({"aten.index.Tensor", {T(), {ArgumentList{T()}}}},
                      {x, {DType::kBool, {4}}}),
              HasSubstr("but for one option; got: a mask as index, bool[4]"));
  EXPECT_THAT(message({"aten.one_hot.default", {T()}}, {{kI64, {4}}}),
              HasSubstr("got: no number of classes"));
  EXPECT_THAT(message({"mine.op.default", {T()}}, {x}),
              HasSubstr("has no sharding rule and is not known to be safe"));
}

// ------------------------------------------------------- complex numbers

struct TypeCase {
  const char* target;
  std::vector<TensorType> operands;
  const char* rule;  // "c64[4, 6] = [4, 6] -> [4, 6]"
  std::vector<Argument> args = {};
  bool linear = true;  // in each operand: it lets Partials through
};

// What a call gives and its rule, or the error instead.
std::string TypedRuleOf(const TypeCase& c) {
  OpCall call{c.target, c.args, {}, c.operands, {}};
  if (call.args.empty()) call.args.assign(c.operands.size(), T());
  const auto op = MakeOpInstance(call);
  if (!op.ok()) return std::string(op.status().message());
  for (const OperandRule& operand : op->operands) {
    if (operand.linear != c.linear) return "linear in others";
  }
  return absl::StrCat(ToString(op->results[0].type), " = ", ToString(*op));
}

std::string TypeName(const testing::TestParamInfo<TypeCase>& info) {
  std::string name = info.param.target;
  for (char& c : name) c = absl::ascii_isalnum(c) ? c : '_';
  return absl::StrCat(name, "_", info.index);
}

class OpTypes : public testing::TestWithParam<TypeCase> {};

TEST_P(OpTypes, AreWhatComesOfTheOperands) {
  EXPECT_EQ(TypedRuleOf(GetParam()), GetParam().rule);
}

constexpr DType kF32 = DType::kFloat32;
constexpr DType kF64 = DType::kFloat64;
constexpr DType kC64 = DType::kComplex64;
constexpr DType kC128 = DType::kComplex128;
constexpr bool kNotLinear = false;

INSTANTIATE_TEST_SUITE_P(
    PartsOfComplexNumbers, OpTypes,
    testing::Values(
        TypeCase{"aten.view_as_complex.default",
                 {{kF32, {4, 6, 2}}},
                 "c64[4, 6] = [4, 6, 2!] -> [4, 6]"},
        TypeCase{"aten.view_as_complex.default",
                 {{kF64, {2}}},
                 "c128[] = [2!] -> []"},
        TypeCase{"aten.view_as_complex.default",
                 {{kF32, {4, 6}}},
                 "aten.view_as_complex.default expects floating-point numbers "
                 "in a last dim of 2; got: f32[4, 6]"},
        TypeCase{"aten.view_as_complex.default",
                 {{kI64, {4, 2}}},
                 "aten.view_as_complex.default expects floating-point numbers "
                 "in a last dim of 2; got: i64[4, 2]"},
        TypeCase{"aten.view_as_real.default",
                 {{kC64, {4, 6}}},
                 "f32[4, 6, 2] = [4, 6] -> [4, 6, 2!]"},
        TypeCase{"aten.view_as_real.default",
                 {{kF32, {4, 6}}},
                 "aten.view_as_real.default expects complex numbers; got: "
                 "f32[4, 6]"},
        TypeCase{"aten.complex.default",
                 {{kF32, {4, 1}}, {kF32, {4, 6}}},
                 "c64[4, 6] = [4, ], [4, 6] -> [4, 6]"},
        TypeCase{"aten.polar.default",
                 {{kF64, {4}}, {kF64, {4}}},
                 "c128[4] = [4], [4] -> [4]",
                 {},
                 kNotLinear},
        TypeCase{"aten.real.default", {{kC64, {4}}}, "f32[4] = [4] -> [4]"},
        TypeCase{"aten.imag.default", {{kC128, {4}}}, "f64[4] = [4] -> [4]"},
        TypeCase{"aten.abs.default",
                 {{kC64, {4}}},
                 "f32[4] = [4] -> [4]",
                 {},
                 kNotLinear},
        TypeCase{"aten.abs.default",
                 {{kI64, {4}}},
                 "i64[4] = [4] -> [4]",
                 {},
                 kNotLinear},
        TypeCase{"aten.angle.default",
                 {{kC64, {4}}},
                 "f32[4] = [4] -> [4]",
                 {},
                 kNotLinear},
        TypeCase{"aten._conj.default", {{kC64, {4}}}, "c64[4] = [4] -> [4]"},
        TypeCase{"aten.conj_physical.default",
                 {{kC128, {4}}},
                 "c128[4] = [4] -> [4]"},
        TypeCase{"aten.isreal.default",
                 {{kC64, {4}}},
                 "bool[4] = [4] -> [4]",
                 {},
                 kNotLinear},
        TypeCase{"aten.var.correction",
                 {{kC64, {4}}},
                 "f32[] = [4!] -> []",
                 {},
                 kNotLinear},
        TypeCase{"aten.sum.default", {{kC64, {4}}}, "c64[] = [4+] -> []"},
        TypeCase{"aten.cumsum.default",
                 {{kC64, {4}}},
                 "c64[4] = [4!] -> [4!]",
                 {T(), Int(0)}}),
    TypeName);

INSTANTIATE_TEST_SUITE_P(
    Promotion, OpTypes,
    testing::Values(TypeCase{"aten.mul.Tensor",
                             {{kF32, {4}}, {kC64, {4}}},
                             "c64[4] = [4], [4] -> [4]"},
                    TypeCase{"aten.mul.Tensor",
                             {{kF64, {4}}, {kC64, {4}}},
                             "c128[4] = [4], [4] -> [4]"},
                    TypeCase{"aten.mul.Tensor",
                             {{kC64, {4}}, {kC128, {1}}},
                             "c128[4] = [4], [] -> [4]"},
                    TypeCase{"aten.add.Tensor",
                             {{kI64, {4}}, {kC64, {4}}},
                             "c64[4] = [4], [4] -> [4]"},
                    TypeCase{"aten.add.Tensor",
                             {{DType::kBFloat16, {4}}, {kC64, {4}}},
                             "c64[4] = [4], [4] -> [4]"},
                    // A tensor of 0 dims counts by its kind of number alone.
                    TypeCase{"aten.mul.Tensor",
                             {{kF32, {4}}, {kC128, {}}},
                             "c64[4] = [4], [] -> [4]"},
                    TypeCase{"aten.mul.Tensor",
                             {{kC64, {4}}, {kF64, {}}},
                             "c64[4] = [4], [] -> [4]"},
                    TypeCase{"aten.mul.Tensor",
                             {{kF32, {4}}, {kF64, {}}},
                             "f32[4] = [4], [] -> [4]"},
                    TypeCase{"aten.mul.Tensor",
                             {{kI64, {4}}, {kF64, {}}},
                             "f64[4] = [4], [] -> [4]"},
                    TypeCase{"aten.mul.Tensor",
                             {{kI64, {}}, {DType::kInt8, {4}}},
                             "i8[4] = [], [4] -> [4]"},
                    TypeCase{"aten.mul.Tensor",
                             {{DType::kBool, {4}}, {kI64, {}}},
                             "i64[4] = [4], [] -> [4]"},
                    TypeCase{"aten.mul.Tensor",
                             {{kF32, {}}, {kF64, {}}},
                             "f64[] = [], [] -> []"}),
    TypeName);

}  // namespace
}  // namespace shardplane
