// The environment that c10d's NCCL is made in. Free of torch.
#ifndef SHARDPLANE_WORKER_NCCL_ENVIRONMENT_H_
#define SHARDPLANE_WORKER_NCCL_ENVIRONMENT_H_

namespace shardplane {

// Keeps c10d's watchdogs from ending the process, or a thread of it, when a
// peer or the coordinator is gone: that is ours to judge (ProcessGroup::Abort,
// Finish). Before any thread starts: it writes the environment.
void SetNcclEnvironment();

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_NCCL_ENVIRONMENT_H_
