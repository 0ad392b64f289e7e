#include "common/host_tensor.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/errors.h"
#include "common/float16.h"

namespace shardplane {
namespace {

// See VisitRuns.
class Runs {
 public:
  Runs(const TensorType& global, absl::Span<const Stretches> part,
       VisitRun visit)
      : global_(global), part_(part), visit_(visit) {
    together_ = static_cast<int>(part.size());
    while (together_ > 0 && IsWhole(together_ - 1)) --together_;
  }

  void Visit() { Visit(0, 0); }

 private:
  bool IsWhole(int dim) const {
    return SizeOf(part_[dim]) == global_.shape[dim];
  }
  int64_t BytesBelow(int dim) const {
    int64_t bytes = ByteSize(global_.dtype);
    for (size_t d = dim + 1; d < global_.shape.size(); ++d) {
      bytes *= global_.shape[d];
    }
    return bytes;
  }
  void Run(int64_t from, int64_t bytes) {
    if (bytes > 0) visit_(from, local_, bytes);
    local_ += bytes;
  }

  // `from`: where the elements of the outer dims begin, in bytes.
  void Visit(int dim, int64_t from) {
    if (dim >= together_) return Run(from, BytesBelow(dim - 1));
    const int64_t bytes = BytesBelow(dim);
    for (const Extent& stretch : part_[dim]) {
      if (dim == together_ - 1) {
        Run(from + stretch.offset * bytes, stretch.size * bytes);
        continue;
      }
      for (int64_t i = 0; i < stretch.size; ++i) {
        Visit(dim + 1, from + (stretch.offset + i) * bytes);
      }
    }
  }

  const TensorType& global_;
  absl::Span<const Stretches> part_;
  VisitRun visit_;
  int together_ = 0;  // dims from here on are whole
  int64_t local_ = 0;
};

void CopyInto(const HostTensor& shard, absl::Span<const Stretches> part,
              HostTensor* global) {
  VisitRuns(global->type, part, [&](int64_t to, int64_t from, int64_t bytes) {
    std::memcpy(&global->bytes[to], &shard.bytes[from], bytes);
  });
}

// How elements of one dtype are read, reduced and written. The 16-bit floats
// are reduced as floats and rounded once, at the end.
template <typename T>
struct Plain {
  using Stored = T;
  using Wide = T;
  static Wide Load(Stored value) { return value; }
  static Stored Store(Wide value) { return value; }
};
struct Half {
  using Stored = uint16_t;
  using Wide = float;
  static Wide Load(Stored value) { return HalfToFloat(value); }
  static Stored Store(Wide value) { return FloatToHalf(value); }
};
struct BFloat16 {
  using Stored = uint16_t;
  using Wide = float;
  static Wide Load(Stored value) { return BFloat16ToFloat(value); }
  static Stored Store(Wide value) { return FloatToBFloat16(value); }
};
struct Bool {  // a sum is "any", as torch's sum of bools in bools
  using Stored = uint8_t;
  using Wide = bool;
  static Wide Load(Stored value) { return value != 0; }
  static Stored Store(Wide value) { return value ? 1 : 0; }
};

template <typename T>
struct IsComplexNumber : std::false_type {};
template <typename T>
struct IsComplexNumber<std::complex<T>> : std::true_type {};

template <typename T>
T Add(T a, T b) {
  if constexpr (std::is_same_v<T, bool>) {
    return a || b;
  } else if constexpr (std::is_integral_v<T>) {
    using Unsigned = std::make_unsigned_t<T>;  // overflow wraps, as in torch
    return static_cast<T>(static_cast<Unsigned>(a) + static_cast<Unsigned>(b));
  } else {
    return a + b;
  }
}

template <typename T>
T Reduce(ReduceOp op, T a, T b) {
  if constexpr (IsComplexNumber<T>::value) {
    return a + b;  // they have no order: AssembleGlobal refuses what is no sum
  } else {
    if (op == ReduceOp::kSum) return Add(a, b);
    if constexpr (std::is_floating_point_v<T>) {
      if (std::isnan(a) || std::isnan(b)) return a + b;
    }
    return op == ReduceOp::kMax ? std::max(a, b) : std::min(a, b);
  }
}

template <typename Format>
void ReduceAll(ReduceOp op, absl::Span<const HostTensor* const> shards,
               HostTensor* out) {
  using Stored = typename Format::Stored;
  const size_t count = out->bytes.size() / sizeof(Stored);
  for (size_t i = 0; i < count; ++i) {
    const auto load = [i](const HostTensor& shard) {
      Stored value;
      std::memcpy(&value, &shard.bytes[i * sizeof(Stored)], sizeof(Stored));
      return Format::Load(value);
    };
    typename Format::Wide sum = load(*shards[0]);
    for (const HostTensor* shard : shards.subspan(1)) {
      sum = Reduce(op, sum, load(*shard));
    }
    const Stored stored = Format::Store(sum);
    std::memcpy(&out->bytes[i * sizeof(Stored)], &stored, sizeof(Stored));
  }
}

using ReduceFunction = void (*)(ReduceOp, absl::Span<const HostTensor* const>,
                                HostTensor*);

ReduceFunction ReduceFunctionOf(DType dtype) {
  // By the enum's number; row 0 is no dtype.
  static constexpr ReduceFunction kFunctions[] = {
      nullptr,
      ReduceAll<Plain<float>>,
      ReduceAll<Plain<double>>,
      ReduceAll<Half>,
      ReduceAll<BFloat16>,
      ReduceAll<Plain<int64_t>>,
      ReduceAll<Plain<int32_t>>,
      ReduceAll<Plain<int16_t>>,
      ReduceAll<Plain<int8_t>>,
      ReduceAll<Plain<uint8_t>>,
      ReduceAll<Bool>,
      ReduceAll<Plain<std::complex<float>>>,
      ReduceAll<Plain<std::complex<double>>>,
  };
  return kFunctions[static_cast<size_t>(dtype)];
}

absl::Status Bad(absl::StatusCode code, absl::string_view message) {
  return MakeError(code, message, {.reason = "INVALID_SHARDS"});
}

// The op of the spec's Partials; sum if it has none.
absl::StatusOr<ReduceOp> PartialOp(DType dtype, const DTensorSpec& spec) {
  ReduceOp op = ReduceOp::kSum;
  bool found = false;
  for (const Placement& placement : spec.placements) {
    const Partial* partial = std::get_if<Partial>(&placement);
    if (partial == nullptr) continue;
    if (found && partial->op != op) {
      return Bad(absl::StatusCode::kInvalidArgument,
                 absl::StrCat("the Partials of one tensor must have one op; "
                              "got: ",
                              ToString(spec)));
    }
    op = partial->op;
    found = true;
  }
  if (IsComplex(dtype) && op != ReduceOp::kSum) {
    return Bad(absl::StatusCode::kInvalidArgument,
               absl::StrCat("complex numbers have no order, so that a Partial "
                            "of them must be a sum; got: ",
                            ToString(spec)));
  }
  return op;
}

// A rank's coordinate with 0 along Partial dims: equal for the ranks whose
// shards are reduced to one part of the tensor.
std::vector<int> PartOf(const DTensorSpec& spec, std::vector<int> coordinate) {
  for (size_t i = 0; i < coordinate.size(); ++i) {
    if (IsPartial(spec.placements[i])) coordinate[i] = 0;
  }
  return coordinate;
}

absl::Status CheckShard(const TensorType& type, const DTensorSpec& spec,
                        const DeviceMesh& mesh, int rank,
                        const HostTensor& shard) {
  const TensorType expected = {
      type.dtype, LocalShape(type.shape, spec, mesh, mesh.Coordinate(rank))};
  if (shard.type == expected &&
      static_cast<int64_t>(shard.bytes.size()) == ByteSize(expected)) {
    return absl::OkStatus();
  }
  return Bad(
      absl::StatusCode::kInternal,
      absl::StrCat("rank ", rank, "'s shard of a ", ToString(type), " ",
                   ToString(spec), " on mesh ", mesh.ToString(), " must be ",
                   ToString(expected), "; got: ", ToString(shard.type), " in ",
                   shard.bytes.size(), " bytes"));
}

}  // namespace

std::vector<int> RanksToAssemble(const DTensorSpec& spec,
                                 const DeviceMesh& mesh) {
  std::vector<int> ranks;
  for (int rank = 0; rank < mesh.size(); ++rank) {
    const std::vector<int> coordinate = mesh.Coordinate(rank);
    bool first_replica = true;
    for (int i = 0; i < mesh.ndim(); ++i) {
      if (IsReplicate(spec.placements[i]) && coordinate[i] != 0) {
        first_replica = false;
      }
    }
    if (first_replica) ranks.push_back(rank);
  }
  return ranks;
}

absl::StatusOr<HostTensor> AssembleGlobal(const TensorType& type,
                                          const DTensorSpec& spec,
                                          const DeviceMesh& mesh,
                                          absl::Span<const HostTensor> shards) {
  const std::vector<int> ranks = RanksToAssemble(spec, mesh);
  if (ranks.size() != shards.size()) {
    return Bad(absl::StatusCode::kInternal,
               absl::StrCat("a tensor placed ", ToString(spec), " on mesh ",
                            mesh.ToString(), " is made of ", ranks.size(),
                            " shards; got: ", shards.size()));
  }
  SP_ASSIGN_OR_RETURN(const ReduceOp op, PartialOp(type.dtype, spec));
  absl::btree_map<std::vector<int>, std::vector<const HostTensor*>> parts;
  for (size_t i = 0; i < shards.size(); ++i) {
    SP_RETURN_IF_ERROR(CheckShard(type, spec, mesh, ranks[i], shards[i]));
    parts[PartOf(spec, mesh.Coordinate(ranks[i]))].push_back(&shards[i]);
  }
  HostTensor global{type, std::string(ByteSize(type), '\0')};
  for (const auto& [coordinate, terms] : parts) {
    const std::vector<Stretches> part =
        LocalStretches(type.shape, spec, mesh, coordinate);
    if (terms.size() == 1) {
      CopyInto(*terms[0], part, &global);
      continue;
    }
    HostTensor reduced{terms[0]->type,
                       std::string(terms[0]->bytes.size(), '\0')};
    ReduceFunctionOf(type.dtype)(op, terms, &reduced);
    CopyInto(reduced, part, &global);
  }
  return global;
}

void VisitRuns(const TensorType& global, absl::Span<const Stretches> part,
               VisitRun visit) {
  Runs(global, part, visit).Visit();
}

HostTensor SliceHost(const HostTensor& global,
                     absl::Span<const Stretches> part) {
  HostTensor slice{{global.type.dtype, {}}, ""};
  for (const Stretches& dim : part) slice.type.shape.push_back(SizeOf(dim));
  slice.bytes.resize(ByteSize(slice.type));
  VisitRuns(global.type, part, [&](int64_t from, int64_t to, int64_t bytes) {
    std::memcpy(&slice.bytes[to], &global.bytes[from], bytes);
  });
  return slice;
}

}  // namespace shardplane
