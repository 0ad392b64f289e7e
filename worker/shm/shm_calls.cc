#include "worker/shm/shm_calls.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "ATen/ATen.h"
#include "absl/numeric/bits.h"
#include "c10/util/Exception.h"
#include "torch/csrc/distributed/c10d/Work.hpp"
#include "worker/shm/reductions.h"

namespace shardplane {
namespace {

using Tensors = std::vector<at::Tensor>;
using c10d::OpType;

// Each message ends with what came, so the checks name it.
#define SHM_CHECK(condition, expected, got)                            \
  TORCH_CHECK_VALUE(condition, "shared memory: expected ", (expected), \
                    "; got: ", (got))

void CheckBuffer(const at::Tensor& tensor) {
  SHM_CHECK(tensor.defined(), "a tensor", "an undefined one");
  SHM_CHECK(tensor.device().is_cpu(), "a tensor on the CPU", tensor.device());
  SHM_CHECK(tensor.layout() == at::kStrided && tensor.is_contiguous() &&
                !tensor.is_conj() && !tensor.is_neg(),
            "a dense, contiguous tensor", "another layout");
}

void CheckType(const at::Tensor& tensor, const at::Tensor& other) {
  SHM_CHECK(tensor.scalar_type() == other.scalar_type(),
            "tensors of one element type", tensor.scalar_type());
}

void CheckLength(const char* what, size_t expected, size_t got) {
  SHM_CHECK(got == expected, c10::str(expected, " ", what), got);
}

// One tensor a rank, of `like`'s element type.
void CheckPerRank(const Tensors& tensors, const ShmPlace& place,
                  const at::Tensor& like) {
  CheckLength("tensors in the list", place.size, tensors.size());
  for (const at::Tensor& tensor : tensors) {
    CheckBuffer(tensor);
    CheckType(tensor, like);
  }
}

void CheckElements(const char* what, int64_t expected,
                   const at::Tensor& tensor) {
  SHM_CHECK(tensor.numel() == expected,
            c10::str(what, " of ", expected, " elements"), tensor.numel());
}

int64_t Bytes(const at::Tensor& tensor) {
  return static_cast<int64_t>(tensor.nbytes());
}

// The memory of tensors, whole or in parts of so many bytes.
std::byte* Data(const at::Tensor& tensor) {
  return static_cast<std::byte*>(tensor.data_ptr());
}
ShmSource SourceOf(const at::Tensor& tensor) {
  return {Data(tensor), Bytes(tensor)};
}
ShmTarget TargetOf(const at::Tensor& tensor) {
  return {Data(tensor), Bytes(tensor)};
}
std::vector<ShmSource> SourcesOf(const Tensors& tensors) {
  std::vector<ShmSource> sources;
  for (const at::Tensor& tensor : tensors) sources.push_back(SourceOf(tensor));
  return sources;
}
std::vector<ShmTarget> TargetsOf(const Tensors& tensors) {
  std::vector<ShmTarget> targets;
  for (const at::Tensor& tensor : tensors) targets.push_back(TargetOf(tensor));
  return targets;
}
std::vector<int64_t> EqualParts(const at::Tensor& tensor, int parts) {
  SHM_CHECK(tensor.numel() % parts == 0,
            c10::str("a multiple of ", parts, " elements"), tensor.numel());
  return std::vector<int64_t>(parts, Bytes(tensor) / parts);
}
template <typename Part>  // ShmSource or ShmTarget
std::vector<Part> Cut(const at::Tensor& tensor,
                      const std::vector<int64_t>& bytes) {
  std::vector<Part> parts;
  int64_t offset = 0;
  for (const int64_t part : bytes) {
    parts.push_back({Data(tensor) + offset, part});
    offset += part;
  }
  return parts;
}

template <typename Parts>
int64_t Longest(const Parts& parts) {
  int64_t longest = 0;
  for (const auto& part : parts) longest = std::max(longest, part.bytes);
  return longest;
}

// What all ranks must have alike.
class Signature {
 public:
  Signature(OpType op, at::ScalarType type) {
    Add(static_cast<int64_t>(op)).Add(static_cast<int64_t>(type));
  }
  Signature& Add(int64_t value) {
    hash_ = (absl::rotl(hash_, 23) ^ static_cast<uint64_t>(value)) *
            0x9e3779b97f4a7c15;
    return *this;
  }
  template <typename Parts>
  Signature& AddSizes(const Parts& parts) {
    for (const auto& part : parts) Add(part.bytes);
    return *this;
  }
  uint64_t hash() const { return hash_; }

 private:
  uint64_t hash_ = 0;
};

ShmReducer ReducerFor(const at::Tensor& tensor, const c10d::ReduceOp& op) {
  using Op = c10d::ReduceOp;
  static_assert(static_cast<int>(ShmReduction::kSum) == Op::SUM &&
                static_cast<int>(ShmReduction::kAvg) == Op::AVG &&
                static_cast<int>(ShmReduction::kProduct) == Op::PRODUCT &&
                static_cast<int>(ShmReduction::kMin) == Op::MIN &&
                static_cast<int>(ShmReduction::kMax) == Op::MAX &&
                static_cast<int>(ShmReduction::kBand) == Op::BAND &&
                static_cast<int>(ShmReduction::kBor) == Op::BOR &&
                static_cast<int>(ShmReduction::kBxor) == Op::BXOR);
  SHM_CHECK(op.op_ <= Op::BXOR, "a reduction of CPUs",
            static_cast<int>(op.op_));
  const absl::StatusOr<ShmReducer> reducer =
      ReducerOf(tensor.scalar_type(), static_cast<ShmReduction>(op.op_));
  TORCH_CHECK_VALUE(reducer.ok(), std::string(reducer.status().message()));
  return *reducer;
}

void CheckRoot(int64_t root, int ranks) {
  SHM_CHECK(root >= 0 && root < ranks, c10::str("a root from 0 to ", ranks - 1),
            root);
}

// What the splits of the first dim are in bytes; equal parts if there are none.
std::vector<int64_t> SplitBytes(const at::Tensor& tensor,
                                const std::vector<int64_t>& splits, int ranks) {
  const int64_t rows = tensor.dim() == 0 ? 0 : tensor.size(0);
  if (splits.empty()) {
    SHM_CHECK(tensor.dim() > 0 && rows % ranks == 0,
              c10::str("a first dim that is a multiple of ", ranks),
              tensor.sizes());
    return EqualParts(tensor, ranks);
  }
  CheckLength("splits", ranks, splits.size());
  int64_t sum = 0;
  for (const int64_t split : splits) {
    SHM_CHECK(split >= 0, "splits that are not negative", split);
    sum += split;
  }
  SHM_CHECK(tensor.dim() > 0 && sum == rows,
            c10::str("a first dim of ", sum, ", the sum of the splits"),
            tensor.sizes());
  const int64_t row_bytes = rows == 0 ? 0 : Bytes(tensor) / rows;
  std::vector<int64_t> bytes;
  for (const int64_t split : splits) bytes.push_back(split * row_bytes);
  return bytes;
}

ShmTransfer AllGather(std::vector<ShmTarget> targets, const at::Tensor& input) {
  const int64_t longest = Longest(targets);
  const uint64_t signature = Signature(OpType::ALLGATHER, input.scalar_type())
                                 .AddSizes(targets)
                                 .hash();
  return {.kind = ShmKind::kShare,
          .sources = {SourceOf(input)},
          .targets = std::move(targets),
          .reducer = {},
          .longest = longest,
          .signature = signature};
}

ShmTransfer ReduceScatter(const at::Tensor& output,
                          std::vector<ShmSource> sources,
                          const c10d::ReduceOp& op) {
  const int64_t longest = Longest(sources);
  const uint64_t signature =
      Signature(OpType::REDUCE_SCATTER, output.scalar_type())
          .AddSizes(sources)
          .hash();
  return {.kind = ShmKind::kExchangeReduce,
          .sources = std::move(sources),
          .targets = {TargetOf(output)},
          .reducer = ReducerFor(output, op),
          .longest = longest,
          .signature = signature};
}

// `longest`: -1 if this rank cannot know it.
ShmTransfer AllToAll(const ShmPlace& place, std::vector<ShmTarget> targets,
                     std::vector<ShmSource> sources, at::ScalarType type,
                     int64_t longest) {
  SHM_CHECK(targets[place.rank].bytes == sources[place.rank].bytes,
            c10::str(sources[place.rank].bytes,
                     " bytes for what this rank sends to itself"),
            targets[place.rank].bytes);
  return {.kind = ShmKind::kExchange,
          .sources = std::move(sources),
          .targets = std::move(targets),
          .reducer = {},
          .longest = longest,
          .signature = Signature(OpType::ALLTOALL, type).hash()};
}

}  // namespace

ShmCall AllReduceCall(const at::Tensor& input, const at::Tensor& output,
                      const c10d::ReduceOp& op) {
  CheckBuffer(input);
  CheckBuffer(output);
  CheckType(output, input);
  CheckElements("an output", input.numel(), output);
  const int64_t bytes = Bytes(input);
  return {
      .transfer = {.kind = bytes <= kShmOneShotBytes ? ShmKind::kShareReduce
                                                     : ShmKind::kReduceShare,
                   .sources = {SourceOf(input)},
                   .targets = {TargetOf(output)},
                   .reducer = ReducerFor(input, op),
                   .longest = bytes,
                   .signature =
                       Signature(OpType::ALLREDUCE, input.scalar_type())
                           .Add(bytes)
                           .hash()},
      .inputs = {input},
      .outputs = {output}};
}

ShmCall ReduceCall(const ShmPlace& place, const at::Tensor& tensor,
                   int64_t root, const c10d::ReduceOp& op) {
  CheckBuffer(tensor);
  CheckRoot(root, place.size);
  return AllReduceCall(
      tensor, place.rank == root ? tensor : at::empty_like(tensor), op);
}

ShmCall BroadcastCall(const ShmPlace& place, const at::Tensor& tensor,
                      int64_t root) {
  CheckBuffer(tensor);
  CheckRoot(root, place.size);
  ShmCall call{.transfer = {.kind = ShmKind::kShare,
                            .sources = {},
                            .targets = {},
                            .reducer = {},
                            .longest = Bytes(tensor),
                            .signature = Signature(OpType::BROADCAST,
                                                   tensor.scalar_type())
                                             .Add(root)
                                             .Add(Bytes(tensor))
                                             .hash()},
               .inputs = {},
               .outputs = {tensor}};
  if (place.rank == root) {
    call.transfer.sources = {SourceOf(tensor)};
  } else {
    call.transfer.targets.resize(place.size);
    call.transfer.targets[root] = TargetOf(tensor);
  }
  return call;
}

ShmCall AllGatherCall(const ShmPlace& place, Tensors outputs,
                      const at::Tensor& input) {
  CheckBuffer(input);
  CheckPerRank(outputs, place, input);
  SHM_CHECK(Bytes(outputs[place.rank]) == Bytes(input),
            c10::str("an output of ", Bytes(input), " bytes for this rank"),
            Bytes(outputs[place.rank]));
  return {.transfer = AllGather(TargetsOf(outputs), input),
          .inputs = {input},
          .outputs = std::move(outputs)};
}

ShmCall AllGatherIntoCall(const ShmPlace& place, const at::Tensor& output,
                          const at::Tensor& input) {
  CheckBuffer(input);
  CheckBuffer(output);
  CheckType(output, input);
  CheckElements("an output", input.numel() * place.size, output);
  return {.transfer = AllGather(
              Cut<ShmTarget>(output, EqualParts(output, place.size)), input),
          .inputs = {input},
          .outputs = {output}};
}

ShmCall GatherCall(const ShmPlace& place, Tensors outputs,
                   const at::Tensor& input, int64_t root) {
  CheckBuffer(input);
  CheckRoot(root, place.size);
  ShmCall call{
      .transfer = {.kind = ShmKind::kShare,
                   .sources = {SourceOf(input)},
                   .targets = {},
                   .reducer = {},
                   .longest = Bytes(input),
                   .signature = Signature(OpType::GATHER, input.scalar_type())
                                    .Add(root)
                                    .Add(Bytes(input))
                                    .hash()},
      .inputs = {input},
      .outputs = {}};
  if (place.rank == root) {
    CheckPerRank(outputs, place, input);
    for (const at::Tensor& each : outputs)
      CheckElements("an output", input.numel(), each);
    call.transfer.targets = TargetsOf(outputs);
    call.outputs = std::move(outputs);
  }
  return call;
}

ShmCall ScatterCall(const ShmPlace& place, const at::Tensor& output,
                    Tensors inputs, int64_t root) {
  CheckBuffer(output);
  CheckRoot(root, place.size);
  ShmCall call{
      .transfer = {.kind = ShmKind::kExchange,
                   .sources = {},
                   .targets = std::vector<ShmTarget>(place.size),
                   .reducer = {},
                   .longest = Bytes(output),
                   .signature = Signature(OpType::SCATTER, output.scalar_type())
                                    .Add(root)
                                    .Add(Bytes(output))
                                    .hash()},
      .inputs = {},
      .outputs = {output}};
  call.transfer.targets[root] = TargetOf(output);
  if (place.rank == root) {
    CheckPerRank(inputs, place, output);
    for (const at::Tensor& each : inputs)
      CheckElements("an input", output.numel(), each);
    call.transfer.sources = SourcesOf(inputs);
    call.inputs = std::move(inputs);
  }
  return call;
}

ShmCall ReduceScatterCall(const ShmPlace& place, const at::Tensor& output,
                          Tensors inputs, const c10d::ReduceOp& op) {
  CheckBuffer(output);
  CheckPerRank(inputs, place, output);
  SHM_CHECK(Bytes(inputs[place.rank]) == Bytes(output),
            c10::str("an input of ", Bytes(output), " bytes for this rank"),
            Bytes(inputs[place.rank]));
  return {.transfer = ReduceScatter(output, SourcesOf(inputs), op),
          .inputs = std::move(inputs),
          .outputs = {output}};
}

ShmCall ReduceScatterFromCall(const ShmPlace& place, const at::Tensor& output,
                              const at::Tensor& input,
                              const c10d::ReduceOp& op) {
  CheckBuffer(output);
  CheckBuffer(input);
  CheckType(input, output);
  CheckElements("an input", output.numel() * place.size, input);
  return {.transfer = ReduceScatter(
              output, Cut<ShmSource>(input, EqualParts(input, place.size)), op),
          .inputs = {input},
          .outputs = {output}};
}

ShmCall AllToAllCall(const ShmPlace& place, Tensors outputs, Tensors inputs) {
  CheckLength("inputs", place.size, inputs.size());
  CheckPerRank(inputs, place, inputs[0]);
  CheckPerRank(outputs, place, inputs[0]);
  ShmTransfer transfer = AllToAll(place, TargetsOf(outputs), SourcesOf(inputs),
                                  inputs[0].scalar_type(), /*longest=*/-1);
  return {.transfer = std::move(transfer),
          .inputs = std::move(inputs),
          .outputs = std::move(outputs)};
}

ShmCall AllToAllCall(const ShmPlace& place, const at::Tensor& output,
                     const at::Tensor& input,
                     const std::vector<int64_t>& output_splits,
                     const std::vector<int64_t>& input_splits) {
  CheckBuffer(input);
  CheckBuffer(output);
  CheckType(output, input);
  auto sources =
      Cut<ShmSource>(input, SplitBytes(input, input_splits, place.size));
  const bool even = output_splits.empty() && input_splits.empty();
  const int64_t longest = even ? Longest(sources) : -1;
  return {
      .transfer = AllToAll(
          place,
          Cut<ShmTarget>(output, SplitBytes(output, output_splits, place.size)),
          std::move(sources), input.scalar_type(), longest),
      .inputs = {input},
      .outputs = {output}};
}

ShmCall BarrierCall(const ShmPlace& place) {
  // Something to wait for from everyone, and nothing in it.
  static std::byte nothing;
  return {
      .transfer = {.kind = ShmKind::kShare,
                   .sources = {},
                   .targets = std::vector<ShmTarget>(place.size, {&nothing, 0}),
                   .reducer = {},
                   .longest = 0,
                   .signature = Signature(OpType::BARRIER, at::kByte).hash()},
      .inputs = {},
      .outputs = {}};
}

}  // namespace shardplane
