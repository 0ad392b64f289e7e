#include "telemetry/gzip.h"

#include <zlib.h>

#include <string>

#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

std::string Gunzip(absl::string_view packed, size_t size) {
  z_stream stream = {};
  EXPECT_EQ(inflateInit2(&stream, 15 + 16), Z_OK);
  std::string text(size + 1, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = reinterpret_cast<Bytef*>(text.data());
  stream.avail_out = static_cast<uInt>(text.size());
  EXPECT_EQ(inflate(&stream, Z_FINISH), Z_STREAM_END);
  text.resize(stream.total_out);
  inflateEnd(&stream);
  return text;
}

TEST(GzipTest, ComesBackAsItWas) {
  for (const size_t size : {0, 1, 1000, 1 << 20}) {
    std::string text(size, 'x');
    for (size_t i = 0; i < size; i += 7) text[i] = static_cast<char>(i);
    EXPECT_EQ(Gunzip(Gzip(text, 1), size), text) << size;
  }
}

TEST(GzipTest, IsSmallerWhereTextRepeats) {
  const std::string text(100'000, 'a');
  EXPECT_LT(Gzip(text, 1).size(), text.size() / 50);
}

TEST(AcceptsGzipTest, ReadsTheHeader) {
  for (const char* header :
       {"gzip", "gzip, deflate, br", "br;q=1, GZIP ;q=0.5", "deflate,gzip"}) {
    EXPECT_TRUE(AcceptsGzip(header)) << header;
  }
  for (const char* header :
       {"", "identity", "gzip;q=0", "gzip; q=0.0", "xgzip", "gzip;q=x"}) {
    EXPECT_FALSE(AcceptsGzip(header)) << header;
  }
}

}  // namespace
}  // namespace shardplane
