#include "worker/shm/shm_backend.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/core/Tensor.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/empty_like.h"
#include "ATen/ops/equal.h"
#include "ATen/ops/full.h"
#include "ATen/ops/rand.h"
#include "ATen/ops/zeros.h"
#include "c10/util/Exception.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/shm/reductions.h"
#include "worker/shm/shm_calls.h"
#include "worker/shm/shm_group_for_test.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Tensors = std::vector<at::Tensor>;
using Work = c10::intrusive_ptr<c10d::Work>;
using c10d::ReduceOp;
using std::chrono::milliseconds;

// Slots so small that some thousand elements take many chunks.
constexpr int64_t kSlotBytes = 4096;
// Nothing, little, up to the one-shot limit, just beyond it, and much.
constexpr int64_t kSizes[] = {
    0, 1, 7, kShmOneShotBytes / 4, kShmOneShotBytes / 4 + 1, 30'001};

// What a call throws: its type and message.
std::string Thrown(const std::function<void()>& call) {
  try {
    call();
  } catch (const c10::ValueError& error) {
    return std::string("ValueError: ") + error.what_without_backtrace();
  } catch (const c10::DistBackendError& error) {
    return std::string("DistBackendError: ") + error.what_without_backtrace();
  }
  return "nothing";
}

bool SameBits(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         at::equal(a.contiguous().view({-1}).view(at::kByte),
                   b.contiguous().view({-1}).view(at::kByte));
}

// What that rank puts in: always the same for the same arguments.
at::Tensor Input(int rank, int64_t elements, at::ScalarType type = at::kFloat,
                 int salt = 0) {
  auto generator =
      at::make_generator<at::CPUGeneratorImpl>(1000 * (salt + 1) + rank);
  const at::Tensor values =
      at::rand({elements}, generator, at::dtype(at::kDouble)).mul(200).sub(90);
  return type == at::kBool ? values.gt(0) : values.to(type);
}

Tensors Inputs(int ranks, int64_t elements, at::ScalarType type = at::kFloat,
               int salt = 0) {
  Tensors inputs;
  for (int rank = 0; rank < ranks; ++rank)
    inputs.push_back(Input(rank, elements, type, salt));
  return inputs;
}

// By ReducerOf, which has tests of its own.
at::Tensor Reduced(const Tensors& pieces, ReduceOp::RedOpType op) {
  const ShmReducer reducer =
      ReducerOf(pieces[0].scalar_type(), static_cast<ShmReduction>(op)).value();
  at::Tensor out = at::empty_like(pieces[0]);
  std::vector<const std::byte*> in;
  for (const at::Tensor& piece : pieces)
    in.push_back(static_cast<const std::byte*>(piece.data_ptr()));
  reducer.function(static_cast<std::byte*>(out.data_ptr()), in.data(),
                   static_cast<int>(in.size()), out.numel());
  return out;
}

// A group whose ranks are threads.
class Group {
 public:
  explicit Group(int ranks, milliseconds timeout = std::chrono::seconds(60)) {
    auto memory = ShmGroupForTest(ranks, {.slot_bytes = kSlotBytes});
    for (int rank = 0; rank < ranks; ++rank) {
      backends_.push_back(c10::make_intrusive<ShmBackend>(
          rank, std::move(memory[rank]), timeout));
    }
  }

  void Run(const std::function<void(int, c10d::Backend&)>& body) {
    OnEachRank(static_cast<int>(backends_.size()),
               [&](int rank) { body(rank, *backends_[rank]); });
  }
  c10d::Backend& operator[](int rank) { return *backends_[rank]; }
  void Leave(int rank) { backends_[rank].reset(); }

 private:
  std::vector<c10::intrusive_ptr<c10d::Backend>> backends_;
};

class ShmBackendTest : public ::testing::TestWithParam<int> {
 protected:
  int ranks() const { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Ranks, ShmBackendTest, ::testing::Range(1, 5));

Work AllReduce(c10d::Backend& backend, at::Tensor tensor,
               ReduceOp::RedOpType op = ReduceOp::SUM) {
  Tensors tensors = {std::move(tensor)};
  c10d::AllreduceOptions options;
  options.reduceOp = op;
  return backend.allreduce(tensors, options);
}

TEST_P(ShmBackendTest, AllReduceOfEverySize) {
  Group(ranks()).Run([&](int rank, c10d::Backend& backend) {
    for (const int64_t size : kSizes) {
      const at::Tensor tensor = Input(rank, size);
      EXPECT_TRUE(AllReduce(backend, tensor)->wait());
      EXPECT_TRUE(
          SameBits(tensor, Reduced(Inputs(ranks(), size), ReduceOp::SUM)))
          << size;
    }
  });
}

TEST_P(ShmBackendTest, AllReduceIntoAnotherTensor) {
  Group(ranks()).Run([&](int rank, c10d::Backend& backend) {
    for (const int64_t size : kSizes) {
      const at::Tensor input = Input(rank, size);
      const at::Tensor output = at::empty_like(input);
      static_cast<ShmBackend&>(backend).Run(
          AllReduceCall(input, output, ReduceOp::SUM));
      EXPECT_TRUE(
          SameBits(output, Reduced(Inputs(ranks(), size), ReduceOp::SUM)));
      EXPECT_TRUE(SameBits(input, Input(rank, size)));
    }
  });
}

TEST_P(ShmBackendTest, AllReduceOfEveryTypeAndReduction) {
  Group(ranks()).Run([&](int rank, c10d::Backend& backend) {
    for (const at::ScalarType type :
         {at::kBool, at::kByte, at::kChar, at::kShort, at::kInt, at::kLong,
          at::kHalf, at::kBFloat16, at::kFloat, at::kDouble, at::kComplexFloat,
          at::kComplexDouble, at::kFloat8_e4m3fn}) {
      for (int op = ReduceOp::SUM; op <= ReduceOp::BXOR; ++op) {
        const auto reduction = static_cast<ReduceOp::RedOpType>(op);
        if (!ReducerOf(type, static_cast<ShmReduction>(op)).ok()) {
          EXPECT_THAT(
              Thrown([&] { AllReduce(backend, Input(0, 5, type), reduction); }),
              HasSubstr("ValueError: shared memory: expected a reduction"));
          continue;
        }
        for (const int64_t size : {3, 5000}) {
          const at::Tensor tensor = Input(rank, size, type);
          AllReduce(backend, tensor, reduction)->wait();
          EXPECT_TRUE(
              SameBits(tensor, Reduced(Inputs(ranks(), size, type), reduction)))
              << type << " " << op << " " << size;
        }
      }
    }
  });
}

TEST_P(ShmBackendTest, AllReduceCoalesced) {
  Group(ranks()).Run([&](int rank, c10d::Backend& backend) {
    Tensors tensors;
    for (const int64_t size : kSizes)
      tensors.push_back(Input(rank, size, at::kDouble));
    c10d::AllreduceCoalescedOptions options;
    options.reduceOp = ReduceOp::MAX;
    const Work work = backend.allreduce_coalesced(tensors, options);
    EXPECT_TRUE(work->wait());
    EXPECT_EQ(work->result().size(), std::size(kSizes));
    for (size_t i = 0; i < std::size(kSizes); ++i) {
      EXPECT_TRUE(SameBits(
          tensors[i],
          Reduced(Inputs(ranks(), kSizes[i], at::kDouble), ReduceOp::MAX)));
    }
  });
}

TEST_P(ShmBackendTest, ReduceAndBroadcastAtEveryRoot) {
  Group(ranks()).Run([&](int rank, c10d::Backend& backend) {
    for (int root = 0; root < ranks(); ++root) {
      for (const int64_t size : kSizes) {
        Tensors reduced = {Input(rank, size)};
        c10d::ReduceOptions to;
        to.rootRank = root;
        to.reduceOp = ReduceOp::PRODUCT;
        backend.reduce(reduced, to)->wait();
        EXPECT_TRUE(SameBits(
            reduced[0], rank == root
                            ? Reduced(Inputs(ranks(), size), ReduceOp::PRODUCT)
                            : Input(rank, size)));
        Tensors sent = {Input(rank, size)};
        c10d::BroadcastOptions from;
        from.rootRank = root;
        backend.broadcast(sent, from)->wait();
        EXPECT_TRUE(SameBits(sent[0], Input(root, size)));
      }
    }
  });
}

// Uneven, and one with nothing.
int64_t UnevenSize(int rank) { return rank == 1 ? 0 : 700 * rank * rank + 3; }

TEST_P(ShmBackendTest, AllGatherOfUnevenSizes) {
  Group(ranks()).Run([&](int rank, c10d::Backend& backend) {
    Tensors inputs = {Input(rank, UnevenSize(rank), at::kShort)};
    std::vector<Tensors> outputs(1);
    for (int from = 0; from < ranks(); ++from)
      outputs[0].push_back(at::empty({UnevenSize(from)}, at::kShort));
    backend.allgather(outputs, inputs)->wait();
    for (int from = 0; from < ranks(); ++from) {
      EXPECT_TRUE(SameBits(outputs[0][from],
                           Input(from, UnevenSize(from), at::kShort)));
    }
  });
}

TEST_P(ShmBackendTest, AllGatherIntoOneTensor) {
  Group(ranks()).Run([&](int rank, c10d::Backend& backend) {
    Tensors inputs, outputs, expected;
    for (const int64_t size : kSizes) {
      inputs.push_back(Input(rank, size));
      outputs.push_back(at::empty({ranks() * size}));
      expected.push_back(at::cat(Inputs(ranks(), size)));
      backend._allgather_base(outputs.back(), inputs.back())->wait();
      EXPECT_TRUE(SameBits(outputs.back(), expected.back()));
      outputs.back().zero_();
    }
    backend.allgather_into_tensor_coalesced(outputs, inputs)->wait();
    for (size_t i = 0; i < outputs.size(); ++i)
      EXPECT_TRUE(SameBits(outputs[i], expected[i]));
  });
}

TEST_P(ShmBackendTest, AllGatherInPlace) {
  Group(ranks()).Run([&](int rank, c10d::Backend& backend) {
    at::Tensor all = at::zeros({ranks(), 3000});
    at::Tensor own = all[rank];
    own.copy_(Input(rank, 3000));
    backend._allgather_base(all, own)->wait();
    EXPECT_TRUE(SameBits(all.flatten(), at::cat(Inputs(ranks(), 3000))));
  });
}

TEST_P(ShmBackendTest, GatherAndScatterAtEveryRoot) {
  Group(ranks()).Run([&](int rank, c10d::Backend& backend) {
    for (int root = 0; root < ranks(); ++root) {
      for (const int64_t size : kSizes) {
        Tensors inputs = {Input(rank, size)};
        std::vector<Tensors> gathered;
        if (rank == root) {
          gathered.resize(1);
          for (int i = 0; i < ranks(); ++i)
            gathered[0].push_back(at::empty({size}));
        }
        c10d::GatherOptions to;
        to.rootRank = root;
        backend.gather(gathered, inputs, to)->wait();
        for (int i = 0; i < ranks() && rank == root; ++i)
          EXPECT_TRUE(SameBits(gathered[0][i], Input(i, size)));

        Tensors outputs = {at::empty({size})};
        std::vector<Tensors> scattered;
        if (rank == root) scattered = {Inputs(ranks(), size)};
        c10d::ScatterOptions from;
        from.rootRank = root;
        backend.scatter(outputs, scattered, from)->wait();
        EXPECT_TRUE(SameBits(outputs[0], Input(rank, size)));
      }
    }
  });
}

TEST_P(ShmBackendTest, ReduceScatterOfUnevenSizes) {
  Group(ranks()).Run([&](int rank, c10d::Backend& backend) {
    Tensors outputs = {at::empty({UnevenSize(rank)})};
    std::vector<Tensors> inputs(1);
    for (int to = 0; to < ranks(); ++to)
      inputs[0].push_back(Input(rank, UnevenSize(to), at::kFloat, to));
    backend.reduce_scatter(outputs, inputs)->wait();
    EXPECT_TRUE(SameBits(
        outputs[0], Reduced(Inputs(ranks(), UnevenSize(rank), at::kFloat, rank),
                            ReduceOp::SUM)));
  });
}

TEST_P(ShmBackendTest, ReduceScatterOfOneTensor) {
  Group(ranks()).Run([&](int rank, c10d::Backend& backend) {
    c10d::ReduceScatterOptions options;
    options.reduceOp = ReduceOp::AVG;
    Tensors inputs, outputs, expected;
    for (const int64_t size : kSizes) {
      inputs.push_back(Input(rank, ranks() * size, at::kBFloat16));
      outputs.push_back(at::empty({size}, at::kBFloat16));
      expected.push_back(
          Reduced(Inputs(ranks(), ranks() * size, at::kBFloat16), ReduceOp::AVG)
              .narrow(0, rank * size, size));
      backend._reduce_scatter_base(outputs.back(), inputs.back(), options)
          ->wait();
      EXPECT_TRUE(SameBits(outputs.back(), expected.back()));
      outputs.back().zero_();
    }
    backend.reduce_scatter_tensor_coalesced(outputs, inputs, options)->wait();
    for (size_t i = 0; i < outputs.size(); ++i)
      EXPECT_TRUE(SameBits(outputs[i], expected[i]));
  });
}

// Rows that travel between two ranks.
int64_t Rows(int from, int to) { return (from * 3 + to * 5) % 4 * 111; }

TEST_P(ShmBackendTest, AllToAllOfUnevenSizes) {
  Group(ranks()).Run([&](int rank, c10d::Backend& backend) {
    Tensors inputs, outputs, expected;
    std::vector<int64_t> input_splits, output_splits;
    for (int other = 0; other < ranks(); ++other) {
      inputs.push_back(
          Input(rank, Rows(rank, other) * 3, at::kLong, other).view({-1, 3}));
      outputs.push_back(at::empty({Rows(other, rank), 3}, at::kLong));
      expected.push_back(
          Input(other, Rows(other, rank) * 3, at::kLong, rank).view({-1, 3}));
      input_splits.push_back(Rows(rank, other));
      output_splits.push_back(Rows(other, rank));
    }
    backend.alltoall(outputs, inputs)->wait();
    for (int from = 0; from < ranks(); ++from)
      EXPECT_TRUE(SameBits(outputs[from], expected[from]));

    at::Tensor input = at::cat(inputs);
    at::Tensor output = at::empty_like(at::cat(expected));
    backend.alltoall_base(output, input, output_splits, input_splits)->wait();
    EXPECT_TRUE(SameBits(output, at::cat(expected)));
  });
}

TEST_P(ShmBackendTest, AllToAllOfEqualParts) {
  Group(ranks()).Run([&](int rank, c10d::Backend& backend) {
    std::vector<int64_t> none;
    for (const int64_t size : kSizes) {
      at::Tensor input = Input(rank, ranks() * size).view({ranks(), size});
      at::Tensor output = at::empty_like(input);
      backend.alltoall_base(output, input, none, none)->wait();
      for (int from = 0; from < ranks(); ++from) {
        EXPECT_TRUE(
            SameBits(output[from],
                     Input(from, ranks() * size).view({ranks(), size})[rank]));
      }
    }
  });
}

TEST_P(ShmBackendTest, BarrierWaitsForAll) {
  constexpr int kRounds = 200;
  std::vector<std::atomic<int>> arrived(kRounds);
  Group(ranks()).Run([&](int, c10d::Backend& backend) {
    for (int round = 0; round < kRounds; ++round) {
      ++arrived[round];
      backend.barrier()->wait();
      EXPECT_EQ(arrived[round], ranks());
    }
  });
}

TEST_P(ShmBackendTest, WorksAreWaitedForInAnyOrder) {
  constexpr int kWorks = 40;
  Group(ranks()).Run([&](int rank, c10d::Backend& backend) {
    Tensors tensors;
    std::vector<Work> works;
    for (int i = 0; i < kWorks; ++i) {
      tensors.push_back(Input(rank, 37 * i * i, at::kFloat, i));
      works.push_back(AllReduce(backend, tensors.back()));
    }
    // Each rank another order: a third looks, a third waits, the rest is done
    // with these.
    for (int i = 0; i < kWorks; ++i) {
      Work& work = works[(i * 7 + rank * 13) % kWorks];
      if (i % 3 == 0) {
        while (!work->isCompleted()) std::this_thread::yield();
      } else if (i % 3 == 1) {
        work->wait();
      }
    }
    for (int i = 0; i < kWorks; ++i) {
      EXPECT_TRUE(works[i]->wait());
      EXPECT_TRUE(works[i]->isCompleted());
      EXPECT_TRUE(works[i]->isSuccess());
      EXPECT_TRUE(works[i]->result()[0].is_same(tensors[i]));
      EXPECT_TRUE(SameBits(
          tensors[i],
          Reduced(Inputs(ranks(), 37 * i * i, at::kFloat, i), ReduceOp::SUM)));
    }
  });
}

TEST_P(ShmBackendTest, BuffersLiveAsLongAsTheyAreUsed) {
  Group(ranks()).Run([&](int rank, c10d::Backend& backend) {
    at::Tensor output = at::empty({ranks() * 5000});
    at::Tensor input = Input(rank, 5000);
    const at::Tensor observed = input;
    // Neither the work nor the input are kept by the caller.
    backend._allgather_base(output, input);
    input = at::Tensor();
    EXPECT_EQ(observed.use_count(), 2u);
    backend.barrier()->wait();
    EXPECT_TRUE(SameBits(output, at::cat(Inputs(ranks(), 5000))));
    EXPECT_EQ(observed.use_count(), 1u);
    EXPECT_EQ(output.use_count(), 1u);
  });
}

TEST_P(ShmBackendTest, AWorkMayBeWaitedForByAnotherThread) {
  Group(ranks()).Run([&](int rank, c10d::Backend& backend) {
    const at::Tensor tensor = Input(rank, 20'000);
    const Work work = AllReduce(backend, tensor);
    std::thread([&] { work->wait(); }).join();
    EXPECT_TRUE(
        SameBits(tensor, Reduced(Inputs(ranks(), 20'000), ReduceOp::SUM)));
  });
}

// What is refused before anything starts.
struct Refused {
  const char* name;
  std::function<void(c10d::Backend&)> call;
  const char* message;
};
void PrintTo(const Refused& refused, std::ostream* out) {
  *out << refused.name;
}

class ShmBackendRefusesTest : public ::testing::TestWithParam<Refused> {};

TEST_P(ShmBackendRefusesTest, WhatDoesNotFit) {
  Group group(2);
  group.Run([&](int, c10d::Backend& backend) {
    EXPECT_THAT(Thrown([&] { GetParam().call(backend); }),
                AllOf(HasSubstr("ValueError: shared memory: expected "),
                      HasSubstr(GetParam().message)));
  });
  group.Run([&](int rank, c10d::Backend& backend) {
    const at::Tensor tensor = at::full({3}, rank + 1.0);
    AllReduce(backend, tensor)->wait();
    EXPECT_TRUE(at::equal(tensor, at::full({3}, 3.0)));
  });
}

std::string NameOf(const ::testing::TestParamInfo<Refused>& info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(
    Calls, ShmBackendRefusesTest,
    ::testing::Values(
        Refused{"Strided",
                [](c10d::Backend& backend) {
                  AllReduce(backend, at::zeros({4, 4}).t());
                },
                "a dense, contiguous tensor; got: another layout"},
        Refused{"Conjugate",
                [](c10d::Backend& backend) {
                  AllReduce(backend, at::zeros({4}, at::kComplexFloat).conj());
                },
                "a dense, contiguous tensor"},
        Refused{"Sparse",
                [](c10d::Backend& backend) {
                  AllReduce(backend, at::zeros({4}).to_sparse());
                },
                "a dense, contiguous tensor"},
        Refused{"OtherDevice",
                [](c10d::Backend& backend) {
                  AllReduce(backend, at::zeros({4}, at::kMeta));
                },
                "a tensor on the CPU; got: meta"},
        Refused{"Undefined",
                [](c10d::Backend& backend) { AllReduce(backend, {}); },
                "a tensor; got: an undefined one"},
        Refused{"TwoDevices",
                [](c10d::Backend& backend) {
                  Tensors two(2, at::zeros({1}));
                  backend.allreduce(two);
                },
                "lists of one entry; got: 2"},
        Refused{"Reduction",
                [](c10d::Backend& backend) {
                  AllReduce(backend, at::zeros({4}, at::kLong), ReduceOp::AVG);
                },
                "got: avg of Long"},
        Refused{"UnusedReduction",
                [](c10d::Backend& backend) {
                  AllReduce(backend, at::zeros({4}), ReduceOp::UNUSED);
                },
                "a reduction of CPUs; got: 9"},
        Refused{"Root",
                [](c10d::Backend& backend) {
                  Tensors tensors = {at::zeros({1})};
                  c10d::BroadcastOptions options;
                  options.rootRank = 2;
                  backend.broadcast(tensors, options);
                },
                "a root from 0 to 1; got: 2"},
        Refused{"GatheredSize",
                [](c10d::Backend& backend) {
                  at::Tensor input = at::zeros({4});
                  at::Tensor output = at::zeros({7});
                  backend._allgather_base(output, input);
                },
                "an output of 8 elements; got: 7"},
        Refused{
            "GatheredOwnSize",
            [](c10d::Backend& backend) {
              Tensors inputs = {at::zeros({4})};
              std::vector<Tensors> outputs = {{at::zeros({5}), at::zeros({5})}};
              backend.allgather(outputs, inputs);
            },
            "an output of 16 bytes for this rank; got: 20"},
        Refused{"GatheredType",
                [](c10d::Backend& backend) {
                  at::Tensor input = at::zeros({4});
                  at::Tensor output = at::zeros({8}, at::kInt);
                  backend._allgather_base(output, input);
                },
                "tensors of one element type; got: Int"},
        Refused{"GatheredCount",
                [](c10d::Backend& backend) {
                  Tensors inputs = {at::zeros({4})};
                  std::vector<Tensors> outputs = {{at::zeros({4})}};
                  backend.allgather(outputs, inputs);
                },
                "2 tensors in the list; got: 1"},
        Refused{"ScatteredOnOtherRanks",
                [](c10d::Backend& backend) {
                  Tensors outputs = {at::zeros({4})};
                  std::vector<Tensors> inputs(1);
                  c10d::ScatterOptions options;
                  options.rootRank = 1 - backend.getRank();
                  backend.scatter(outputs, inputs, options);
                },
                "no list on a rank that is not the root; got: 1"},
        Refused{"ReducedSize",
                [](c10d::Backend& backend) {
                  at::Tensor input = at::zeros({9});
                  at::Tensor output = at::zeros({4});
                  backend._reduce_scatter_base(output, input);
                },
                "an input of 8 elements; got: 9"},
        Refused{
            "ReducedOwnSize",
            [](c10d::Backend& backend) {
              Tensors outputs = {at::zeros({4})};
              std::vector<Tensors> inputs = {{at::zeros({5}), at::zeros({5})}};
              backend.reduce_scatter(outputs, inputs);
            },
            "an input of 16 bytes for this rank; got: 20"},
        Refused{"Splits",
                [](c10d::Backend& backend) {
                  at::Tensor tensor = at::zeros({4, 2});
                  std::vector<int64_t> splits = {1, 2};
                  backend.alltoall_base(tensor, tensor, splits, splits);
                },
                "a first dim of 3, the sum of the splits; got: [4, 2]"},
        Refused{"NegativeSplits",
                [](c10d::Backend& backend) {
                  at::Tensor tensor = at::zeros({4});
                  std::vector<int64_t> splits = {5, -1};
                  backend.alltoall_base(tensor, tensor, splits, splits);
                },
                "splits that are not negative; got: -1"},
        Refused{"NoEqualParts",
                [](c10d::Backend& backend) {
                  at::Tensor tensor = at::zeros({3, 2});
                  std::vector<int64_t> none;
                  backend.alltoall_base(tensor, tensor, none, none);
                },
                "a first dim that is a multiple of 2; got: [3, 2]"},
        Refused{"OwnPartOfAllToAll",
                [](c10d::Backend& backend) {
                  Tensors inputs = {at::zeros({1}), at::zeros({1})};
                  Tensors outputs = {at::zeros({2}), at::zeros({2})};
                  backend.alltoall(outputs, inputs);
                },
                "4 bytes for what this rank sends to itself; got: 8"}),
    NameOf);

// Once broken, always broken: by wait, by look and by start.
void ExpectBroken(c10d::Backend& backend, const Work& work,
                  const std::string& message) {
  const auto expected =
      AllOf(HasSubstr("DistBackendError: "), HasSubstr(message));
  EXPECT_THAT(Thrown([&] { work->wait(); }), expected);
  EXPECT_THAT(Thrown([&] { work->wait(); }), expected);
  EXPECT_TRUE(work->isCompleted());
  EXPECT_FALSE(work->isSuccess());
  EXPECT_NE(work->exception(), nullptr);
  EXPECT_THAT(Thrown([&] { backend.barrier(); }), expected);
}

TEST(ShmBackendFailureTest, RanksThatCallDifferentCollectives) {
  Group group(2);
  group.Run([&](int rank, c10d::Backend& backend) {
    EXPECT_THAT(
        Thrown([&] { AllReduce(backend, at::zeros({4 + rank}))->wait(); }),
        HasSubstr("DistBackendError: shared memory: expected"));
  });
  // The first of them to look found it.
  std::string both;
  for (int rank : {0, 1})
    both += Thrown([&] { AllReduce(group[rank], at::zeros({1})); });
  EXPECT_THAT(both, HasSubstr("the same collective on all ranks"));
}

TEST(ShmBackendFailureTest, ARankThatLeaves) {
  Group group(3);
  const Work work = AllReduce(group[0], at::zeros({4}));
  EXPECT_FALSE(work->isCompleted());
  const Work other = AllReduce(group[1], at::zeros({4}));
  group.Leave(2);
  ExpectBroken(group[0], work, "expected rank 2 of the group, got: it has");
  ExpectBroken(group[1], other, "expected rank 2 of the group, got: it has");
}

TEST(ShmBackendFailureTest, LookingTellsOfARankThatHasLeft) {
  Group group(2);
  const Work work = group[0].barrier();
  group.Leave(1);
  EXPECT_TRUE(work->isCompleted());
  EXPECT_FALSE(work->isSuccess());
}

TEST(ShmBackendFailureTest, AbortEndsWaitsHereAndElsewhere) {
  Group group(3);
  const Work here = AllReduce(group[0], at::zeros({4}));
  const Work there = AllReduce(group[1], at::zeros({4}));
  std::thread waits_here([&] { ExpectBroken(group[0], here, "got: Abort"); });
  std::thread waits_there([&] {
    // For rank 2 too, which never comes.
    EXPECT_THAT(Thrown([&] { there->wait(milliseconds(100)); }),
                HasSubstr("expected rank 2 of the group within 100 ms"));
  });
  group[0].abort();
  waits_here.join();
  waits_there.join();
  // What they did before is there.
  EXPECT_TRUE(AllReduce(group[2], at::zeros({4}))->wait());
  ExpectBroken(group[2], group[2].barrier(),
               "of the group, got: it has died or left");
}

TEST(ShmBackendFailureTest, AWaitHasATimeout) {
  Group group(2, milliseconds(20));
  ExpectBroken(group[0], AllReduce(group[0], at::zeros({4})), "within 20 ms");
}

TEST(ShmBackendFailureTest, ACallAndAWaitMayHaveTheirOwn) {
  {
    Group group(2);
    Tensors tensors = {at::zeros({4})};
    c10d::AllreduceOptions options;
    options.timeout = milliseconds(5);
    ExpectBroken(group[0], group[0].allreduce(tensors, options), "within 5 ms");
  }
  Group group(2);
  const Work work = AllReduce(group[0], at::zeros({4}));
  EXPECT_THAT(Thrown([&] { work->wait(milliseconds(6)); }),
              HasSubstr("within 6 ms"));
}

TEST(ShmBackendFailureTest, WorksOutliveTheirBackend) {
  Group group(2);
  const Work work = group[0].barrier();
  group.Leave(0);
  EXPECT_THAT(Thrown([&] { work->wait(); }), HasSubstr("got: Abort"));
}

TEST(ShmBackendNameTest, IsShm) {
  Group group(1);
  EXPECT_EQ(group[0].getBackendName(), "shm");
}

}  // namespace
}  // namespace shardplane
