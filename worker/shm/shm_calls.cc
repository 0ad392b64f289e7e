#include "worker/shm/shm_calls.h"

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>

#include "ATen/core/Tensor.h"
#include "ATen/ops/empty_like.h"
#include "absl/container/inlined_vector.h"
#include "c10/util/Exception.h"
#include "torch/csrc/distributed/c10d/Work.hpp"
#include "worker/shm/shm_call_parts.h"

namespace shardplane {
namespace {

using Tensors = std::vector<at::Tensor>;
using c10d::OpType;

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

ShmSources SourcesOf(const Tensors& tensors) {
  ShmSources sources;
  for (const at::Tensor& tensor : tensors) sources.push_back(SourceOf(tensor));
  return sources;
}
ShmTargets TargetsOf(const Tensors& tensors) {
  ShmTargets targets;
  for (const at::Tensor& tensor : tensors) targets.push_back(TargetOf(tensor));
  return targets;
}
// Bytes for each rank.
using ByteCounts = absl::InlinedVector<int64_t, 4>;
ByteCounts EqualParts(const at::Tensor& tensor, int parts) {
  SHM_CHECK(tensor.numel() % parts == 0,
            c10::str("a multiple of ", parts, " elements"), tensor.numel());
  return ByteCounts(parts, BytesOf(tensor) / parts);
}
template <typename Part>  // ShmSource or ShmTarget
absl::InlinedVector<Part, 4> Cut(const at::Tensor& tensor,
                                 const ByteCounts& bytes) {
  absl::InlinedVector<Part, 4> parts;
  int64_t offset = 0;
  for (const int64_t part : bytes) {
    parts.push_back({DataOf(tensor) + offset, part});
    offset += part;
  }
  return parts;
}

ShmTensors ListOf(Tensors tensors) {
  return {std::make_move_iterator(tensors.begin()),
          std::make_move_iterator(tensors.end())};
}

void CheckRoot(int64_t root, int ranks) {
  SHM_CHECK(root >= 0 && root < ranks, c10::str("a root from 0 to ", ranks - 1),
            root);
}

// What the splits of the first dim are in bytes; equal parts if there are none.
ByteCounts SplitBytes(const at::Tensor& tensor,
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
  const int64_t row_bytes = rows == 0 ? 0 : BytesOf(tensor) / rows;
  ByteCounts bytes;
  for (const int64_t split : splits) bytes.push_back(split * row_bytes);
  return bytes;
}

// `longest`: -1 if this rank cannot know it.
ShmTransfer AllToAll(const ShmPlace& place, ShmTargets targets,
                     ShmSources sources, at::ScalarType type, int64_t longest) {
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
  const int64_t bytes = BytesOf(input);
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
      .inputs = ShmTensors(1, input),
      .outputs = ShmTensors(1, output)};
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
                            .longest = BytesOf(tensor),
                            .signature = Signature(OpType::BROADCAST,
                                                   tensor.scalar_type())
                                             .Add(root)
                                             .Add(BytesOf(tensor))
                                             .hash()},
               .inputs = {},
               .outputs = ShmTensors(1, tensor)};
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
  SHM_CHECK(BytesOf(outputs[place.rank]) == BytesOf(input),
            c10::str("an output of ", BytesOf(input), " bytes for this rank"),
            BytesOf(outputs[place.rank]));
  return {.transfer = AllGatherTransfer(TargetsOf(outputs), input),
          .inputs = ShmTensors(1, input),
          .outputs = ListOf(std::move(outputs))};
}

ShmCall AllGatherIntoCall(const ShmPlace& place, const at::Tensor& output,
                          const at::Tensor& input) {
  CheckBuffer(input);
  CheckBuffer(output);
  CheckType(output, input);
  CheckElements("an output", input.numel() * place.size, output);
  return {.transfer = AllGatherTransfer(
              Cut<ShmTarget>(output, EqualParts(output, place.size)), input),
          .inputs = ShmTensors(1, input),
          .outputs = ShmTensors(1, output)};
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
                   .longest = BytesOf(input),
                   .signature = Signature(OpType::GATHER, input.scalar_type())
                                    .Add(root)
                                    .Add(BytesOf(input))
                                    .hash()},
      .inputs = ShmTensors(1, input),
      .outputs = {}};
  if (place.rank == root) {
    CheckPerRank(outputs, place, input);
    for (const at::Tensor& each : outputs)
      CheckElements("an output", input.numel(), each);
    call.transfer.targets = TargetsOf(outputs);
    call.outputs = ListOf(std::move(outputs));
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
                   .targets = ShmTargets(place.size),
                   .reducer = {},
                   .longest = BytesOf(output),
                   .signature = Signature(OpType::SCATTER, output.scalar_type())
                                    .Add(root)
                                    .Add(BytesOf(output))
                                    .hash()},
      .inputs = {},
      .outputs = ShmTensors(1, output)};
  call.transfer.targets[root] = TargetOf(output);
  if (place.rank == root) {
    CheckPerRank(inputs, place, output);
    for (const at::Tensor& each : inputs)
      CheckElements("an input", output.numel(), each);
    call.transfer.sources = SourcesOf(inputs);
    call.inputs = ListOf(std::move(inputs));
  }
  return call;
}

ShmCall ReduceScatterCall(const ShmPlace& place, const at::Tensor& output,
                          Tensors inputs, const c10d::ReduceOp& op) {
  CheckBuffer(output);
  CheckPerRank(inputs, place, output);
  SHM_CHECK(BytesOf(inputs[place.rank]) == BytesOf(output),
            c10::str("an input of ", BytesOf(output), " bytes for this rank"),
            BytesOf(inputs[place.rank]));
  return {.transfer = ReduceScatterTransfer(output, SourcesOf(inputs), op),
          .inputs = ListOf(std::move(inputs)),
          .outputs = ShmTensors(1, output)};
}

ShmCall ReduceScatterFromCall(const ShmPlace& place, const at::Tensor& output,
                              const at::Tensor& input,
                              const c10d::ReduceOp& op) {
  CheckBuffer(output);
  CheckBuffer(input);
  CheckType(input, output);
  CheckElements("an input", output.numel() * place.size, input);
  return {.transfer = ReduceScatterTransfer(
              output, Cut<ShmSource>(input, EqualParts(input, place.size)), op),
          .inputs = ShmTensors(1, input),
          .outputs = ShmTensors(1, output)};
}

ShmCall AllToAllCall(const ShmPlace& place, Tensors outputs, Tensors inputs) {
  CheckLength("inputs", place.size, inputs.size());
  CheckPerRank(inputs, place, inputs[0]);
  CheckPerRank(outputs, place, inputs[0]);
  ShmTransfer transfer = AllToAll(place, TargetsOf(outputs), SourcesOf(inputs),
                                  inputs[0].scalar_type(), /*longest=*/-1);
  return {.transfer = std::move(transfer),
          .inputs = ListOf(std::move(inputs)),
          .outputs = ListOf(std::move(outputs))};
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
      .inputs = ShmTensors(1, input),
      .outputs = ShmTensors(1, output)};
}

ShmCall BarrierCall(const ShmPlace& place) {
  // Something to wait for from everyone, and nothing in it.
  static std::byte nothing;
  return {
      .transfer = {.kind = ShmKind::kShare,
                   .sources = {},
                   .targets = ShmTargets(place.size, {&nothing, 0}),
                   .reducer = {},
                   .longest = 0,
                   .signature = Signature(OpType::BARRIER, at::kByte).hash()},
      .inputs = {},
      .outputs = {}};
}

}  // namespace shardplane
