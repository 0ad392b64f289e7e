#include "proto/local_message.h"

#include "google/protobuf/io/zero_copy_stream_impl.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"

namespace shardplane {

using google::protobuf::io::ArrayInputStream;
using google::protobuf::io::ConcatenatingInputStream;
using google::protobuf::io::ZeroCopyInputStream;

bool ParseInTwo(absl::string_view bytes, absl::string_view rest,
                google::protobuf::MessageLite* message) {
  ArrayInputStream first(bytes.data(), static_cast<int>(bytes.size()));
  ArrayInputStream second(rest.data(), static_cast<int>(rest.size()));
  ZeroCopyInputStream* const both[] = {&first, &second};
  ConcatenatingInputStream stream(both, 2);
  return message->ParseFromZeroCopyStream(&stream);
}

}  // namespace shardplane
