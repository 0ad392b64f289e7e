// Ids of writes.
#ifndef SHARDPLANE_CLIENT_REQUEST_ID_H_
#define SHARDPLANE_CLIENT_REQUEST_ID_H_

#include <string>

namespace shardplane {

// A new UUID of version 4: the same id and body get the same answer, however
// often they are sent. Thread-safe.
std::string NewRequestId();

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_REQUEST_ID_H_
