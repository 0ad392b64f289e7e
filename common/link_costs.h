// What collectives cost: a time for each call and one for each byte.
#ifndef SHARDPLANE_COMMON_LINK_COSTS_H_
#define SHARDPLANE_COMMON_LINK_COSTS_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/sharded_program.h"

namespace shardplane {

// A collective of n bytes among w ranks takes
//   latency_us + f(w) * n / 2^20 * us_per_mib
// microseconds, where n is its larger buffer and f is (w - 1) / w, of
// all_reduce twice that: what a ring moves.
struct LinkCosts {
  double latency_us = 0;
  double us_per_mib = 0;
  // How much of the time of its bytes passes while operators run beside it:
  // 0 (they share a processor) to 1 (they do not meet).
  double beside = 0;
  friend bool operator==(const LinkCosts&, const LinkCosts&) = default;
};

// Of ranks that share a host's memory.
inline constexpr LinkCosts kDefaultLinkCosts = {.latency_us = 15,
                                                .us_per_mib = 500};

// Of one transport: "shm" (ranks on one host), "gloo" (a network between
// CPUs), "nccl" (GPUs that NVLink joins); or measured ones, as
// "latency_us=9.5,us_per_mib=300" or "latency_us=9.5,us_per_mib=300,beside=1".
// InvalidArgument: anything else.
absl::StatusOr<LinkCosts> ParseLinkCosts(absl::string_view text);
// InvalidArgument: a time that is negative or not finite, a share of more than
// all.
absl::Status CheckLinkCosts(const LinkCosts& costs);

// `bytes`: of the larger buffer. 0 for one rank, and for what is local.
double CostUs(const LinkCosts& costs, RedistributeKind kind, int ranks,
              double bytes);
// Without the latency.
double BytesUs(const LinkCosts& costs, RedistributeKind kind, int ranks,
               double bytes);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_LINK_COSTS_H_
