// Messages of ipc/link.h as protos.
#ifndef SHARDPLANE_PROTO_LOCAL_MESSAGE_H_
#define SHARDPLANE_PROTO_LOCAL_MESSAGE_H_

#include "absl/strings/string_view.h"
#include "google/protobuf/message_lite.h"

namespace shardplane {

// Reads a message whose bytes lie in two places; false: it is none.
bool ParseInTwo(absl::string_view bytes, absl::string_view rest,
                google::protobuf::MessageLite* message);

}  // namespace shardplane

#endif  // SHARDPLANE_PROTO_LOCAL_MESSAGE_H_
