// What the tests of the conversions share.
#ifndef SHARDPLANE_PROTO_CONVERT_TESTING_H_
#define SHARDPLANE_PROTO_CONVERT_TESTING_H_

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/errors.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace shardplane {

// A message from its text form; a test that cannot be read fails.
template <typename Message>
Message ParseText(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message))
      << text;
  return message;
}

// A status with this code whose message and metadata name this field.
MATCHER_P2(IsFieldError, code, field, "") {
  const absl::Status& status = arg;
  *result_listener << status.ToString();
  const auto info = GetErrorInfo(status);
  if (status.code() != code || !info.has_value() || info->reason.empty()) {
    return false;
  }
  const auto it = info->metadata.find("field");
  if (it == info->metadata.end()) {
    *result_listener << ", without a field";
    return false;
  }
  *result_listener << ", field " << it->second;
  return it->second == field;
}

// A bad message and what it is refused with.
struct BadMessage {
  std::string name;  // in words, for the test's name
  std::string text;
  std::string field;
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};

// Seeded by SHARDPLANE_TEST_SEED, else by chance; says which.
inline uint64_t TestSeed() {
  const char* given = std::getenv("SHARDPLANE_TEST_SEED");
  const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10)
                                         : std::random_device{}();
  std::cout << "SHARDPLANE_TEST_SEED=" << seed << std::endl;
  return seed;
}

// Serialized bytes of `message` with bits flipped, bytes dropped or appended:
// what a broken or hostile peer might send.
inline std::string Garble(std::string bytes, std::mt19937_64& random) {
  if (bytes.empty()) {
    bytes.push_back(0);
  }
  const size_t at = random() % bytes.size();
  switch (random() % 4) {
    case 0:
      bytes.resize(at);
      break;
    case 1:
      bytes[at] = static_cast<char>(random());
      break;
    case 2:
      bytes[at] ^= static_cast<char>(1 << (random() % 8));
      break;
    default:
      bytes.insert(at, 1, static_cast<char>(random()));
      break;
  }
  return bytes;
}

}  // namespace shardplane

#endif  // SHARDPLANE_PROTO_CONVERT_TESTING_H_
