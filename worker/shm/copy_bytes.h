// Copies between memory of this process and lines that another core has just
// written.
#ifndef SHARDPLANE_WORKER_SHM_COPY_BYTES_H_
#define SHARDPLANE_WORKER_SHM_COPY_BYTES_H_

#include <cstddef>
#include <cstdint>

namespace shardplane {

// memcpy; with `bytes` 0 the pointers may be null.
void CopyBytes(std::byte* to, const std::byte* from, int64_t bytes);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_COPY_BYTES_H_
