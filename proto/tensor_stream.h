// Tensors as streams of chunks with a checksum. Serves the four streaming
// messages (UploadTensorRequest, DownloadTensorResponse, StageTensorRequest,
// ReadTensorResponse): a header alone, then chunks of TensorData.
#ifndef SHARDPLANE_PROTO_TENSOR_STREAM_H_
#define SHARDPLANE_PROTO_TENSOR_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/errors.h"
#include "common/host_tensor.h"
#include "common/tensor_type.h"
#include "shardplane/v1/types.pb.h"

namespace shardplane {

inline constexpr size_t kMaxChunkBytes = size_t{1} << 20;

// Cuts bytes into chunks; borrows them. At least one chunk, also of nothing.
//
//   TensorChunker chunker(tensor.bytes);
//   while (chunker.Next(message.mutable_chunk())) { ... }
class TensorChunker {
 public:
  explicit TensorChunker(absl::string_view bytes,
                         size_t chunk_bytes = kMaxChunkBytes)
      : rest_(bytes), chunk_bytes_(chunk_bytes) {}

  // Fills the next chunk; false when the last one was given before.
  bool Next(v1::TensorData* chunk);

 private:
  absl::string_view rest_;
  size_t chunk_bytes_;
  uint32_t crc32_ = 0;
  bool done_ = false;
};

// Follows a stream without keeping it: what a relay needs.
class TensorStreamChecker {
 public:
  explicit TensorStreamChecker(const TensorType& type);

  // InvalidArgument: a chunk over kMaxChunkBytes, or after the last; more
  // bytes than the type says, or less at the last. DataLoss: the checksum of
  // the last chunk is not that of the bytes that came.
  absl::Status Add(const v1::TensorData& chunk);
  // The stream has ended. InvalidArgument if the last chunk has not come.
  absl::Status Finish() const;

  bool done() const { return done_; }  // the last chunk has come
  int64_t received_bytes() const { return received_; }

 private:
  TensorType type_;
  int64_t expected_;
  int64_t received_ = 0;
  uint32_t crc32_ = 0;
  bool done_ = false;
};

// Puts a tensor together from its chunks. Errors as TensorStreamChecker.
class TensorAssembler {
 public:
  explicit TensorAssembler(const TensorType& type);

  absl::Status Add(const v1::TensorData& chunk);
  absl::StatusOr<HostTensor> Finish() &&;

  bool done() const { return checker_.done(); }

 private:
  TensorStreamChecker checker_;
  HostTensor tensor_;
};

// InvalidArgument unless `message`, not the first of its stream, is a chunk.
template <typename Message>
absl::Status CheckIsChunk(const Message& message) {
  if (message.has_header() || !message.has_chunk()) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        message.has_header() ? "chunk: expected a chunk after the header, got: "
                               "another header"
                             : "chunk: expected a chunk, got: nothing",
        {.reason = "FIELD_MISSING", .metadata = {{"field", "chunk"}}});
  }
  return absl::OkStatus();
}

// InvalidArgument unless `message`, the first of its stream, is a header alone.
template <typename Message>
absl::Status CheckIsHeader(const Message& message) {
  if (!message.has_header() || message.has_chunk()) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        message.has_header()
            ? "header: expected it alone, got: a chunk with it"
            : "header: expected on the first message, got: none",
        {.reason = "FIELD_MISSING", .metadata = {{"field", "header"}}});
  }
  return absl::OkStatus();
}

// Sends the chunks of `bytes` (the header has gone before). `write` takes a
// Message and returns false when the stream is broken, and so does this.
template <typename Message, typename Write>
bool SendChunks(absl::string_view bytes, Write&& write) {
  TensorChunker chunker(bytes);
  Message message;
  while (chunker.Next(message.mutable_chunk())) {
    if (!write(std::as_const(message))) {
      return false;
    }
  }
  return true;
}

// Receives the chunks of a tensor (the header has come before). `read` takes a
// Message* and returns false at the end of the stream.
template <typename Message, typename Read>
absl::StatusOr<HostTensor> ReceiveChunks(const TensorType& type, Read&& read) {
  TensorAssembler assembler(type);
  Message message;
  while (read(&message)) {
    SP_RETURN_IF_ERROR(CheckIsChunk(message));
    SP_RETURN_IF_ERROR(assembler.Add(message.chunk()));
  }
  return std::move(assembler).Finish();
}

}  // namespace shardplane

#endif  // SHARDPLANE_PROTO_TENSOR_STREAM_H_
