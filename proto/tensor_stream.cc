#include "proto/tensor_stream.h"

#include <zlib.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace shardplane {
namespace {

// A type may claim more than will ever come; growing beyond this is cheap.
constexpr int64_t kMaxReservedBytes = int64_t{64} << 20;

uint32_t Crc32(uint32_t crc, absl::string_view bytes) {
  return static_cast<uint32_t>(
      crc32_z(crc, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

absl::Status StreamError(absl::string_view reason, absl::string_view message) {
  return MakeError(
      absl::StatusCode::kInvalidArgument, absl::StrCat("chunk: ", message),
      {.reason = std::string(reason), .metadata = {{"field", "chunk"}}});
}

absl::Status WrongSize(const TensorType& type, int64_t expected,
                       absl::string_view got) {
  return StreamError("TENSOR_SIZE_MISMATCH",
                     absl::StrCat("expected ", expected, " bytes of ",
                                  ToString(type), ", got: ", got));
}

}  // namespace

bool TensorChunker::Next(v1::TensorData* chunk) {
  if (done_) {
    return false;
  }
  const absl::string_view data = rest_.substr(0, chunk_bytes_);
  rest_.remove_prefix(data.size());
  crc32_ = Crc32(crc32_, data);
  done_ = rest_.empty();
  chunk->set_data(data.data(), data.size());
  chunk->set_last(done_);
  chunk->set_crc32(done_ ? crc32_ : 0);
  return true;
}

TensorStreamChecker::TensorStreamChecker(const TensorType& type)
    : type_(type), expected_(ByteSize(type)) {}

absl::Status TensorStreamChecker::Add(const v1::TensorData& chunk) {
  if (done_) {
    return StreamError("CHUNK_AFTER_LAST",
                       "expected nothing after the last, got: another chunk");
  }
  const int64_t size = static_cast<int64_t>(chunk.data().size());
  if (size > static_cast<int64_t>(kMaxChunkBytes)) {
    return StreamError("CHUNK_TOO_LARGE",
                       absl::StrCat("expected at most ", kMaxChunkBytes,
                                    " bytes, got: ", size));
  }
  if (size > expected_ - received_) {
    return WrongSize(type_, expected_,
                     absl::StrCat("at least ", received_ + size));
  }
  received_ += size;
  crc32_ = Crc32(crc32_, chunk.data());
  if (!chunk.last()) {
    return absl::OkStatus();
  }
  done_ = true;
  if (received_ != expected_) {
    return WrongSize(type_, expected_, absl::StrCat(received_));
  }
  if (chunk.crc32() != crc32_) {
    return MakeError(absl::StatusCode::kDataLoss,
                     absl::StrCat("chunk: expected data with CRC-32 ",
                                  chunk.crc32(), ", got: ", crc32_),
                     {.reason = "CHECKSUM_MISMATCH",
                      .metadata = {{"field", "chunk.crc32"},
                                   {"expected", absl::StrCat(chunk.crc32())}}});
  }
  return absl::OkStatus();
}

absl::Status TensorStreamChecker::Finish() const {
  return done_ ? absl::OkStatus()
               : StreamError(
                     "STREAM_INCOMPLETE",
                     absl::StrCat("expected a last chunk at ", expected_,
                                  " bytes of ", ToString(type_),
                                  ", got: the stream's end at ", received_));
}

TensorAssembler::TensorAssembler(const TensorType& type) : checker_(type) {
  tensor_.type = type;
  tensor_.bytes.reserve(std::min(ByteSize(type), kMaxReservedBytes));
}

absl::Status TensorAssembler::Add(const v1::TensorData& chunk) {
  SP_RETURN_IF_ERROR(checker_.Add(chunk));
  tensor_.bytes.append(chunk.data());
  return absl::OkStatus();
}

absl::StatusOr<HostTensor> TensorAssembler::Finish() && {
  SP_RETURN_IF_ERROR(checker_.Finish());
  return std::move(tensor_);
}

}  // namespace shardplane
