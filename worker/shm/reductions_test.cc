#include "worker/shm/reductions.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "ATen/Context.h"
#include "ATen/TensorOperators.h"
#include "ATen/core/Tensor.h"
#include "ATen/ops/allclose.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/bitwise_and.h"
#include "ATen/ops/bitwise_or.h"
#include "ATen/ops/bitwise_xor.h"
#include "ATen/ops/complex.h"
#include "ATen/ops/empty_like.h"
#include "ATen/ops/equal.h"
#include "ATen/ops/imag.h"
#include "ATen/ops/randint.h"
#include "ATen/ops/randn.h"
#include "ATen/ops/real.h"
#include "ATen/ops/stack.h"
#include "ATen/ops/tensor.h"
#include "ATen/ops/view_as_complex.h"
#include "ATen/ops/view_as_real.h"
#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"
#include "worker/rank_order_reduction.h"

namespace shardplane {
namespace {

using ::testing::HasSubstr;

constexpr ShmReduction kAll[] = {ShmReduction::kSum,     ShmReduction::kAvg,
                                 ShmReduction::kProduct, ShmReduction::kMin,
                                 ShmReduction::kMax,     ShmReduction::kBand,
                                 ShmReduction::kBor,     ShmReduction::kBxor};

// Short ones, and such as end within a vector and within a block.
constexpr int64_t kSizes[] = {0, 1, 7, 16, 63, 1024, 2085};
constexpr int kCounts[] = {1, 2, 3, 4, 5, 7, 9};

struct TypeCase {
  const char* name;
  at::ScalarType type;
  enum { kInteger, kUnsigned, kBool, kFloat, kComplex } kind;
};
void PrintTo(const TypeCase& type, std::ostream* out) { *out << type.name; }

bool Has(const TypeCase& type, ShmReduction reduction) {
  switch (reduction) {
    case ShmReduction::kSum:
    case ShmReduction::kProduct:
      return true;
    case ShmReduction::kAvg:
      return type.kind == TypeCase::kFloat || type.kind == TypeCase::kComplex;
    case ShmReduction::kMin:
    case ShmReduction::kMax:
      return type.kind != TypeCase::kComplex;
    default:
      return type.kind <= TypeCase::kBool;
  }
}

// [count, n] of any values; of integers, any bits.
at::Tensor Pieces(const TypeCase& type, int count, int64_t n) {
  const int64_t bytes = c10::elementSize(type.type);
  switch (type.kind) {
    case TypeCase::kInteger:
    case TypeCase::kUnsigned:
      return at::randint(256, {count * n * bytes}, at::kByte)
          .view(type.type)
          .view({count, n});
    case TypeCase::kBool:
      return at::randint(2, {count, n}).to(at::kBool);
    case TypeCase::kFloat:
      // Of very different sizes, so that the order shows.
      return (at::randn({count, n}, at::kDouble) *
              at::randn({count, n}, at::kDouble).mul(2).exp2())
          .to(type.type);
    case TypeCase::kComplex:
      return at::randn({count, n}, type.type);
  }
  return {};
}

at::Tensor Reduced(const at::Tensor& pieces, const TypeCase& type,
                   ShmReduction reduction, int count);

// ATen knows these as signed ones alone, whose order is turned by the top bit.
at::Tensor ReducedUnsigned(const at::Tensor& pieces, const TypeCase& type,
                           ShmReduction reduction, int count) {
  const auto signed_type =
      type.type == at::kUInt16
          ? at::kShort
          : (type.type == at::kUInt32 ? at::kInt : at::kLong);
  const TypeCase as{"", signed_type, TypeCase::kInteger};
  at::Tensor viewed = pieces.view(signed_type);
  if (reduction != ShmReduction::kMin && reduction != ShmReduction::kMax)
    return Reduced(viewed, as, reduction, count).view(type.type);
  const int64_t top = -(int64_t{1} << (8 * c10::elementSize(signed_type) - 1));
  return Reduced(viewed.bitwise_xor(top), as, reduction, count)
      .bitwise_xor(top)
      .view(type.type);
}

// Each operation rounded: at::mul of complex numbers fuses some, and not the
// same ones in the middle of a tensor as at its end.
at::Tensor Product(const at::Tensor& a, const at::Tensor& b) {
  if (!a.is_complex()) return a.mul(b);
  const at::Tensor ar = at::real(a), ai = at::imag(a);
  const at::Tensor br = at::real(b), bi = at::imag(b);
  return at::complex(ar.mul(br) - ai.mul(bi), ar.mul(bi) + ai.mul(br));
}

// By ATen, rank after rank.
at::Tensor Reduced(const at::Tensor& pieces, const TypeCase& type,
                   ShmReduction reduction, int count) {
  if (type.kind == TypeCase::kUnsigned)
    return ReducedUnsigned(pieces, type, reduction, count);
  const bool by_float = at::isReducedFloatingType(type.type);
  at::Tensor all = by_float ? pieces.to(at::kFloat) : pieces;
  at::Tensor result;
  switch (reduction) {
    case ShmReduction::kSum:
      return ReduceInRankOrder(pieces, ReduceOp::kSum);
    case ShmReduction::kMin:
      return ReduceInRankOrder(pieces, ReduceOp::kMin);
    case ShmReduction::kMax:
      return ReduceInRankOrder(pieces, ReduceOp::kMax);
    case ShmReduction::kAvg:
      result = ReduceInRankOrder(all, ReduceOp::kSum);
      result = type.kind == TypeCase::kComplex
                   ? at::view_as_complex(at::view_as_real(result).div(count))
                   : result.div(count);
      break;
    default:
      result = all[0];
      for (int i = 1; i < count; ++i) {
        result =
            reduction == ShmReduction::kProduct ? Product(result, all[i])
            : reduction == ShmReduction::kBand ? at::bitwise_and(result, all[i])
            : reduction == ShmReduction::kBor  ? at::bitwise_or(result, all[i])
                                              : at::bitwise_xor(result, all[i]);
      }
  }
  return by_float ? result.to(type.type) : result;
}

// By the reducer, into a buffer of its own or into that of one rank.
constexpr int kOwnBuffer = -1;
at::Tensor ByReducer(const ShmReducer& reducer, const at::Tensor& pieces,
                     int into) {
  std::vector<at::Tensor> ranks;
  for (int i = 0; i < pieces.size(0); ++i) ranks.push_back(pieces[i].clone());
  at::Tensor out = into == kOwnBuffer ? at::empty_like(ranks[0]) : ranks[into];
  std::vector<const std::byte*> in;
  for (const at::Tensor& rank : ranks)
    in.push_back(static_cast<const std::byte*>(rank.data_ptr()));
  reducer.function(static_cast<std::byte*>(out.data_ptr()), in.data(),
                   static_cast<int>(in.size()), out.numel());
  return out;
}

bool SameBits(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() &&
         at::equal(a.flatten().view(at::kByte), b.flatten().view(at::kByte));
}

class ReductionsTest : public ::testing::TestWithParam<TypeCase> {
 protected:
  void SetUp() override { at::manual_seed(7); }
};

TEST_P(ReductionsTest, AreTheSameBitsAsInRankOrder) {
  for (const ShmReduction reduction : kAll) {
    if (!Has(GetParam(), reduction)) continue;
    const ShmReducer reducer = ReducerOf(GetParam().type, reduction).value();
    EXPECT_EQ(reducer.element_bytes,
              static_cast<int64_t>(c10::elementSize(GetParam().type)));
    for (const int count : kCounts) {
      for (const int64_t size : kSizes) {
        SCOPED_TRACE(::testing::Message()
                     << "reduction " << static_cast<int>(reduction) << ", "
                     << count << " ranks, " << size << " elements");
        const at::Tensor pieces = Pieces(GetParam(), count, size);
        const at::Tensor expected =
            Reduced(pieces, GetParam(), reduction, count);
        for (int into = kOwnBuffer; into < count; ++into) {
          ASSERT_TRUE(SameBits(ByReducer(reducer, pieces, into), expected))
              << "into " << into;
        }
      }
    }
  }
}

TEST_P(ReductionsTest, OthersAreRefused) {
  for (const ShmReduction reduction : kAll) {
    if (Has(GetParam(), reduction)) continue;
    const auto reducer = ReducerOf(GetParam().type, reduction);
    EXPECT_THAT(reducer,
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("expected a reduction that the element type "
                                   "has, got: ")));
    EXPECT_THAT(reducer, HasReason("NO_SUCH_REDUCTION"));
    EXPECT_THAT(reducer.status().message(),
                HasSubstr(c10::toString(GetParam().type)));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Types, ReductionsTest,
    ::testing::Values(
        TypeCase{"bool", at::kBool, TypeCase::kBool},
        TypeCase{"uint8", at::kByte, TypeCase::kInteger},
        TypeCase{"int8", at::kChar, TypeCase::kInteger},
        TypeCase{"int16", at::kShort, TypeCase::kInteger},
        TypeCase{"int32", at::kInt, TypeCase::kInteger},
        TypeCase{"int64", at::kLong, TypeCase::kInteger},
        TypeCase{"uint16", at::kUInt16, TypeCase::kUnsigned},
        TypeCase{"uint32", at::kUInt32, TypeCase::kUnsigned},
        TypeCase{"uint64", at::kUInt64, TypeCase::kUnsigned},
        TypeCase{"float16", at::kHalf, TypeCase::kFloat},
        TypeCase{"bfloat16", at::kBFloat16, TypeCase::kFloat},
        TypeCase{"float32", at::kFloat, TypeCase::kFloat},
        TypeCase{"float64", at::kDouble, TypeCase::kFloat},
        TypeCase{"float8 e5m2", at::kFloat8_e5m2, TypeCase::kFloat},
        TypeCase{"float8 e4m3fn", at::kFloat8_e4m3fn, TypeCase::kFloat},
        TypeCase{"float8 e5m2fnuz", at::kFloat8_e5m2fnuz, TypeCase::kFloat},
        TypeCase{"float8 e4m3fnuz", at::kFloat8_e4m3fnuz, TypeCase::kFloat},
        TypeCase{"complex64", at::kComplexFloat, TypeCase::kComplex},
        TypeCase{"complex128", at::kComplexDouble, TypeCase::kComplex}),
    CaseName<TypeCase>);

// Every pattern of 16 bits once as a summand: what a sum with -0 makes of it,
// and at halves of what can be told apart.
class ShortFloatsTest : public ::testing::TestWithParam<TypeCase> {};

TEST_P(ShortFloatsTest, AreConvertedAsByTorch) {
  const at::Tensor all =
      at::arange(65536, at::kInt).to(at::kShort).view(GetParam().type);
  for (const double factor : {0.0, 1.0, 1.0 / 256, 1.0 / 2048, 3.0 / 4096}) {
    const at::Tensor other = all.to(at::kFloat).mul(factor).to(all.dtype());
    const at::Tensor pieces = at::stack({all, other});
    const at::Tensor expected = ReduceInRankOrder(pieces, ReduceOp::kSum);
    const at::Tensor sum =
        ByReducer(ReducerOf(GetParam().type, ShmReduction::kSum).value(),
                  pieces, kOwnBuffer);
    EXPECT_TRUE(at::equal(sum.isnan(), expected.isnan()));
    EXPECT_TRUE(SameBits(sum.masked_fill(sum.isnan(), 0),
                         expected.masked_fill(expected.isnan(), 0)))
        << factor;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Types, ShortFloatsTest,
    ::testing::Values(TypeCase{"float16", at::kHalf, TypeCase::kFloat},
                      TypeCase{"bfloat16", at::kBFloat16, TypeCase::kFloat}),
    CaseName<TypeCase>);

TEST(ReductionsOfNanTest, MaximumAndMinimumKeepIt) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const at::Tensor pieces = at::tensor({nan, 1.0f, 2.0f, inf, -inf, -1.0f,  //
                                        3.0f, nan, -2.0f, 1.0f, 2.0f, nan,  //
                                        4.0f, 5.0f, nan, -inf, inf, nan})
                                .view({3, 6});
  for (const at::ScalarType type :
       {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16}) {
    for (const auto& [reduction, op] :
         {std::pair{ShmReduction::kMin, ReduceOp::kMin},
          std::pair{ShmReduction::kMax, ReduceOp::kMax}}) {
      const at::Tensor typed = pieces.to(type);
      EXPECT_TRUE(at::allclose(
          ByReducer(ReducerOf(type, reduction).value(), typed, kOwnBuffer),
          ReduceInRankOrder(typed, op), 0, 0, /*equal_nan=*/true));
    }
  }
}

TEST(ReducersTest, AreToldApartByTypeAndReduction) {
  const auto id = [](at::ScalarType type, ShmReduction reduction) {
    return ReducerOf(type, reduction).value().id;
  };
  EXPECT_EQ(id(at::kFloat, ShmReduction::kSum),
            id(at::kFloat, ShmReduction::kSum));
  EXPECT_NE(id(at::kFloat, ShmReduction::kSum),
            id(at::kFloat, ShmReduction::kMax));
  EXPECT_NE(id(at::kFloat, ShmReduction::kSum),
            id(at::kInt, ShmReduction::kSum));
}

TEST(ReducersTest, WhatIsNoNumber) {
  EXPECT_THAT(ReducerOf(at::kComplexHalf, ShmReduction::kSum),
              HasReason("NO_SUCH_REDUCTION"));
  EXPECT_THAT(ReducerOf(at::kQInt8, ShmReduction::kSum),
              HasReason("NO_SUCH_REDUCTION"));
}

}  // namespace
}  // namespace shardplane
