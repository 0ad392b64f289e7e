#include "common/link_costs.h"

#include <limits>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/errors.h"

namespace shardplane {
namespace {

struct Transport {
  absl::string_view name;
  LinkCosts costs;
};

// As docs/performance.md has them measured: shm and gloo with four ranks on two
// cores, where operators have no core to spare. nccl: what NVLink 4 of one host
// gives, rounded; it copies beside operators.
constexpr Transport kTransports[] = {
    {"shm", kDefaultLinkCosts},
    {"gloo", {.latency_us = 5000, .us_per_mib = 1250, .beside = 0}},
    {"nccl", {.latency_us = 25, .us_per_mib = 5, .beside = 1}},
};

struct Number {
  absl::string_view name;
  double LinkCosts::*field;
  bool required;
  double most;
};
constexpr Number kNumbers[] = {
    {"latency_us", &LinkCosts::latency_us, true,
     std::numeric_limits<double>::max()},
    {"us_per_mib", &LinkCosts::us_per_mib, true,
     std::numeric_limits<double>::max()},
    {"beside", &LinkCosts::beside, false, 1},
};

absl::Status Bad(absl::string_view what) {
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat("link costs: ", what),
                   {.reason = "LINK_COSTS", .metadata = {}});
}

absl::Status BadText(absl::string_view text) {
  return Bad(
      absl::StrCat("expected shm, gloo, nccl or "
                   "latency_us=NUMBER,us_per_mib=NUMBER[,beside=FRACTION]; "
                   "got: \"",
                   text, "\""));
}

}  // namespace

absl::StatusOr<LinkCosts> ParseLinkCosts(absl::string_view text) {
  for (const Transport& transport : kTransports) {
    if (transport.name == text) return transport.costs;
  }
  LinkCosts costs;
  std::vector<absl::string_view> parts = absl::StrSplit(text, ',');
  for (const Number& number : kNumbers) {
    if (parts.empty() && !number.required) break;
    if (parts.empty() || !absl::ConsumePrefix(&parts.front(), number.name) ||
        !absl::ConsumePrefix(&parts.front(), "=") ||
        !absl::SimpleAtod(parts.front(), &(costs.*number.field))) {
      return BadText(text);
    }
    parts.erase(parts.begin());
  }
  if (!parts.empty() || !CheckLinkCosts(costs).ok()) return BadText(text);
  return costs;
}

absl::Status CheckLinkCosts(const LinkCosts& costs) {
  for (const Number& number : kNumbers) {
    const double value = costs.*number.field;
    if (value >= 0 && value <= number.most) continue;
    return Bad(absl::StrCat(
        number.name, " is ",
        number.most == 1 ? "from 0 to 1" : "finite and not negative",
        "; got: ", value));
  }
  return absl::OkStatus();
}

double BytesUs(const LinkCosts& costs, RedistributeKind kind, int ranks,
               double bytes) {
  if (!IsCollective(kind) || ranks == 1) return 0;
  const double times = kind == RedistributeKind::kAllReduce ? 2 : 1;
  const double moved = times * (ranks - 1) / ranks * bytes;
  return moved / (1 << 20) * costs.us_per_mib;
}

double CostUs(const LinkCosts& costs, RedistributeKind kind, int ranks,
              double bytes) {
  if (!IsCollective(kind) || ranks == 1) return 0;
  return costs.latency_us + BytesUs(costs, kind, ranks, bytes);
}

}  // namespace shardplane
