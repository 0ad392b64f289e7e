// The client's own side of a call, against a coordinator of the test's.
#include "client/client.h"

#include <zlib.h>

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "client/error_info.h"
#include "client/fake_coordinator.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/grpc_status.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using ::testing::_;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;
using ::testing::Pair;
using ::testing::SizeIs;

constexpr size_t kMiB = size_t{1} << 20;

class ClientTest : public ::testing::Test {
 protected:
  // `options.sleep` is the test's: it returns at once.
  void Connect(ClientOptions options = {}) {
    options.sleep = [this](absl::Duration wait) {
      absl::MutexLock lock(&mu_);
      waits_.push_back(wait);
    };
    auto client = Client::Connect(fake_.address(), std::move(options));
    ASSERT_THAT(client, IsOk());
    client_ = *std::move(client);
  }
  void SetUp() override { Connect(); }

  // Makes the next calls fail as a coordinator's errors do.
  void FailNext(absl::StatusCode code, int times = 1,
                const char* retry_ms = "0") {
    for (int i = 0; i < times; ++i) {
      fake_.FailNext(ToGrpcStatus(
          MakeError(code, "the fake says no",
                    {.reason = "FAKE", .metadata = {{"retry_ms", retry_ms}}})));
    }
  }
  static pb::StepRequest StepOf(uint64_t number) {
    pb::StepRequest request;
    request.set_deployment("deployments/d");
    request.set_step(number);
    return request;
  }
  std::vector<std::string> StepIds() const {
    std::vector<std::string> ids;
    for (const pb::StepRequest& step : fake_.steps()) {
      ids.push_back(step.request_id());
    }
    return ids;
  }
  std::vector<absl::Duration> waits() {
    absl::MutexLock lock(&mu_);
    return waits_;
  }

  FakeCoordinator fake_;
  absl::Mutex mu_;
  std::vector<absl::Duration> waits_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<Client> client_;
};

// ------------------------------------------------------------- connecting

TEST_F(ClientTest, NobodyThereIsUnavailable) {
  std::string address;
  {
    FakeCoordinator gone;
    address = gone.address();
  }
  const auto client =
      Client::Connect(address, {.connect_timeout = absl::Milliseconds(100)});
  EXPECT_THAT(client,
              StatusIs(absl::StatusCode::kUnavailable,
                       absl::StrCat("address: expected a coordinator that "
                                    "answers within 100ms, got: none at ",
                                    address)));
  EXPECT_THAT(client, HasReason("NOT_CONNECTED"));
}

// ---------------------------------------------------------------- retries

TEST_F(ClientTest, UnavailableIsTriedAgainUnderTheSameId) {
  FailNext(absl::StatusCode::kUnavailable, 2);
  const auto result = client_->Step(StepOf(3));
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->number(), 3u);
  const std::vector<std::string> ids = StepIds();
  ASSERT_THAT(ids, SizeIs(3));
  EXPECT_THAT(ids, Each(ids[0]));
  EXPECT_THAT(waits(), SizeIs(2));
}

TEST_F(ClientTest, EachCallHasAnIdOfItsOwn) {
  ASSERT_THAT(client_->Step(StepOf(1)), IsOk());
  ASSERT_THAT(client_->Step(StepOf(2)), IsOk());
  const std::vector<std::string> ids = StepIds();
  EXPECT_THAT(ids, Each(MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-"
                                     "[89ab][0-9a-f]{3}-[0-9a-f]{12}")));
  EXPECT_NE(ids[0], ids[1]);
}

TEST_F(ClientTest, TheCallersIdIsKept) {
  pb::StepRequest request = StepOf(1);
  request.set_request_id("mine");
  ASSERT_THAT(client_->Step(request), IsOk());
  EXPECT_THAT(StepIds(), ElementsAre("mine"));
}

TEST_F(ClientTest, WaitsAsLongAsTheCoordinatorAsksFor) {
  FailNext(absl::StatusCode::kUnavailable, 1, "300");
  ASSERT_THAT(client_->Step(StepOf(1)), IsOk());
  EXPECT_THAT(waits(), ElementsAre(Ge(absl::Milliseconds(300))));
}

TEST_F(ClientTest, GivesUpInTheEnd) {
  Connect({.backoff = {.retry_for = -absl::Seconds(1)}});
  FailNext(absl::StatusCode::kUnavailable);
  EXPECT_THAT(
      client_->Step(StepOf(1)),
      AllOf(StatusIs(absl::StatusCode::kUnavailable, "the fake says no"),
            HasReason("FAKE")));
  EXPECT_THAT(StepIds(), SizeIs(1));
}

class CodeTest : public ClientTest,
                 public ::testing::WithParamInterface<absl::StatusCode> {};

TEST_P(CodeTest, IsReturnedAtOnceWithItsDetails) {
  FailNext(GetParam());
  const auto result = client_->Step(StepOf(1));
  EXPECT_THAT(result, StatusIs(GetParam(), "the fake says no"));
  EXPECT_THAT(StepIds(), SizeIs(1));
  const google::rpc::ErrorInfo info = ErrorInfoOf(result.status());
  EXPECT_EQ(info.reason(), "FAKE");
  EXPECT_EQ(info.domain(), "shardplane");
  EXPECT_THAT(info.metadata(), ElementsAre(Pair("retry_ms", "0")));
}

INSTANTIATE_TEST_SUITE_P(
    Codes, CodeTest,
    ::testing::Values(
        absl::StatusCode::kInvalidArgument, absl::StatusCode::kNotFound,
        absl::StatusCode::kUnimplemented, absl::StatusCode::kFailedPrecondition,
        absl::StatusCode::kAborted, absl::StatusCode::kResourceExhausted,
        absl::StatusCode::kInternal, absl::StatusCode::kDeadlineExceeded),
    [](const auto& info) {
      std::string name;
      for (const char c : absl::StatusCodeToString(info.param)) {
        name += c == '_' ? "" : std::string(1, c);
      }
      return name;
    });

TEST_F(ClientTest, AnErrorOfGrpcsOwnHasItsCodeAsReason) {
  const auto program = client_->GetProgram("deployments/d/programs/p");
  EXPECT_THAT(program, StatusIs(absl::StatusCode::kUnimplemented, _));
  EXPECT_EQ(ErrorInfoOf(program.status()).reason(), "UNIMPLEMENTED");
  EXPECT_THAT(ErrorInfoOf(program.status()).metadata(), IsEmpty());
}

TEST_F(ClientTest, EveryCallHasADeadline) {
  Connect({.step_timeout = absl::Milliseconds(50)});
  fake_.Hold();
  EXPECT_THAT(client_->Step(StepOf(1)),
              StatusIs(absl::StatusCode::kDeadlineExceeded, _));
}

TEST_F(ClientTest, ThreadsShareAClient) {
  std::vector<std::thread> threads;
  for (uint64_t n = 1; n <= 8; ++n) {
    threads.emplace_back([this, n] {
      for (int i = 0; i < 20; ++i) {
        const auto result = client_->Step(StepOf(n));
        ASSERT_THAT(result, IsOk());
        ASSERT_EQ(result->number(), n);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_THAT(StepIds(), SizeIs(160));
}

// ---------------------------------------------------------------- tensors

std::string Pattern(size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) {
    bytes[i] = static_cast<char>(i * 7 + i / 251);
  }
  return bytes;
}

uint32_t Crc32(const std::string& bytes) {
  return static_cast<uint32_t>(
      crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

pb::TensorType BytesType(int64_t size) {
  pb::TensorType type;
  type.set_dtype(pb::DTYPE_UINT8);
  type.add_shape(size);
  return type;
}

pb::UploadTensorRequest::Header HeaderOf(int64_t size) {
  pb::UploadTensorRequest::Header header;
  header.set_deployment("deployments/d");
  header.set_upload("u");
  *header.mutable_type() = BytesType(size);
  return header;
}

TEST_F(ClientTest, UploadsInChunksWithAChecksum) {
  const std::string bytes = Pattern(2 * kMiB + 5);
  ASSERT_THAT(client_->Upload(HeaderOf(bytes.size()), bytes), IsOk());
  const std::vector<FakeUpload> uploads = fake_.uploads();
  ASSERT_THAT(uploads, SizeIs(1));
  EXPECT_EQ(uploads[0].header.upload(), "u");
  EXPECT_THAT(uploads[0].header.request_id(), SizeIs(36));
  std::string came;
  std::vector<std::pair<size_t, bool>> sizes;
  for (const pb::TensorData& chunk : uploads[0].chunks) {
    sizes.emplace_back(chunk.data().size(), chunk.last());
    came += chunk.data();
  }
  EXPECT_THAT(sizes,
              ElementsAre(Pair(kMiB, false), Pair(kMiB, false), Pair(5, true)));
  EXPECT_TRUE(came == bytes);
  EXPECT_EQ(uploads[0].chunks.back().crc32(), Crc32(bytes));
}

TEST_F(ClientTest, UploadsNothingAsOneChunk) {
  ASSERT_THAT(client_->Upload(HeaderOf(0), ""), IsOk());
  ASSERT_THAT(fake_.uploads(), SizeIs(1));
  ASSERT_THAT(fake_.uploads()[0].chunks, SizeIs(1));
  EXPECT_TRUE(fake_.uploads()[0].chunks[0].last());
}

TEST_F(ClientTest, AnUploadIsTriedAgainAsAWhole) {
  const std::string bytes = Pattern(3 * kMiB);
  FailNext(absl::StatusCode::kUnavailable);
  ASSERT_THAT(client_->Upload(HeaderOf(bytes.size()), bytes), IsOk());
  const std::vector<FakeUpload> uploads = fake_.uploads();
  ASSERT_THAT(uploads, SizeIs(2));
  EXPECT_THAT(uploads[1].chunks, SizeIs(3));
  EXPECT_EQ(uploads[0].header.request_id(), uploads[1].header.request_id());
}

TEST_F(ClientTest, AnUploadThatIsRefusedSaysWhy) {
  FailNext(absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(
      client_->Upload(HeaderOf(8 * kMiB), Pattern(8 * kMiB)),
      AllOf(StatusIs(absl::StatusCode::kInvalidArgument, "the fake says no"),
            HasReason("FAKE")));
}

// A download of `bytes` in chunks of at most `chunk` bytes.
std::vector<pb::DownloadTensorResponse> DownloadOf(const std::string& bytes,
                                                   size_t chunk) {
  std::vector<pb::DownloadTensorResponse> messages(1);
  *messages[0].mutable_header()->mutable_type() = BytesType(bytes.size());
  messages[0].mutable_header()->mutable_spec()->add_placements();
  for (size_t at = 0; at < bytes.size(); at += chunk) {
    messages.emplace_back().mutable_chunk()->set_data(bytes.substr(at, chunk));
  }
  messages.back().mutable_chunk()->set_last(true);
  messages.back().mutable_chunk()->set_crc32(Crc32(bytes));
  return messages;
}

TEST_F(ClientTest, DownloadsChunks) {
  const std::string bytes = Pattern(2 * kMiB + 1);
  fake_.SetDownload(DownloadOf(bytes, kMiB));
  const auto tensor = client_->Download({});
  ASSERT_THAT(tensor, IsOk());
  EXPECT_TRUE(tensor->bytes == bytes);
  EXPECT_EQ(tensor->type.shape(0), static_cast<int64_t>(bytes.size()));
  EXPECT_EQ(tensor->spec.placements_size(), 1);
}

TEST_F(ClientTest, ADownloadIsTriedAgain) {
  const std::string bytes = Pattern(100);
  fake_.SetDownload(DownloadOf(bytes, 30));
  FailNext(absl::StatusCode::kUnavailable);
  const auto tensor = client_->Download({});
  ASSERT_THAT(tensor, IsOk());
  EXPECT_EQ(tensor->bytes, bytes);
  EXPECT_THAT(waits(), SizeIs(1));
}

TEST_F(ClientTest, ADownloadThatIsRefusedSaysWhy) {
  FailNext(absl::StatusCode::kNotFound);
  EXPECT_THAT(client_->Download({}),
              AllOf(StatusIs(absl::StatusCode::kNotFound, "the fake says no"),
                    HasReason("FAKE")));
}

// What a stream of a download may do wrong.
struct BadDownload {
  const char* name;
  void (*spoil)(std::vector<pb::DownloadTensorResponse>* messages);
  const char* reason;
};
void PrintTo(const BadDownload& value, std::ostream* os) { *os << value.name; }

class BadDownloadTest : public ClientTest,
                        public ::testing::WithParamInterface<BadDownload> {};

TEST_P(BadDownloadTest, IsDataLoss) {
  std::vector<pb::DownloadTensorResponse> messages =
      DownloadOf(Pattern(100), 30);
  GetParam().spoil(&messages);
  fake_.SetDownload(messages);
  EXPECT_THAT(client_->Download({}),
              AllOf(StatusIs(absl::StatusCode::kDataLoss, HasSubstr("got:")),
                    HasReason(GetParam().reason)));
}

INSTANTIATE_TEST_SUITE_P(
    Streams, BadDownloadTest,
    ::testing::Values(
        BadDownload{"damaged",
                    [](auto* messages) {
                      (*messages)[2].mutable_chunk()->mutable_data()->at(7) ^=
                          1;
                    },
                    "CHECKSUM_MISMATCH"},
        BadDownload{"cut", [](auto* messages) { messages->pop_back(); },
                    "STREAM_INCOMPLETE"},
        BadDownload{"empty", [](auto* messages) { messages->clear(); },
                    "FIELD_MISSING"},
        BadDownload{"without a header",
                    [](auto* messages) { messages->erase(messages->begin()); },
                    "FIELD_MISSING"},
        BadDownload{"of no type",
                    [](auto* messages) {
                      messages->front().mutable_header()->clear_type();
                    },
                    "ENUM_INVALID"},
        BadDownload{"too long",
                    [](auto* messages) {
                      (*messages)[1].mutable_chunk()->mutable_data()->append(
                          "more");
                    },
                    "TENSOR_SIZE_MISMATCH"}),
    CaseName<BadDownload>);

// ---------------------------------------------------------------- requests

TEST(ParseCreateDeploymentTest, TakesBothNamesOfAField) {
  const auto request = ParseCreateDeployment(
      R"({"validate_only": true, "deployment": {"srcDataRank": 1}})");
  ASSERT_THAT(request, IsOk());
  EXPECT_TRUE(request->validate_only());
  EXPECT_EQ(request->deployment().src_data_rank(), 1);
}

TEST(ParseCreateDeploymentTest, RefusesWhatItDoesNotKnow) {
  for (const char* text : {"", "[]", "{", R"({"modul": {}})"}) {
    EXPECT_THAT(
        ParseCreateDeployment(text),
        AllOf(StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("got: ")),
              HasReason("JSON_INVALID")))
        << text;
  }
}

}  // namespace
}  // namespace shardplane
