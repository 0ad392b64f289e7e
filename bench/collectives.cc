// One collective by some processes: over shared memory, over Gloo, and as bare
// moves, in turns. Rank 0 prints one JSON object: side -> seconds a collective,
// one a round.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/Parallel.h"
#include "ATen/core/Tensor.h"
#include "ATen/ops/allclose.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/full.h"
#include "ATen/ops/zeros.h"
#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "bench/bare_moves.h"
#include "torch/csrc/distributed/c10d/FileStore.hpp"
#include "torch/csrc/distributed/c10d/ProcessGroupGloo.hpp"
#include "worker/shm/peer_watch.h"
#include "worker/shm/rendezvous.h"
#include "worker/shm/segment.h"
#include "worker/shm/shm_backend.h"
#include "worker/shm/shm_calls.h"

namespace shardplane {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kSlotBytes = 256 * 1024;
constexpr int kMaxIterations = 2000;

struct Options {
  int ranks = 2;
  std::string op = "all_reduce";
  int64_t bytes = 4096;  // of the larger buffer of a rank
  int rounds = 11;
  double seconds = 0.05;  // of a side in a round, about
};

// The buffers of one rank: f32.
struct Buffers {
  Buffers(at::Tensor from, at::Tensor to)
      : input(std::move(from)), output(std::move(to)), outputs{output} {}

  at::Tensor input;
  at::Tensor output;
  std::vector<at::Tensor> outputs;  // as c10d takes it
};

Buffers MakeBuffers(const Options& options, int rank) {
  const int64_t part = std::max<int64_t>(1, options.bytes / 4 / options.ranks);
  const int64_t whole = part * options.ranks;
  const auto numbers = [&](int64_t n) {
    return at::arange(n).add(rank + 1).to(at::kFloat);
  };
  if (options.op == "all_gather") return {numbers(part), at::zeros({whole})};
  if (options.op == "reduce_scatter")
    return {numbers(whole), at::zeros({part})};
  return {numbers(whole), at::zeros({whole})};
}

// Starts and awaits the collective, from input to output; an all-reduce and a
// broadcast work on `output` in place.
void RunOn(c10d::Backend& backend, const Options& options, Buffers& buffers) {
  c10::intrusive_ptr<c10d::Work> work;
  if (options.op == "all_reduce") {
    work = backend.allreduce(buffers.outputs);
  } else if (options.op == "broadcast") {
    work = backend.broadcast(buffers.outputs);
  } else if (options.op == "all_gather") {
    work = backend._allgather_base(buffers.output, buffers.input);
  } else if (options.op == "reduce_scatter") {
    work = backend._reduce_scatter_base(buffers.output, buffers.input);
  } else {
    std::vector<int64_t> equal;
    work = backend.alltoall_base(buffers.output, buffers.input, equal, equal);
  }
  work->wait();
}

// The same as RunOn's, as the backend over shared memory makes it.
ShmCall CallOf(const Options& options, int rank, const Buffers& buffers) {
  const ShmPlace place{.rank = rank, .size = options.ranks};
  const c10d::ReduceOp sum = c10d::ReduceOp::SUM;
  if (options.op == "all_reduce")
    return AllReduceCall(buffers.output, buffers.output, sum);
  if (options.op == "broadcast") return BroadcastCall(place, buffers.output, 0);
  if (options.op == "all_gather")
    return AllGatherIntoCall(place, buffers.output, buffers.input);
  if (options.op == "reduce_scatter")
    return ReduceScatterFromCall(place, buffers.output, buffers.input, sum);
  return AllToAllCall(place, buffers.output, buffers.input, {}, {});
}

// What all ranks share from before the fork.
struct Shared {
  std::shared_ptr<const ShmSegment> segment;
  std::shared_ptr<const ShmSegment> bare;
  std::vector<PeerLine> lines;
  std::string store;  // path
};

c10::intrusive_ptr<c10d::Backend> MakeGloo(const Options& options, int rank,
                                           const std::string& path) {
  auto gloo = c10d::ProcessGroupGloo::Options::create(std::chrono::minutes(1));
  gloo->devices.push_back(
      c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1"));
  gloo->threads = 1;
  return c10::make_intrusive<c10d::ProcessGroupGloo>(
      c10::make_intrusive<c10d::FileStore>(path, options.ranks), rank,
      options.ranks, gloo);
}

PeerWatch WatchOf(std::vector<PeerLine> lines, int rank) {
  std::vector<FileDescriptor> others;
  for (PeerLine& line : lines) others.push_back(std::move(line.watched));
  others[rank] = FileDescriptor();
  return {std::move(lines[rank].own), std::move(others)};
}

// The sides of one rank by name.
using Sides = std::map<std::string, std::function<void()>>;

bool SameResults(const Options& options, int rank, c10d::Backend& one,
                 c10d::Backend& other) {
  Buffers first = MakeBuffers(options, rank);
  first.output.copy_(
      first.output.sizes() == first.input.sizes() ? first.input : first.output);
  Buffers second(first.input.clone(), first.output.clone());
  RunOn(one, options, first);
  RunOn(other, options, second);
  return at::allclose(first.output, second.output);
}

double SecondsOf(const std::function<void()>& side, BareMoves& barrier,
                 int iterations) {
  barrier.Barrier();
  const Clock::time_point start = Clock::now();
  for (int i = 0; i < iterations; ++i) side();
  return std::chrono::duration<double>(Clock::now() - start).count() /
         iterations;
}

// So many that a side takes the time of a round; alike on all ranks.
std::map<std::string, int> Calibrate(const Options& options, const Sides& sides,
                                     BareMoves& barrier,
                                     c10d::Backend& backend) {
  std::map<std::string, int> iterations;
  for (const auto& [name, side] : sides) {
    SecondsOf(side, barrier, 2);
    std::vector<at::Tensor> wanted{at::full(
        {1}, options.seconds / SecondsOf(side, barrier, 3), at::kDouble)};
    c10d::BroadcastOptions from_zero;
    backend.broadcast(wanted, from_zero)->wait();
    iterations[name] = std::clamp(static_cast<int>(wanted[0].item<double>()), 1,
                                  kMaxIterations);
  }
  return iterations;
}

void Print(const std::map<std::string, std::vector<double>>& seconds) {
  const char* before = "{";
  for (const auto& [name, values] : seconds) {
    std::printf("%s\"%s\": [", before, name.c_str());
    before = "], ";
    for (size_t i = 0; i < values.size(); ++i) {
      std::printf("%s%.9f", i == 0 ? "" : ", ", values[i]);
    }
  }
  std::printf("]}\n");
}

int RunRank(const Options& options, int rank, Shared shared) {
  at::set_num_threads(1);
  BareMoves barrier(shared.bare, rank);
  const auto gloo = MakeGloo(options, rank, shared.store);
  const auto shm = c10::make_intrusive<ShmBackend>(
      rank,
      ShmGroupMemory{shared.segment, WatchOf(std::move(shared.lines), rank)},
      std::chrono::minutes(1));
  if (!SameResults(options, rank, *shm, *gloo)) {
    std::fprintf(stderr, "the backends' results differ\n");
    return 1;
  }
  Buffers of_shm = MakeBuffers(options, rank);
  Buffers of_gloo = MakeBuffers(options, rank);
  Buffers of_bare = MakeBuffers(options, rank);
  const ShmCall moves = CallOf(options, rank, of_bare);
  const Sides sides = {{"shm", [&] { RunOn(*shm, options, of_shm); }},
                       {"gloo", [&] { RunOn(*gloo, options, of_gloo); }},
                       {"limit", [&] { barrier.Run(moves.transfer); }}};
  std::map<std::string, int> iterations =
      Calibrate(options, sides, barrier, *shm);
  std::map<std::string, std::vector<double>> seconds;
  for (int round = 0; round < options.rounds; ++round) {
    for (const auto& [name, side] : sides) {
      seconds[name].push_back(SecondsOf(side, barrier, iterations[name]));
    }
  }
  if (rank == 0) Print(seconds);
  return 0;
}

// Ranks 1 and on in processes of their own, which have no threads yet.
int Run(const Options& options) {
  char path[] = "/tmp/shardplane-bench-XXXXXX";
  const int file = mkstemp(path);
  if (file < 0) return 1;
  close(file);
  const ShmSizes sizes{.ranks = options.ranks, .slot_bytes = kSlotBytes};
  Shared shared{*ShmSegment::Create(sizes), *ShmSegment::Create(sizes),
                *MakePeerLines(options.ranks), path};
  int rank = 0;
  while (rank + 1 < options.ranks && fork() == 0) ++rank;
  int failed = 1;
  try {
    failed = RunRank(options, rank, std::move(shared));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rank %d: %s\n", rank, error.what());
  }
  std::fflush(stdout);
  int status = 0;
  if (rank + 1 < options.ranks && wait(&status) > 0) failed |= status != 0;
  if (rank != 0) _exit(failed);
  unlink(path);
  return failed;
}

bool Parse(absl::string_view text, Options* options) {
  if (absl::ConsumePrefix(&text, "--ranks="))
    return absl::SimpleAtoi(text, &options->ranks) && options->ranks >= 1 &&
           options->ranks <= kMaxShmRanks;
  if (absl::ConsumePrefix(&text, "--op=")) {
    options->op = std::string(text);
    return true;
  }
  if (absl::ConsumePrefix(&text, "--bytes="))
    return absl::SimpleAtoi(text, &options->bytes) && options->bytes > 0;
  if (absl::ConsumePrefix(&text, "--rounds="))
    return absl::SimpleAtoi(text, &options->rounds) && options->rounds > 0;
  return absl::ConsumePrefix(&text, "--seconds=") &&
         absl::SimpleAtod(text, &options->seconds);
}

}  // namespace
}  // namespace shardplane

int main(int argc, char** argv) {
  shardplane::Options options;
  for (int i = 1; i < argc; ++i) {
    if (!shardplane::Parse(argv[i], &options)) {
      std::fprintf(stderr,
                   "usage: collectives --ranks=N --op=NAME --bytes=N "
                   "--rounds=N --seconds=S; got: %s\n",
                   argv[i]);
      return 2;
    }
  }
  return shardplane::Run(options);
}
