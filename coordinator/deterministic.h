// Messages as bytes that are equal for equal messages.
#ifndef SHARDPLANE_COORDINATOR_DETERMINISTIC_H_
#define SHARDPLANE_COORDINATOR_DETERMINISTIC_H_

#include <string>

#include "google/protobuf/io/coded_stream.h"
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

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_DETERMINISTIC_H_
