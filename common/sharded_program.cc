#include "common/sharded_program.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"

namespace shardplane {
namespace {

// Elements of a local tensor whose dim `dim` is padded to W equal chunks, as
// large as the first part; the chunk alone, and all of them.
struct Padded {
  int64_t chunk = 0;
  int64_t whole = 0;
};
Padded PadDim(const Shape& uncut, int dim, const Blocks& blocks, int parts) {
  int64_t rest = 1;
  for (int d = 0; d < static_cast<int>(uncut.size()); ++d) {
    if (d != dim) rest *= uncut[d];
  }
  const int64_t chunk = SizeOf(PartOf(uncut[dim], blocks, parts, 0)) * rest;
  return {chunk, chunk * parts};
}

// Of the blocks that groups share, all together.
int64_t SharedExtent(const Placement& placement) {
  int64_t extent = 0;
  for (const Block& block : BlocksOf(placement).list()) {
    if (block.replicas > 1) extent += block.size;
  }
  return extent;
}

CollectiveRecord RecordOf(const ShardedProgram& program,
                          const Redistribute& step,
                          absl::Span<const int> coordinate) {
  const Value& in = program.values[step.input];
  const Value& out = program.values[step.output];
  const Shape in_local =
      LocalShape(in.type.shape, in.spec, program.mesh, coordinate);
  const Shape out_local =
      LocalShape(out.type.shape, out.spec, program.mesh, coordinate);
  const int parts = program.mesh.dim_size(step.mesh_dim);
  CollectiveRecord record{step.kind, step.mesh_dim, in.type.dtype,
                          NumElements(in_local), NumElements(out_local)};
  if (step.kind == RedistributeKind::kAllGather) {
    const Padded padded =
        PadDim(out_local, step.from_dim,
               BlocksOf(in.spec.placements[step.mesh_dim]), parts);
    record.send_elements = padded.chunk;
    record.recv_elements = padded.whole;
  } else if (BlocksOf(in.spec.placements[step.mesh_dim]).partial()) {
    // Each group has a slot of its own.
    const Placement& shared = in.spec.placements[step.mesh_dim];
    Shape slots = in_local;
    slots[ShardDim(shared)] = SharedExtent(shared);
    record.send_elements = record.recv_elements = NumElements(slots);
  } else if (step.kind == RedistributeKind::kReduceScatter) {
    const Padded padded =
        PadDim(in_local, step.to_dim,
               BlocksOf(out.spec.placements[step.mesh_dim]), parts);
    record.send_elements = padded.whole;
    record.recv_elements = padded.chunk;
  }
  return record;
}

CollectiveRecord RecordOf(const ShardedProgram& program, const Bucket& bucket,
                          absl::Span<const int> coordinate) {
  CollectiveRecord record = RecordOf(program, StepOf(bucket, 0), coordinate);
  for (size_t i = 1; i < bucket.inputs.size(); ++i) {
    const CollectiveRecord more =
        RecordOf(program, StepOf(bucket, i), coordinate);
    record.send_elements += more.send_elements;
    record.recv_elements += more.recv_elements;
  }
  return record;
}

uint64_t HashBytes(uint64_t hash, uint64_t value, int bytes) {
  constexpr uint64_t kPrime = 1099511628211ull;
  for (int i = 0; i < bytes; ++i) {
    hash = (hash ^ ((value >> (8 * i)) & 0xff)) * kPrime;
  }
  return hash;
}

}  // namespace

int64_t Evaluate(const LocalSize& size, const DeviceMesh& mesh,
                 absl::Span<const int> coordinate) {
  int64_t product = 1;
  for (const DimCuts& factor : size.factors) {
    product *= LocalSizeOf(factor, mesh, coordinate);
  }
  return product;
}

int64_t Evaluate(const LocalOffset& offset, const DeviceMesh& mesh,
                 absl::Span<const int> coordinate) {
  const Stretches local = LocalStretches(offset.dim, mesh, coordinate);
  return local.empty() ? 0 : local[0].offset;
}

std::string ToString(RedistributeKind kind) {
  static constexpr std::array<const char*, 8> kNames = {
      "all_reduce", "all_gather", "reduce_scatter", "all_to_all",
      "slice",      "mask",       "alias",          "spread"};
  return kNames[static_cast<int>(kind)];
}

bool ChangesBuffers(const ShardedProgram& program) {
  return std::any_of(program.parameters.begin(), program.parameters.end(),
                     [](const ParameterBinding& p) { return p.update >= 0; });
}

std::vector<ValueId> ValuesOf(const ShardedProgram& program,
                              const Instruction& instruction) {
  std::vector<ValueId> ids;
  const auto add = [&ids](const std::vector<ValueId>& more) {
    ids.insert(ids.end(), more.begin(), more.end());
  };
  if (const auto* move = std::get_if<Redistribute>(&instruction)) {
    ids = {move->input, move->output};
  } else if (const auto* bucket = std::get_if<Bucket>(&instruction)) {
    add(bucket->inputs);
    add(bucket->outputs);
  } else if (const auto* wait = std::get_if<Wait>(&instruction)) {
    ids = wait->values;
  } else if (const auto* reshard = std::get_if<Reshard>(&instruction)) {
    add(reshard->values);
    add(reshard->outputs);
  } else if (const auto* free = std::get_if<Free>(&instruction)) {
    ids = free->values;
  } else if (const auto* sum = std::get_if<Accumulate>(&instruction)) {
    add(sum->inputs);
    ids.push_back(sum->output);
  } else if (const auto* ones = std::get_if<Ones>(&instruction)) {
    ids = {ones->output};
  } else if (const auto* run = std::get_if<RunSegment>(&instruction)) {
    add(program.segments[run->segment].inputs);
    add(program.segments[run->segment].outputs);
  } else if (const auto* back = std::get_if<RunSegmentBackward>(&instruction)) {
    add(back->output_gradients);
    add(back->input_gradients);
  } else if (const auto* late = std::get_if<RunWeightGradients>(&instruction)) {
    add(late->weights);
    add(late->gradients);
  }
  std::erase_if(ids, [](ValueId id) { return id < 0; });
  return ids;
}

Redistribute StepOf(const Bucket& bucket, size_t i) {
  Redistribute step{.kind = bucket.kind,
                    .mesh_dim = bucket.mesh_dim,
                    .op = bucket.op,
                    .input = bucket.inputs[i],
                    .output = bucket.outputs[i]};
  if (bucket.kind == RedistributeKind::kAllGather) {
    step.from_dim = bucket.dims[i];
  }
  if (bucket.kind == RedistributeKind::kReduceScatter) {
    step.to_dim = bucket.dims[i];
  }
  return step;
}

bool SharesBlock(const Bucket& bucket) {
  return bucket.kind == RedistributeKind::kAllReduce &&
         bucket.outputs.size() > 1;
}

Redistribute StepOf(const Reshard& reshard, size_t i) {
  return {.kind = RedistributeKind::kSlice,
          .mesh_dim = reshard.mesh_dim,
          .to_dim = reshard.to_dim,
          .input = reshard.values[i],
          .output = reshard.outputs[i]};
}

bool IsCollective(RedistributeKind kind) {
  return kind <= RedistributeKind::kAllToAll;
}

int64_t CountedBytes(const CollectiveRecord& record) {
  return std::max(record.send_elements, record.recv_elements) *
         ByteSize(record.dtype);
}

std::vector<CollectiveRecord> Collectives(const ShardedProgram& program,
                                          Phase phase,
                                          absl::Span<const int> coordinate) {
  const int size = static_cast<int>(program.instructions.size());
  const int begin = phase == Phase::kForward ? 0 : program.backward_begin;
  const int end = phase == Phase::kForward ? program.backward_begin : size;
  std::vector<CollectiveRecord> records;
  for (int i = begin; i < end; ++i) {
    const Instruction& instruction = program.instructions[i];
    if (const auto* step = std::get_if<Redistribute>(&instruction);
        step != nullptr && IsCollective(step->kind) &&
        program.mesh.dim_size(step->mesh_dim) > 1) {
      records.push_back(RecordOf(program, *step, coordinate));
    }
    if (const auto* bucket = std::get_if<Bucket>(&instruction);
        bucket != nullptr && program.mesh.dim_size(bucket->mesh_dim) > 1) {
      records.push_back(RecordOf(program, *bucket, coordinate));
    }
  }
  return records;
}

uint64_t HashCollective(uint64_t seed, const CollectiveRecord& record) {
  uint64_t hash = HashBytes(seed, static_cast<uint64_t>(record.kind), 1);
  hash = HashBytes(hash, record.mesh_dim, 4);
  hash = HashBytes(hash, static_cast<uint64_t>(record.dtype), 1);
  hash = HashBytes(hash, record.send_elements, 8);
  return HashBytes(hash, record.recv_elements, 8);
}

uint64_t HashCollectives(absl::Span<const CollectiveRecord> records,
                         uint64_t seed) {
  for (const CollectiveRecord& record : records) {
    seed = HashCollective(seed, record);
  }
  return seed;
}

std::string Digest(const ShardedProgram& program) {
  // Two hashes of the text form with different starts; not for secrets.
  const std::string text = ToString(program);
  uint64_t first = kCollectiveHashSeed;
  uint64_t second = ~kCollectiveHashSeed;
  for (const char c : text) {
    first = HashBytes(first, static_cast<unsigned char>(c), 1);
    second = HashBytes(second, static_cast<unsigned char>(c), 1);
  }
  return absl::StrFormat("%016x%016x", first, second);
}

}  // namespace shardplane
