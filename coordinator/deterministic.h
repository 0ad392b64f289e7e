// Messages as bytes that are equal for equal messages.
#ifndef SHARDPLANE_COORDINATOR_DETERMINISTIC_H_
#define SHARDPLANE_COORDINATOR_DETERMINISTIC_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "coordinator/digest.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/message_lite.h"

namespace shardplane {

// Maps in the order of their keys.
inline std::string SerializeDeterministic(
    const google::protobuf::MessageLite& message) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  message.SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

// What is written goes into a digest. Long strings and bytes, such as those of
// tensors, are not copied on the way.
class DigestStream final : public google::protobuf::io::ZeroCopyOutputStream {
 public:
  explicit DigestStream(Digester* digester) : digester_(digester) {}
  ~DigestStream() override { Flush(); }

  bool Next(void** data, int* size) override {
    Flush();
    *data = buffer_;
    *size = static_cast<int>(sizeof(buffer_));
    filled_ = sizeof(buffer_);
    return true;
  }
  void BackUp(int count) override { filled_ -= static_cast<size_t>(count); }
  int64_t ByteCount() const override {
    return flushed_ + static_cast<int64_t>(filled_);
  }
  bool AllowsAliasing() const override { return true; }
  bool WriteAliasedRaw(const void* data, int size) override {
    Flush();
    Add(static_cast<const char*>(data), static_cast<size_t>(size));
    return true;
  }

 private:
  void Flush() {
    Add(buffer_, filled_);
    filled_ = 0;
  }
  void Add(const char* data, size_t size) {
    digester_->Add(absl::string_view(data, size));
    flushed_ += static_cast<int64_t>(size);
  }

  Digester* const digester_;
  char buffer_[1024];
  size_t filled_ = 0;  // of `buffer_`
  int64_t flushed_ = 0;
};

// Adds what SerializeDeterministic gives.
inline void AddDeterministic(const google::protobuf::MessageLite& message,
                             Digester* digester) {
  DigestStream stream(digester);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.EnableAliasing(true);
  coded.SetSerializationDeterministic(true);
  message.SerializeToCodedStream(&coded);
}

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_DETERMINISTIC_H_
