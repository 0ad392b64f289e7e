#include "common/sharded_program.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"

namespace shardplane {
namespace {

int64_t CeilDiv(int64_t n, int64_t parts) { return (n + parts - 1) / parts; }

// Elements of a local tensor whose dim `dim` is padded to W equal chunks of
// ceil(n / W); the chunk alone, and all of them.
struct Padded {
  int64_t chunk = 0;
  int64_t whole = 0;
};
Padded PadDim(const Shape& uncut, int dim, int parts) {
  int64_t rest = 1;
  for (int d = 0; d < static_cast<int>(uncut.size()); ++d) {
    if (d != dim) rest *= uncut[d];
  }
  const int64_t chunk = CeilDiv(uncut[dim], parts) * rest;
  return {chunk, chunk * parts};
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
    const Padded padded = PadDim(out_local, step.from_dim, parts);
    record.send_elements = padded.chunk;
    record.recv_elements = padded.whole;
  } else if (step.kind == RedistributeKind::kReduceScatter) {
    const Padded padded = PadDim(in_local, step.to_dim, parts);
    record.send_elements = padded.whole;
    record.recv_elements = padded.chunk;
  }
  return record;
}

CollectiveRecord RecordOf(const ShardedProgram& program,
                          const AllReduceBucket& bucket,
                          absl::Span<const int> coordinate) {
  int64_t elements = 0;
  for (const ValueId id : bucket.inputs) {
    const Value& in = program.values[id];
    elements += NumElements(
        LocalShape(in.type.shape, in.spec, program.mesh, coordinate));
  }
  return {RedistributeKind::kAllReduce, bucket.mesh_dim,
          program.values[bucket.inputs[0]].type.dtype, elements, elements};
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
  for (const LocalSize::Factor& factor : size.factors) {
    product *= LocalExtent(factor.extent, factor.cuts, mesh, coordinate).size;
  }
  return product;
}

int64_t Evaluate(const LocalOffset& offset, const DeviceMesh& mesh,
                 absl::Span<const int> coordinate) {
  const Extent extent =
      LocalExtent(offset.extent, offset.cuts, mesh, coordinate);
  return extent.size == 0 ? 0 : extent.offset;
}

std::string ToString(RedistributeKind kind) {
  static constexpr std::array<const char*, 7> kNames = {
      "all_reduce", "all_gather", "reduce_scatter", "all_to_all",
      "slice",      "mask",       "alias"};
  return kNames[static_cast<int>(kind)];
}

bool ChangesBuffers(const ShardedProgram& program) {
  return std::any_of(program.parameters.begin(), program.parameters.end(),
                     [](const ParameterBinding& p) { return p.update >= 0; });
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
    if (const auto* bucket = std::get_if<AllReduceBucket>(&instruction);
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
