#include "common/link_costs.h"

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/errors.h"

namespace shardplane {
namespace {

struct Transport {
  absl::string_view name;
  LinkCosts costs;
};

// As docs/performance.md has them measured: shm and gloo with four ranks on two
// cores. nccl: what NVLink 4 of one host gives, rounded.
constexpr Transport kTransports[] = {
    {"shm", kDefaultLinkCosts},
    {"gloo", {.latency_us = 5000, .us_per_mib = 1250}},
    {"nccl", {.latency_us = 25, .us_per_mib = 5}},
};

absl::Status Bad(absl::string_view text) {
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat("link costs: expected shm, gloo, nccl or "
                                "latency_us=NUMBER,us_per_mib=NUMBER; got: \"",
                                text, "\""),
                   {.reason = "LINK_COSTS", .metadata = {}});
}

}  // namespace

absl::StatusOr<LinkCosts> ParseLinkCosts(absl::string_view text) {
  for (const Transport& transport : kTransports) {
    if (transport.name == text) return transport.costs;
  }
  LinkCosts costs;
  std::vector<std::pair<absl::string_view, double*>> wanted = {
      {"latency_us", &costs.latency_us}, {"us_per_mib", &costs.us_per_mib}};
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ',');
  if (parts.size() != wanted.size()) return Bad(text);
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::pair<absl::string_view, absl::string_view> pair =
        absl::StrSplit(parts[i], absl::MaxSplits('=', 1));
    if (pair.first != wanted[i].first ||
        !absl::SimpleAtod(pair.second, wanted[i].second) ||
        !std::isfinite(*wanted[i].second) || *wanted[i].second < 0) {
      return Bad(text);
    }
  }
  return costs;
}

std::string ToString(const LinkCosts& costs) {
  return absl::StrCat("latency_us=", costs.latency_us,
                      ",us_per_mib=", costs.us_per_mib);
}

double CostUs(const LinkCosts& costs, RedistributeKind kind, int ranks,
              double bytes) {
  if (!IsCollective(kind) || ranks == 1) return 0;
  const double times = kind == RedistributeKind::kAllReduce ? 2 : 1;
  const double moved = times * (ranks - 1) / ranks * bytes;
  return costs.latency_us + moved / (1 << 20) * costs.us_per_mib;
}

}  // namespace shardplane
