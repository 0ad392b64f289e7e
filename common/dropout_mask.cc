#include "common/dropout_mask.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/errors.h"
#include "common/philox.h"
#include "common/tensor_type.h"

namespace shardplane {
namespace {

// Draws one mask: `Write` run by run, then `Flush`.
class MaskWriter {
 public:
  MaskWriter(const DropoutStream& stream, uint32_t threshold)
      : threshold_(threshold) {
    // Philox permutes, so that no two dropouts of a seed share a stream.
    const uint64_t node = static_cast<uint64_t>(stream.node);
    stream_ = Philox({LowWord(stream.step), HighWord(stream.step),
                      LowWord(node), HighWord(node)},
                     {LowWord(stream.seed), HighWord(stream.seed)});
  }

  // Asks for the global elements from `begin` to `end`. Returns where the next
  // ones go.
  uint8_t* Write(uint64_t begin, uint64_t end, uint8_t* keep) {
    while (begin < end) {
      const int first = static_cast<int>(begin % 4);
      const int count =
          static_cast<int>(std::min<uint64_t>(4 - first, end - begin));
      const uint64_t block = begin / 4;
      blocks_.word[0][pending_] = LowWord(block);
      blocks_.word[1][pending_] = HighWord(block);
      requests_[pending_++] = {keep, first, count};
      if (pending_ == kLanes) Flush();
      begin += count;
      keep += count;
    }
    return keep;
  }

  void Flush() {
    for (int i = 0; i < kLanes; ++i) {
      blocks_.word[2][i] = stream_[2];
      blocks_.word[3][i] = stream_[3];
    }
    blocks_.Run({stream_[0], stream_[1]});
    for (int i = 0; i < pending_; ++i) {
      const Request& request = requests_[i];
      if (request.count == 4) {
        for (int j = 0; j < 4; ++j) {
          request.keep[j] = blocks_.word[j][i] >= threshold_;
        }
        continue;
      }
      for (int j = 0; j < request.count; ++j) {
        request.keep[j] = blocks_.word[request.first + j][i] >= threshold_;
      }
    }
    pending_ = 0;
  }

 private:
  static constexpr int kLanes = 16;
  // Some of the four words of one block.
  struct Request {
    uint8_t* keep = nullptr;
    int first = 0;
    int count = 0;
  };

  uint32_t threshold_;
  std::array<uint32_t, 4> stream_;
  PhiloxLanes<kLanes> blocks_ = {};
  std::array<Request, kLanes> requests_;
  int pending_ = 0;
};

// The part's dims from `dim` on, below the global row `row`. Dims from `whole`
// on are not cut, so that there a row is one run of `run` elements.
uint8_t* WritePart(MaskWriter& writer, absl::Span<const int64_t> sizes,
                   absl::Span<const Extent> part, size_t dim, size_t whole,
                   uint64_t run, uint64_t row, uint8_t* keep) {
  if (dim == whole) return writer.Write(row * run, (row + 1) * run, keep);
  const Extent& extent = part[dim];
  const uint64_t begin = row * sizes[dim] + extent.offset;
  if (dim + 1 == whole) {
    return writer.Write(begin * run, (begin + extent.size) * run, keep);
  }
  for (int64_t i = 0; i < extent.size; ++i) {
    keep = WritePart(writer, sizes, part, dim + 1, whole, run, begin + i, keep);
  }
  return keep;
}

absl::Status Bad(absl::string_view expected, absl::string_view got) {
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat("a dropout mask: expected ", expected, "; got: ", got),
      {.reason = "INVALID_DROPOUT", .metadata = {}});
}

absl::Status Check(double p, absl::Span<const int64_t> sizes,
                   absl::Span<const Extent> part, size_t elements) {
  if (!(p >= 0 && p <= 1)) {
    return Bad("a probability within [0, 1]", absl::StrCat(p));
  }
  bool inside = sizes.size() == part.size();
  uint64_t count = 1;
  for (size_t i = 0; inside && i < part.size(); ++i) {
    inside = part[i].offset >= 0 && part[i].size >= 0 &&
             part[i].offset <= sizes[i] - part[i].size;
    count *= part[i].size;
  }
  if (inside && count == elements) return absl::OkStatus();
  const auto text = [](std::string* out, const Extent& extent) {
    absl::StrAppend(out, extent.offset, "+", extent.size);
  };
  return Bad(absl::StrCat("a part of ", elements, " elements inside ",
                          ShapeToString(sizes)),
             absl::StrCat("[", absl::StrJoin(part, ", ", text), "]"));
}

}  // namespace

absl::Status DropoutMask(const DropoutStream& stream, double p,
                         absl::Span<const int64_t> sizes,
                         absl::Span<const Extent> part,
                         absl::Span<uint8_t> keep) {
  SP_RETURN_IF_ERROR(Check(p, sizes, part, keep.size()));
  const double threshold = std::ceil(p * 0x1p32);
  if (threshold == 0 || threshold == 0x1p32) {
    std::fill(keep.begin(), keep.end(), threshold == 0 ? 1 : 0);
    return absl::OkStatus();
  }
  size_t whole = part.size();
  uint64_t run = 1;
  while (whole > 0 && part[whole - 1] == Extent{0, sizes[whole - 1]}) {
    run *= sizes[--whole];
  }
  MaskWriter writer(stream, static_cast<uint32_t>(threshold));
  WritePart(writer, sizes, part, 0, whole, run, 0, keep.data());
  writer.Flush();
  return absl::OkStatus();
}

}  // namespace shardplane
