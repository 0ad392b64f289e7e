#include "worker/collectives.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/TensorOperators.h"
#include "ATen/core/Tensor.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/complex.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/full.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/zeros.h"
#include "absl/strings/str_cat.h"
#include "c10/util/Exception.h"
#include "common/tensor_spec.h"
#include "tests/matchers.h"
#include "worker/gang_for_test.h"

namespace shardplane {
namespace {

// Ends a test for which this machine has too few GPUs.
#define SKIP_UNLESS_CONNECTED(gang)                      \
  if (TooFewGpus((gang).status(), (gang).mesh().size())) \
    GTEST_SKIP() << (gang).status();                     \
  ASSERT_EQ((gang).status(), absl::OkStatus())

// What `communicator` has given is `expected`, on its device.
void ExpectIs(Communicator& communicator,
              const absl::StatusOr<at::Tensor>& actual,
              const at::Tensor& expected, const std::string& what = "") {
  ASSERT_EQ(actual.status(), absl::OkStatus()) << what;
  ASSERT_EQ(communicator.Finish(), absl::OkStatus()) << what;
  EXPECT_EQ(actual->device(), communicator.device()) << what;
  EXPECT_TRUE(actual->is_contiguous()) << what;
  EXPECT_TRUE(actual->cpu().equal(expected)) << what;
}

// The same of a sum. GPUs make it in another order; the test's values reach
// e^12, of which a float's last bit is worth 0.02.
void ExpectIsSum(Communicator& communicator,
                 const absl::StatusOr<at::Tensor>& actual,
                 const at::Tensor& expected, const std::string& what = "") {
  if (communicator.device().is_cpu()) {
    return ExpectIs(communicator, actual, expected, what);
  }
  ASSERT_EQ(actual.status(), absl::OkStatus()) << what;
  ASSERT_EQ(communicator.Finish(), absl::OkStatus()) << what;
  EXPECT_EQ(actual->device(), communicator.device()) << what;
  EXPECT_TRUE(actual->cpu().allclose(expected, 1e-5, 0.1)) << what;
}

at::Tensor On(const Communicator& communicator, const at::Tensor& tensor) {
  return tensor.defined() ? tensor.to(communicator.device()) : tensor;
}

// Different numbers of very different size: a sum's order shows in its bits.
at::Tensor Values(at::IntArrayRef shape, int rank, at::ScalarType type) {
  at::Tensor index = at::arange(c10::multiply_integers(shape), at::kDouble);
  at::Tensor values = (index * 0.7 + rank + 1).sin() *
                      ((index * 1.3 + 2 * rank).cos() * 12).exp();
  return values.to(type).view(shape);
}

at::Tensor ChunkOf(const at::Tensor& full, int64_t dim, int ranks, int rank) {
  const Extent part = Chunk(full.size(dim), ranks, rank);
  return full.narrow(dim, part.offset, part.size);
}

// The sum that one process would make, rank after rank.
at::Tensor SumOf(const std::vector<at::Tensor>& pieces) {
  at::Tensor sum = pieces[0];
  for (size_t i = 1; i < pieces.size(); ++i) sum = sum + pieces[i];
  return sum;
}

struct Case {
  int ranks;
  int64_t rows;  // of dim 0 of [rows, 3, 7]
};

class CollectivesTest : public testing::TestWithParam<Case> {
 protected:
  CollectivesTest() : gang_({{"tp", GetParam().ranks}}) {}

  int ranks() const { return GetParam().ranks; }
  std::vector<int64_t> shape() const { return {GetParam().rows, 3, 7}; }
  std::vector<at::Tensor> Pieces(at::ScalarType type = at::kFloat) const {
    std::vector<at::Tensor> pieces;
    for (int rank = 0; rank < ranks(); ++rank) {
      pieces.push_back(Values(shape(), rank, type));
    }
    return pieces;
  }

  void SetUp() override { SKIP_UNLESS_CONNECTED(gang_); }

  GangForTest gang_;
};

// What carries collectives where a test runs on such a device.
Transport Expected(const Communicator& communicator) {
  const TransportChoice choice = TransportForTest();
  if (!communicator.device().is_cpu() && choice == TransportChoice::kAuto) {
    return Transport::kNccl;
  }
  return choice == TransportChoice::kGloo ? Transport::kGloo
                                          : Transport::kSharedMemory;
}

// Otherwise the cases of one transport would run over another.
TEST_P(CollectivesTest, RunOverTheTransportOfTheTest) {
  gang_.Run([&](int rank, Communicator& communicator) {
    const std::vector<GroupTransport>& groups = gang_.groups(rank).transports();
    ASSERT_EQ(groups.size(), ranks() == 1 ? 0u : 1u);
    if (groups.empty()) return;
    EXPECT_EQ(groups[0].transport, Expected(communicator));
  });
}

TEST_P(CollectivesTest, BytesAreCountedByWhatCarriesThem) {
  const std::vector<at::Tensor> pieces = Pieces();
  const TensorType type{DType::kFloat32, shape()};
  gang_.Run([&](int rank, Communicator& communicator) {
    const at::Tensor mine = On(communicator, pieces[rank]);
    for (int i = 0; i < 2; ++i) {
      ASSERT_TRUE(communicator.AllReduce(mine, 0, ReduceOp::kSum).ok());
    }
    ASSERT_TRUE(communicator.Broadcast(mine, type, 0, 0).ok());
    const Transport transport = Expected(communicator);
    const auto bytes = static_cast<int64_t>(mine.nbytes());
    std::vector<CarriedBytes> expected = {{"all_reduce", transport, 2 * bytes},
                                          {"broadcast", transport, bytes}};
    if (ranks() == 1) expected.clear();
    EXPECT_EQ(communicator.TakeCarried(), expected);
    EXPECT_THAT(communicator.TakeCarried(), testing::IsEmpty());
  });
}

TEST_P(CollectivesTest, AllReduceSumsInRankOrder) {
  const std::vector<at::Tensor> pieces = Pieces();
  gang_.Run([&](int rank, Communicator& communicator) {
    const at::Tensor mine = On(communicator, pieces[rank]);
    ExpectIsSum(communicator, communicator.AllReduce(mine, 0, ReduceOp::kSum),
                SumOf(pieces));
    EXPECT_TRUE(mine.cpu().equal(pieces[rank])) << "the argument changed";
    const int64_t n = pieces[0].numel();
    const CollectiveRecord record{.kind = RedistributeKind::kAllReduce,
                                  .mesh_dim = 0,
                                  .dtype = DType::kFloat32,
                                  .send_elements = n,
                                  .recv_elements = n};
    EXPECT_THAT(communicator.TakeRecords(),
                ranks() == 1 ? testing::Matcher<std::vector<CollectiveRecord>>(
                                   testing::IsEmpty())
                             : testing::ElementsAre(record));
  });
}

TEST_P(CollectivesTest, AllGatherPutsChunksTogether) {
  const at::Tensor full = Values(shape(), 0, at::kFloat);
  gang_.Run([&](int rank, Communicator& communicator) {
    for (int dim = 0; dim < 3; ++dim) {
      const at::Tensor mine =
          On(communicator, ChunkOf(full, dim, ranks(), rank));
      ExpectIs(
          communicator,
          communicator.AllGather(mine.contiguous(), 0, dim, full.size(dim)),
          full, absl::StrCat("dim ", dim));
    }
  });
}

TEST_P(CollectivesTest, ReduceScatterGivesTheChunkOfTheSum) {
  const std::vector<at::Tensor> pieces = Pieces();
  const at::Tensor sum = SumOf(pieces);
  gang_.Run([&](int rank, Communicator& communicator) {
    for (int dim = 0; dim < 3; ++dim) {
      ExpectIsSum(communicator,
                  communicator.ReduceScatter(On(communicator, pieces[rank]), 0,
                                             dim, ReduceOp::kSum),
                  ChunkOf(sum, dim, ranks(), rank), absl::StrCat("dim ", dim));
    }
  });
}

TEST_P(CollectivesTest, AllToAllMovesTheCut) {
  const at::Tensor full = Values(shape(), 0, at::kDouble);
  gang_.Run([&](int rank, Communicator& communicator) {
    for (const auto& [from, to] :
         {std::pair(0, 1), std::pair(1, 0), std::pair(2, 1)}) {
      const at::Tensor mine =
          On(communicator, ChunkOf(full, from, ranks(), rank)).contiguous();
      const at::Tensor expected = ChunkOf(full, to, ranks(), rank);
      ExpectIs(communicator,
               communicator.AllToAll(mine, 0, from, to, full.size(from)),
               expected, absl::StrCat(from, " to ", to));
      const auto records = communicator.TakeRecords();
      if (ranks() == 1) continue;
      ASSERT_EQ(records.size(), 1u);
      EXPECT_EQ(records[0].send_elements, mine.numel());
      EXPECT_EQ(records[0].recv_elements, expected.numel());
    }
  });
}

// The same elements, elsewhere in memory than a contiguous tensor has them.
at::Tensor Scrambled(const at::Tensor& tensor) {
  return tensor.transpose(0, -1).contiguous().transpose(0, -1);
}

// Chunks that lie in long runs and in short ones, of both layouts; what is
// recorded counts the longest chunk for every rank.
TEST_P(CollectivesTest, AlongEveryDimOfEveryLayout) {
  if (ranks() == 1) return;  // nothing runs
  const std::vector<int64_t> shape = {3, GetParam().rows, 40};
  std::vector<at::Tensor> pieces;
  for (int rank = 0; rank < ranks(); ++rank)
    pieces.push_back(Values(shape, rank, at::kFloat));
  const at::Tensor& full = pieces[0];
  const at::Tensor sum = SumOf(pieces);
  gang_.Run([&](int rank, Communicator& communicator) {
    for (int dim = 0; dim < 3; ++dim) {
      const std::string what = absl::StrCat("dim ", dim);
      const at::Tensor chunk =
          On(communicator, ChunkOf(full, dim, ranks(), rank));
      const at::Tensor piece = On(communicator, pieces[rank]);
      for (const auto& layout : {&Scrambled, +[](const at::Tensor& tensor) {
                                   return tensor.contiguous();
                                 }}) {
        ExpectIs(communicator,
                 communicator.AllGather(layout(chunk), 0, dim, shape[dim]),
                 full, what);
        ExpectIsSum(
            communicator,
            communicator.ReduceScatter(layout(piece), 0, dim, ReduceOp::kSum),
            ChunkOf(sum, dim, ranks(), rank), what);
        const int to = (dim + 1) % 3;
        ExpectIs(communicator,
                 communicator.AllToAll(layout(chunk), 0, dim, to, shape[dim]),
                 ChunkOf(full, to, ranks(), rank), what);
        const auto records = communicator.TakeRecords();
        std::vector<int64_t> padded = shape;
        padded[dim] = (shape[dim] + ranks() - 1) / ranks();
        const int64_t elements = c10::multiply_integers(padded);
        ASSERT_EQ(records.size(), 3u);
        EXPECT_EQ(records[0].send_elements, elements);
        EXPECT_EQ(records[0].recv_elements, elements * ranks());
        EXPECT_EQ(records[1].send_elements, elements * ranks());
        EXPECT_EQ(records[1].recv_elements, elements);
      }
    }
  });
}

TEST_P(CollectivesTest, ScatterAndBroadcastComeFromTheRoot) {
  const at::Tensor full = Values(shape(), 0, at::kFloat);
  const TensorType type{DType::kFloat32, shape()};
  const int root = ranks() - 1;
  gang_.Run([&](int rank, Communicator& communicator) {
    const at::Tensor source =
        On(communicator, rank == root ? full : at::Tensor());
    for (int dim = 0; dim < 3; ++dim) {
      ExpectIs(communicator, communicator.Scatter(source, type, 0, dim, root),
               ChunkOf(full, dim, ranks(), rank), absl::StrCat("dim ", dim));
    }
    ExpectIs(communicator, communicator.Broadcast(source, type, 0, root), full);
    EXPECT_EQ(communicator.TakeMaterialized().scatters, ranks() == 1 ? 0 : 3);
  });
}

TEST_P(CollectivesTest, MovesEveryElementType) {
  gang_.Run([&](int rank, Communicator& communicator) {
    for (const at::ScalarType type :
         {at::kBool, at::kByte, at::kChar, at::kShort, at::kInt, at::kLong,
          at::kHalf, at::kBFloat16, at::kComplexFloat, at::kComplexDouble}) {
      const at::Tensor full = at::arange(10).remainder(3).to(type);
      const at::Tensor mine = On(communicator, ChunkOf(full, 0, ranks(), rank));
      ExpectIs(communicator, communicator.AllGather(mine, 0, 0, full.size(0)),
               full, c10::toString(type));
    }
  });
}

TEST_P(CollectivesTest, TimeIsTold) {
  gang_.Run([&](int, Communicator& communicator) {
    const at::Tensor mine = On(communicator, at::ones({4}));
    const auto sum = communicator.AllReduce(mine, 0, ReduceOp::kSum);
    ASSERT_EQ(sum.status(), absl::OkStatus());
    EXPECT_EQ(communicator.TakeSeconds().total() > 0, ranks() > 1);
    EXPECT_EQ(communicator.TakeSeconds().total(), 0);
  });
}

TEST_P(CollectivesTest, ReducesEveryElementType) {
  gang_.Run([&](int rank, Communicator& communicator) {
    for (const at::ScalarType type :
         {at::kByte, at::kChar, at::kShort, at::kInt, at::kLong, at::kHalf,
          at::kBFloat16, at::kDouble}) {
      const at::Tensor mine =
          On(communicator, at::full({4}, rank + 1, at::dtype(type)));
      const auto expect = [&](ReduceOp op, int value) {
        ExpectIs(communicator, communicator.AllReduce(mine, 0, op),
                 at::full({4}, value, at::dtype(type)), c10::toString(type));
      };
      expect(ReduceOp::kSum, ranks() * (ranks() + 1) / 2);
      expect(ReduceOp::kMax, ranks());
      expect(ReduceOp::kMin, 1);
    }
  });
}

// [rows, 3, 7], no two alike, and neither part zero.
at::Tensor ComplexValues(const std::vector<int64_t>& shape, int seed) {
  return at::complex(Values(shape, seed, at::kDouble),
                     Values(shape, seed + 100, at::kDouble));
}

// Conjugates too, which LibTorch keeps as numbers that are to be read so.
TEST_P(CollectivesTest, ComplexNumbersAlongEveryDim) {
  std::vector<at::Tensor> pieces;
  for (int rank = 0; rank < ranks(); ++rank) {
    pieces.push_back(ComplexValues(shape(), rank).conj());
  }
  gang_.Run([&](int rank, Communicator& communicator) {
    const at::Tensor mine = On(communicator, pieces[rank]);
    ExpectIsSum(communicator, communicator.AllReduce(mine, 0, ReduceOp::kSum),
                SumOf(pieces));
    for (int dim = 0; dim < 3; ++dim) {
      const std::string where = absl::StrCat("dim ", dim);
      const at::Tensor& full = pieces[0];
      const at::Tensor chunk =
          On(communicator, ChunkOf(full, dim, ranks(), rank));
      ExpectIs(communicator,
               communicator.AllGather(chunk, 0, dim, full.size(dim)), full,
               where);
      ExpectIs(
          communicator,
          communicator.AllToAll(chunk, 0, dim, (dim + 1) % 3, full.size(dim)),
          ChunkOf(full, (dim + 1) % 3, ranks(), rank), where);
      ExpectIsSum(communicator,
                  communicator.ReduceScatter(mine, 0, dim, ReduceOp::kSum),
                  ChunkOf(SumOf(pieces), dim, ranks(), rank));
      ExpectIs(communicator,
               communicator.Scatter(On(communicator, full),
                                    {DType::kComplex128, shape()}, 0, dim, 0),
               ChunkOf(full, dim, ranks(), rank), where);
    }
    ExpectIs(communicator,
             communicator.Broadcast(On(communicator, pieces[0]),
                                    {DType::kComplex128, shape()}, 0, 0),
             pieces[0]);
    for (const CollectiveRecord& record : communicator.TakeRecords()) {
      EXPECT_EQ(record.dtype, DType::kComplex128);
    }
  });
}

TEST_P(CollectivesTest, ComplexNumbersHaveNoLargest) {
  if (ranks() == 1) return;  // nothing runs
  gang_.Run([&](int, Communicator& communicator) {
    const at::Tensor mine = On(communicator, at::ones({4}, at::kComplexDouble));
    EXPECT_FALSE(communicator.AllReduce(mine, 0, ReduceOp::kMax).ok());
  });
}

// Also where a dim has one element, whose stride means nothing, results lie as
// new tensors do: operators choose among ways of other roundings by strides,
// and transports are to give the same bits.
TEST_P(CollectivesTest, ResultsLieAsNewTensorsDo) {
  if (ranks() == 1) return;  // nothing runs
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{1, 5, 12}, {6, 1, 12}, {1, 1, 4}, {1, 64, 1}}) {
    const at::Tensor full = Values(shape, 0, at::kDouble);
    gang_.Run([&](int rank, Communicator& communicator) {
      for (int dim = 0; dim < 3; ++dim) {
        const int64_t size = shape[dim];
        const at::Tensor chunk =
            On(communicator, ChunkOf(full, dim, ranks(), rank));
        const int to = (dim + 1) % 3;
        for (const auto& result :
             {communicator.AllGather(chunk, 0, dim, size),
              communicator.ReduceScatter(On(communicator, full), 0, dim,
                                         ReduceOp::kSum),
              communicator.AllToAll(chunk, 0, dim, to, size)}) {
          ASSERT_TRUE(result.ok()) << result.status();
          EXPECT_EQ(result->strides(), at::empty(result->sizes()).strides())
              << absl::StrCat("dim ", dim);
        }
      }
    });
  }
}

INSTANTIATE_TEST_SUITE_P(RanksAndRows, CollectivesTest,
                         testing::Values(Case{1, 5}, Case{2, 8}, Case{3, 5},
                                         Case{4, 5}, Case{4, 2}, Case{3, 0},
                                         Case{4, 9000}),
                         [](const testing::TestParamInfo<Case>& info) {
                           return absl::StrCat("Ranks", info.param.ranks,
                                               "Rows", info.param.rows);
                         });

TEST(CommunicatorTest, RunsAlongOneMeshDimAlone) {
  GangForTest gang({{"dp", 2}, {"tp", 2}});
  SKIP_UNLESS_CONNECTED(gang);
  gang.Run([&](int rank, Communicator& communicator) {
    const at::Tensor mine =
        On(communicator, at::full({1}, 1 << rank, at::kFloat));
    const auto expect = [&](int mesh_dim, float sum) {
      ExpectIs(communicator,
               communicator.AllReduce(mine, mesh_dim, ReduceOp::kSum),
               at::full({1}, sum, at::kFloat));
    };
    expect(1, rank < 2 ? 1 + 2 : 4 + 8);
    expect(0, rank % 2 == 0 ? 1 + 4 : 2 + 8);
  });
}

TEST(CommunicatorTest, ShardOfAnotherSizeIsRefused) {
  GangForTest gang({{"tp", 2}});
  SKIP_UNLESS_CONNECTED(gang);
  gang.Run([&](int, Communicator& communicator) {
    auto all =
        communicator.AllGather(On(communicator, at::zeros({4})), 0, 0, 5);
    EXPECT_EQ(all.status().code(), absl::StatusCode::kInvalidArgument);
  });
}

// Whose calls all throw what `fail` throws.
class FailingGroup : public ProcessGroup {
 public:
  explicit FailingGroup(void (*fail)()) : ProcessGroup(0, 2), fail_(fail) {}

  at::Tensor AllReduce(const at::Tensor& input, ReduceOp) override {
    fail_();
    return input;
  }
  at::Tensor ReduceScatter(const at::Tensor& input, ReduceOp) override {
    fail_();
    return input;
  }
  void AllGather(const at::Tensor&, const at::Tensor&) override { fail_(); }
  void AllToAll(const at::Tensor&, const at::Tensor&, absl::Span<const int64_t>,
                absl::Span<const int64_t>) override {
    fail_();
  }
  void Scatter(const at::Tensor&, const at::Tensor&, int) override { fail_(); }
  void Broadcast(const at::Tensor&, int) override { fail_(); }
  void Finish() override { fail_(); }
  void Abort() override {}

 private:
  void (*const fail_)();
};

TEST(CommunicatorTest, APeerIsToBlameForAllButTheRanksOwnDevice) {
  const auto expect = [](void (*fail)(), absl::StatusCode code,
                         const std::string& reason) {
    std::vector<std::unique_ptr<ProcessGroup>> made;
    made.push_back(std::make_unique<FailingGroup>(fail));
    ProcessGroups groups(std::move(made), {{.mesh_dim = "tp", .why = ""}});
    Communicator communicator(&groups, *DeviceMesh::Create({{"tp", 2}}), 0);
    const auto is_told = testing::AllOf(
        StatusIs(code, testing::HasSubstr("on mesh dim tp at rank 0: no luck")),
        HasReason(reason));
    EXPECT_THAT(communicator.AllReduce(at::zeros({4}), 0, ReduceOp::kSum),
                is_told);
    EXPECT_THAT(communicator.Finish(), is_told);
  };
  expect(
      [] {
        throw c10::AcceleratorError({__func__, __FILE__, __LINE__}, 719,
                                    "no luck");
      },
      absl::StatusCode::kInternal, "DEVICE_FAILED");
  // Of a call that the device refuses, not of the device.
  expect(
      [] {
        throw c10::AcceleratorError({__func__, __FILE__, __LINE__}, 9,
                                    "no luck");
      },
      absl::StatusCode::kInternal, "DEVICE_REFUSED");
  expect(
      [] {
        throw c10::AcceleratorError({__func__, __FILE__, __LINE__}, 2,
                                    "no luck");
      },
      absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY");
  expect([] { TORCH_CHECK_WITH(OutOfMemoryError, false, "no luck"); },
         absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY");
  expect([] { TORCH_CHECK_WITH(DistBackendError, false, "no luck"); },
         absl::StatusCode::kUnavailable, "PEER_UNREACHABLE");
}

TEST(CommunicatorTest, AbortEndsAWaitForAPeerThatDoesNotCome) {
  GangForTest gang({{"tp", 2}});
  SKIP_UNLESS_CONNECTED(gang);
  gang.Run([&](int rank, Communicator& communicator) {
    if (rank == 1) {
      gang.groups(0).Abort();
      return;
    }
    absl::Status status =
        communicator
            .AllReduce(On(communicator, at::zeros({4})), 0, ReduceOp::kSum)
            .status();
    status.Update(communicator.Finish());
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()),
                testing::HasSubstr("mesh dim tp at rank 0"));
  });
}

}  // namespace
}  // namespace shardplane
