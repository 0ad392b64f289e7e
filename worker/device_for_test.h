// Where the ranks of a test compute: on CPUs, and in tests tagged gpu, whose
// targets set SHARDPLANE_TEST_DEVICE=cuda, on the machine's GPUs in turn.
#ifndef SHARDPLANE_WORKER_DEVICE_FOR_TEST_H_
#define SHARDPLANE_WORKER_DEVICE_FOR_TEST_H_

#include <string>

#include "absl/status/status.h"

namespace shardplane {

// "cpu", "cuda:1".
std::string DeviceForTest(int rank);

// 0 also in a test that does not link worker/nccl_group.
int CountGpus();

// Whether a gang could not form only because this machine has fewer GPUs than
// the test has ranks, and its NCCL lets ranks share none.
bool TooFewGpus(const absl::Status& formed, int ranks);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_DEVICE_FOR_TEST_H_
