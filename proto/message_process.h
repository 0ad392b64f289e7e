// What a process that lives on messages sets once, when it starts.
#ifndef SHARDPLANE_PROTO_MESSAGE_PROCESS_H_
#define SHARDPLANE_PROTO_MESSAGE_PROCESS_H_

namespace shardplane {

// Messages find their memory again: what is freed stays in the process, up to
// 64 MiB, and only blocks above 32 MiB come from the system one by one. Locks,
// gRPC's included, do without the search for deadlocks that Debian's build of
// Abseil has on; tests run with it. Before there are threads.
void SetUpMessageProcess();

}  // namespace shardplane

#endif  // SHARDPLANE_PROTO_MESSAGE_PROCESS_H_
