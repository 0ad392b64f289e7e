#include "proto/tensor_stream.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/convert/testing.h"
#include "shardplane/v1/coordinator.pb.h"
#include "shardplane/v1/worker.pb.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

std::string RandomBytes(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string bytes(size, 0);
  for (char& byte : bytes) {
    byte = static_cast<char>(random());
  }
  return bytes;
}

TensorType Bytes(size_t size) {
  return {DType::kUInt8, {static_cast<int64_t>(size)}};
}

std::vector<pb::TensorData> Chunks(absl::string_view bytes,
                                   size_t chunk_bytes = kMaxChunkBytes) {
  std::vector<pb::TensorData> chunks;
  TensorChunker chunker(bytes, chunk_bytes);
  pb::TensorData chunk;
  while (chunker.Next(&chunk)) {
    chunks.push_back(chunk);
  }
  return chunks;
}

// The first error that a stream of these chunks meets, or its tensor.
absl::StatusOr<HostTensor> Assemble(const TensorType& type,
                                    const std::vector<pb::TensorData>& chunks) {
  TensorAssembler assembler(type);
  for (const pb::TensorData& chunk : chunks) {
    SP_RETURN_IF_ERROR(assembler.Add(chunk));
  }
  return std::move(assembler).Finish();
}

TEST(TensorStreamTest, BytesOfAnySizeComeBack) {
  const uint64_t seed = TestSeed();
  for (const size_t size :
       {size_t{0}, size_t{1}, kMaxChunkBytes - 1, kMaxChunkBytes,
        kMaxChunkBytes + 1, 3 * kMaxChunkBytes}) {
    const std::string bytes = RandomBytes(size, seed);
    const auto tensor = Assemble(Bytes(size), Chunks(bytes));
    ASSERT_TRUE(tensor.ok()) << tensor.status();
    EXPECT_EQ(tensor->type, Bytes(size));
    EXPECT_TRUE(tensor->bytes == bytes) << size;
  }
}

TEST(TensorStreamTest, OnlyTheLastChunkIsMarkedAndSigned) {
  const std::vector<pb::TensorData> chunks = Chunks("123456789", 4);
  ASSERT_EQ(chunks.size(), 3u);
  EXPECT_EQ(chunks[0].data(), "1234");
  EXPECT_FALSE(chunks[0].last());
  EXPECT_EQ(chunks[0].crc32(), 0u);
  EXPECT_EQ(chunks[2].data(), "9");
  EXPECT_TRUE(chunks[2].last());
  // The check value that every description of this CRC gives.
  EXPECT_EQ(chunks[2].crc32(), 0xCBF43926u);
}

TEST(TensorStreamTest, NothingIsOneEmptyChunk) {
  const std::vector<pb::TensorData> chunks = Chunks("");
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_TRUE(chunks[0].last());
}

TEST(TensorStreamTest, AFlippedBitIsDataLoss) {
  auto chunks = Chunks(RandomBytes(100, 1), 30);
  (*chunks[1].mutable_data())[7] ^= 4;
  EXPECT_THAT(Assemble(Bytes(100), chunks).status(),
              IsFieldError(absl::StatusCode::kDataLoss, "chunk.crc32"));
}

TEST(TensorStreamTest, WrongStreamsAreRefused) {
  const std::string bytes = RandomBytes(100, 1);
  auto unfinished = Chunks(bytes, 30);
  unfinished.pop_back();
  auto twice = Chunks(bytes, 30);
  twice.push_back(twice.back());
  auto large = Chunks(std::string(kMaxChunkBytes + 1, 'x'), 2 * kMaxChunkBytes);
  const struct {
    std::string name;
    TensorType type;
    std::vector<pb::TensorData> chunks;
    std::string reason;
  } table[] = {
      {"too many bytes", Bytes(99), Chunks(bytes, 30), "TENSOR_SIZE_MISMATCH"},
      {"too few bytes", Bytes(101), Chunks(bytes, 30), "TENSOR_SIZE_MISMATCH"},
      {"no bytes", Bytes(101), Chunks(""), "TENSOR_SIZE_MISMATCH"},
      {"no last chunk", Bytes(100), unfinished, "STREAM_INCOMPLETE"},
      {"no chunk", Bytes(0), {}, "STREAM_INCOMPLETE"},
      {"a chunk after the last", Bytes(100), twice, "CHUNK_AFTER_LAST"},
      {"a chunk too large", Bytes(kMaxChunkBytes + 1), large,
       "CHUNK_TOO_LARGE"},
  };
  for (const auto& bad : table) {
    SCOPED_TRACE(bad.name);
    const absl::Status status = Assemble(bad.type, bad.chunks).status();
    EXPECT_THAT(status,
                IsFieldError(absl::StatusCode::kInvalidArgument, "chunk"));
    EXPECT_EQ(GetErrorInfo(status)->reason, bad.reason);
  }
}

TEST(TensorStreamTest, AHugeClaimCostsNothing) {
  TensorAssembler assembler({DType::kFloat64, {int64_t{1} << 59}});
  EXPECT_FALSE(std::move(assembler).Finish().ok());
}

// Each of the four messages goes through a stream of its own kind.
template <typename Message>
class StreamedMessageTest : public testing::Test {};
using Streamed =
    testing::Types<pb::UploadTensorRequest, pb::DownloadTensorResponse,
                   pb::StageTensorRequest, pb::ReadTensorResponse>;
TYPED_TEST_SUITE(StreamedMessageTest, Streamed);

TYPED_TEST(StreamedMessageTest, GoesThroughAStream) {
  const std::string bytes = RandomBytes(2 * kMaxChunkBytes + 5, 2);
  std::vector<TypeParam> stream;
  EXPECT_TRUE(SendChunks<TypeParam>(bytes, [&](const TypeParam& message) {
    stream.push_back(message);
    return true;
  }));
  size_t next = 0;
  const auto tensor =
      ReceiveChunks<TypeParam>(Bytes(bytes.size()), [&](TypeParam* message) {
        if (next == stream.size()) {
          return false;
        }
        *message = stream[next++];
        return true;
      });
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_TRUE(tensor->bytes == bytes);
}

TYPED_TEST(StreamedMessageTest, ABrokenStreamEndsSending) {
  int written = 0;
  EXPECT_FALSE(
      SendChunks<TypeParam>(std::string(3 * kMaxChunkBytes, 'x'),
                            [&](const TypeParam&) { return ++written < 2; }));
  EXPECT_EQ(written, 2);
}

TYPED_TEST(StreamedMessageTest, HeaderAndChunksStandAlone) {
  TypeParam none, header, chunk, both;
  header.mutable_header();
  chunk.mutable_chunk();
  both.mutable_header();
  both.mutable_chunk();
  EXPECT_TRUE(CheckIsHeader(header).ok());
  EXPECT_TRUE(CheckIsChunk(chunk).ok());
  for (const TypeParam& message : {none, chunk, both}) {
    EXPECT_THAT(CheckIsHeader(message),
                IsFieldError(absl::StatusCode::kInvalidArgument, "header"));
  }
  for (const TypeParam& message : {none, header, both}) {
    EXPECT_THAT(CheckIsChunk(message),
                IsFieldError(absl::StatusCode::kInvalidArgument, "chunk"));
  }
}

}  // namespace
}  // namespace shardplane
