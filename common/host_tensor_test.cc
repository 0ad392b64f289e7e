#include "common/host_tensor.h"

#include <cmath>
#include <complex>
#include <cstdint>
#include <cstring>
#include <limits>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/float16.h"
#include "common/spec_enumeration.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

DeviceMesh Mesh(std::vector<MeshDim> dims) {
  return DeviceMesh::Create(std::move(dims)).value();
}

template <typename T>
HostTensor Tensor(DType dtype, Shape shape, const std::vector<T>& values) {
  HostTensor tensor{{dtype, std::move(shape)}, ""};
  tensor.bytes.resize(values.size() * sizeof(T));
  if (values.empty()) return tensor;  // and data() is null
  std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
  return tensor;
}

template <typename T>
std::vector<T> Values(const HostTensor& tensor) {
  std::vector<T> values(tensor.bytes.size() / sizeof(T));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

// 0, 1, 2, … in i16.
HostTensor Iota(const Shape& shape) {
  std::vector<int16_t> values(NumElements(shape));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<int16_t>(i);
  }
  return Tensor(DType::kInt16, shape, values);
}

TEST(SliceHost, TakesRowsAndColumns) {
  const HostTensor slice =
      SliceHost(Iota({3, 4}), {{Extent{1, 2}}, {Extent{2, 2}}});

  EXPECT_EQ(slice.type.shape, (Shape{2, 2}));
  EXPECT_THAT(Values<int16_t>(slice), ElementsAre(6, 7, 10, 11));
}

TEST(SliceHost, TakesScalarsAndEmptyParts) {
  EXPECT_EQ(SliceHost(Iota({}), {}), Iota({}));
  EXPECT_EQ(SliceHost(Iota({4, 2}), {{}, {Extent{0, 2}}}),
            (HostTensor{{DType::kInt16, {0, 2}}, ""}));
}

// All parts of one dim.
std::vector<Extent> Parts(int64_t size) {
  std::vector<Extent> parts;
  for (int64_t offset = 0; offset <= size; ++offset) {
    for (int64_t n = 0; offset + n <= size; ++n) parts.push_back({offset, n});
  }
  return parts;
}

TEST(SliceHost, TakesEveryPart) {
  const HostTensor global = Iota({2, 3, 4});
  for (const Extent& a : Parts(2)) {
    for (const Extent& b : Parts(3)) {
      for (const Extent& c : Parts(4)) {
        std::vector<int16_t> expected;
        for (int64_t i = a.offset; i < a.offset + a.size; ++i) {
          for (int64_t j = b.offset; j < b.offset + b.size; ++j) {
            for (int64_t k = c.offset; k < c.offset + c.size; ++k) {
              expected.push_back(static_cast<int16_t>((i * 3 + j) * 4 + k));
            }
          }
        }
        EXPECT_EQ(SliceHost(global, std::vector<Stretches>{{a}, {b}, {c}}),
                  Tensor(DType::kInt16, {a.size, b.size, c.size}, expected));
      }
    }
  }
}

TEST(RanksToAssemble, LeavesReplicasOut) {
  const DeviceMesh mesh = Mesh({{"dp", 2}, {"tp", 2}});

  EXPECT_THAT(RanksToAssemble({{Replicate{}, Shard{0}}, {}}, mesh),
              ElementsAre(0, 1));
  EXPECT_THAT(RanksToAssemble({{Partial{}, Replicate{}}, {}}, mesh),
              ElementsAre(0, 2));
  EXPECT_THAT(RanksToAssemble({{Shard{0}, Shard{1}}, {}}, mesh),
              ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(RanksToAssemble(DTensorSpec::Replicated(2), mesh),
              ElementsAre(0));
}

// What each rank to assemble would hold of `global`: its part, and of a sum the
// whole on one rank and zeros on the others.
std::vector<HostTensor> Distribute(const HostTensor& global,
                                   const DTensorSpec& spec,
                                   const DeviceMesh& mesh) {
  std::vector<HostTensor> shards;
  for (const int rank : RanksToAssemble(spec, mesh)) {
    const std::vector<int> coordinate = mesh.Coordinate(rank);
    shards.push_back(SliceHost(
        global, LocalStretches(global.type.shape, spec, mesh, coordinate)));
    for (int i = 0; i < mesh.ndim(); ++i) {
      if (IsPartial(spec.placements[i]) && coordinate[i] != 0) {
        shards.back().bytes.assign(shards.back().bytes.size(), '\0');
      }
    }
  }
  return shards;
}

TEST(AssembleGlobal, UndoesTheCutForAllSpecs) {
  for (const DeviceMesh& mesh : SmallMeshes()) {
    for (const DTensorSpec& spec : AllSpecs(mesh, 2)) {
      for (const Shape& shape : {Shape{1, 2}, Shape{5, 3}, Shape{8, 17}}) {
        const HostTensor global = Iota(shape);
        ASSERT_THAT(AssembleGlobal(global.type, spec, mesh,
                                   Distribute(global, spec, mesh)),
                    IsOkAndHolds(global))
            << mesh.ToString() << " " << ToString(spec) << " "
            << ShapeToString(shape);
      }
    }
  }
}

TEST(AssembleGlobal, CutsOneDimTwiceInAStatedOrder) {
  // tp cuts first: rows {0, 1} and {2, 3}; dp within. Rank = dp * 2 + tp.
  const DeviceMesh mesh = Mesh({{"dp", 2}, {"tp", 2}});
  const DTensorSpec spec{{Shard{0}, Shard{0}}, {1, 0}};
  const std::vector<HostTensor> shards = {
      Tensor<int16_t>(DType::kInt16, {1}, {10}),
      Tensor<int16_t>(DType::kInt16, {1}, {12}),
      Tensor<int16_t>(DType::kInt16, {1}, {11}),
      Tensor<int16_t>(DType::kInt16, {1}, {13})};

  const auto global = AssembleGlobal({DType::kInt16, {4}}, spec, mesh, shards);

  ASSERT_THAT(global, IsOk());
  EXPECT_THAT(Values<int16_t>(*global), ElementsAre(10, 11, 12, 13));
}

struct ReduceCase {
  std::string name;
  ReduceOp op;
  std::vector<HostTensor> shards;
  HostTensor expected;
};
void PrintTo(const ReduceCase& c, std::ostream* os) { *os << c.name; }

class ReduceTest : public ::testing::TestWithParam<ReduceCase> {};

TEST_P(ReduceTest, GoesInRankOrder) {
  const int ranks = static_cast<int>(GetParam().shards.size());

  EXPECT_THAT(
      AssembleGlobal(GetParam().expected.type, {{Partial{GetParam().op}}, {}},
                     Mesh({{"tp", ranks}}), GetParam().shards),
      IsOkAndHolds(GetParam().expected));
}

template <typename T>
ReduceCase Row(std::string name, DType dtype, ReduceOp op,
               const std::vector<T>& terms, T expected) {
  ReduceCase row{std::move(name), op, {}, Tensor<T>(dtype, {1}, {expected})};
  for (const T term : terms) {
    row.shards.push_back(Tensor<T>(dtype, {1}, {term}));
  }
  return row;
}

constexpr ReduceOp kSum = ReduceOp::kSum;
constexpr ReduceOp kMax = ReduceOp::kMax;
constexpr ReduceOp kMin = ReduceOp::kMin;

INSTANTIATE_TEST_SUITE_P(
    All, ReduceTest,
    ::testing::Values(
        Row<float>("f32 sum", DType::kFloat32, kSum, {1, 2, 4}, 7),
        // In another order the one would not be lost.
        Row<float>("f32 sum in order", DType::kFloat32, kSum, {1e8f, 1, -1e8f},
                   0),
        Row<float>("f32 max", DType::kFloat32, kMax, {-3, -1, -2}, -1),
        Row<float>("f32 min", DType::kFloat32, kMin, {-3, -1, -2}, -3),
        Row<double>("f64 sum", DType::kFloat64, kSum, {1e16, 1, 1}, 1e16),
        Row<double>("f64 max", DType::kFloat64, kMax, {1, 2}, 2),
        // 2048 + 1 + 1: rounded after each step it would stay 2048.
        Row<uint16_t>("f16 sum in f32", DType::kFloat16, kSum,
                      {FloatToHalf(2048), FloatToHalf(1), FloatToHalf(1)},
                      FloatToHalf(2050)),
        Row<uint16_t>("f16 min", DType::kFloat16, kMin,
                      {FloatToHalf(1), FloatToHalf(-2)}, FloatToHalf(-2)),
        Row<uint16_t>("bf16 sum in f32", DType::kBFloat16, kSum,
                      {FloatToBFloat16(256), FloatToBFloat16(1),
                       FloatToBFloat16(1)},
                      FloatToBFloat16(258)),
        Row<uint16_t>("bf16 max", DType::kBFloat16, kMax,
                      {FloatToBFloat16(-1), FloatToBFloat16(3)},
                      FloatToBFloat16(3)),
        Row<int64_t>("i64 sum", DType::kInt64, kSum, {1, -5}, -4),
        Row<int64_t>("i64 sum wraps", DType::kInt64, kSum,
                     {std::numeric_limits<int64_t>::max(), 1},
                     std::numeric_limits<int64_t>::min()),
        Row<int32_t>("i32 max", DType::kInt32, kMax, {-7, 3}, 3),
        Row<int16_t>("i16 sum wraps", DType::kInt16, kSum, {32767, 1}, -32768),
        Row<int8_t>("i8 min", DType::kInt8, kMin, {-7, 3}, -7),
        Row<uint8_t>("u8 sum wraps", DType::kUInt8, kSum, {255, 2}, 1),
        Row<uint8_t>("u8 max is unsigned", DType::kUInt8, kMax, {255, 2}, 255),
        Row<std::complex<float>>("c64 sum", DType::kComplex64, kSum,
                                 {{1, -2}, {3, 5}, {-8, 1}}, {-4, 4}),
        // In another order the one would not be lost.
        Row<std::complex<double>>("c128 sum in order", DType::kComplex128, kSum,
                                  {{2, 1e16}, {3, 1}, {4, -1e16}}, {9, 0}),
        Row<uint8_t>("bool sum is any", DType::kBool, kSum, {1, 0, 1}, 1),
        Row<uint8_t>("bool max", DType::kBool, kMax, {0, 0}, 0),
        Row<uint8_t>("bool min is all", DType::kBool, kMin, {1, 0}, 0)),
    CaseName<ReduceCase>);

TEST(AssembleGlobal, MaxOfNanIsNan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const ReduceOp op : {kMax, kMin}) {
    const auto global = AssembleGlobal(
        {DType::kFloat32, {2}}, {{Partial{op}}, {}}, Mesh({{"tp", 2}}),
        std::vector<HostTensor>{Tensor<float>(DType::kFloat32, {2}, {nan, 1}),
                                Tensor<float>(DType::kFloat32, {2}, {1, nan})});

    ASSERT_THAT(global, IsOk());
    for (const float value : Values<float>(*global)) {
      EXPECT_TRUE(std::isnan(value));
    }
  }
}

TEST(AssembleGlobal, SumsEachPartByItself) {
  // S(0) over dp, P(sum) over tp: rows by dp, each a sum of two.
  const DeviceMesh mesh = Mesh({{"dp", 2}, {"tp", 2}});
  std::vector<HostTensor> shards;
  for (const int16_t value : {1, 2, 30, 40}) {
    shards.push_back(Tensor<int16_t>(DType::kInt16, {1}, {value}));
  }

  const auto global = AssembleGlobal({DType::kInt16, {2}},
                                     {{Shard{0}, Partial{}}, {}}, mesh, shards);

  ASSERT_THAT(global, IsOk());
  EXPECT_THAT(Values<int16_t>(*global), ElementsAre(3, 70));
}

TEST(AssembleGlobal, RefusesWrongShards) {
  const DeviceMesh mesh = Mesh({{"tp", 2}});
  const DTensorSpec spec{{Shard{0}}, {}};
  const TensorType type{DType::kInt16, {3}};

  EXPECT_THAT(AssembleGlobal(type, spec, mesh, {Iota({2})}),
              StatusIs(absl::StatusCode::kInternal,
                       HasSubstr("is made of 2 shards; got: 1")));
  EXPECT_THAT(
      AssembleGlobal(type, spec, mesh, {Iota({2}), Iota({2})}),
      StatusIs(absl::StatusCode::kInternal,
               HasSubstr("rank 1's shard of a i16[3] [S(0)] on mesh [tp=2] "
                         "must be i16[1]; got: i16[2] in 4 bytes")));
}

TEST(AssembleGlobal, RefusesTheLargestComplexNumber) {
  const HostTensor one =
      Tensor<std::complex<float>>(DType::kComplex64, {1}, {{1, 0}});

  EXPECT_THAT(AssembleGlobal(one.type, {{Partial{kMax}}, {}}, Mesh({{"tp", 2}}),
                             {one, one}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("complex numbers have no order, so that a "
                                 "Partial of them must be a sum; got: "
                                 "[P(max)]")));
}

TEST(AssembleGlobal, RefusesTwoOps) {
  const DeviceMesh mesh = Mesh({{"a", 2}, {"b", 2}});

  EXPECT_THAT(
      AssembleGlobal({DType::kInt16, {1}}, {{Partial{kSum}, Partial{kMax}}, {}},
                     mesh, std::vector<HostTensor>(4, Iota({1}))),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("must have one op; got: [P(sum), P(max)]")));
}

}  // namespace
}  // namespace shardplane
