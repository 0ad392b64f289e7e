#include "worker/class_ids.h"

#include <algorithm>
#include <string>
#include <tuple>

#include "ATen/core/Tensor.h"
#include "ATen/core/dispatch/Dispatcher.h"
#include "absl/strings/str_cat.h"
#include "worker/data_faults.h"
#include "worker/sharded_operators.h"

namespace shardplane {
namespace {

struct Allowed {
  const char* what;
  IdRange range;

  int64_t lowest() const { return range.from_end ? -range.count : 0; }
  bool operator()(int64_t id) const {
    return (id >= lowest() && id < range.count) || id == range.ignored;
  }
  std::string Message(int64_t bad) const {
    return absl::StrCat(what, " ", bad, " is out of bounds: expected one in [",
                        lowest(), ", ", range.count, ")",
                        range.ignored.has_value()
                            ? absl::StrCat(" or the ignored ", *range.ignored)
                            : "",
                        "; got: ", bad);
  }
};

at::Tensor OnHost(const at::Tensor& ids) {
  return ids.to(at::kCPU, at::kLong).contiguous();
}

// The first id that is not allowed; nullptr if all are.
const int64_t* FindBad(const at::Tensor& host, const Allowed& allowed) {
  const int64_t* const begin = host.const_data_ptr<int64_t>();
  const int64_t* const found =
      std::find_if_not(begin, begin + host.numel(), allowed);
  return found == begin + host.numel() ? nullptr : found;
}

// Each once, of ids that were expanded.
at::Tensor Distinct(const at::Tensor& ids) {
  at::Tensor distinct = ids;
  for (int64_t dim = 0; dim < ids.dim(); ++dim) {
    if (ids.stride(dim) == 0 && ids.size(dim) > 1) {
      distinct = distinct.narrow(dim, 0, 1);
    }
  }
  return distinct;
}

// The device looks, and the host asks it once all has been computed.
at::Tensor CheckedLater(const at::Tensor& ids, const Allowed& allowed,
                        DataFaults& faults) {
  static const auto replace = [] {
    RegisterShardedOperators();
    return c10::Dispatcher::singleton()
        .findSchemaOrThrow("shardplane::checked_ids", "")
        .typed<decltype(ReplaceBadIds)>();
  }();
  auto [good, bad] = replace.call(ids, allowed.lowest(), allowed.range.count,
                                  allowed.range.ignored);
  faults.Defer(bad, [ids, allowed]() -> std::string {
    const at::Tensor host = OnHost(ids);
    const int64_t* const found = FindBad(host, allowed);
    TORCH_INTERNAL_ASSERT(found != nullptr);
    return allowed.Message(*found);
  });
  return good;
}

// Ids that the host looks at now.
at::Tensor CheckedNow(const at::Tensor& ids, const Allowed& allowed,
                      DataFaults* faults) {
  // One copy, or none: cheaper than asking the device several times.
  const at::Tensor host = OnHost(ids);
  const int64_t* const found = FindBad(host, allowed);
  if (found == nullptr) return ids;
  const std::string message = allowed.Message(*found);
  TORCH_CHECK_INDEX(faults != nullptr && allowed.range.count > 0, message);
  faults->Note(message);
  const at::Tensor good = host.clone();
  std::replace_if(
      good.mutable_data_ptr<int64_t>(),
      good.mutable_data_ptr<int64_t>() + good.numel(),
      [&](int64_t id) { return !allowed(id); }, int64_t{0});
  return good.to(ids.options());
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> ReplaceBadIds(
    const at::Tensor& ids, int64_t lowest, int64_t limit,
    std::optional<int64_t> ignored) {
  // Limits may be too large for the ids' own type.
  const at::Tensor wide = ids.to(at::kLong);
  at::Tensor bad = wide.lt(lowest).logical_or_(wide.ge(limit));
  if (ignored.has_value()) bad.logical_and_(wide.ne(*ignored));
  return {ids.masked_fill(bad, 0), bad.any()};
}

at::Tensor CheckedIds(const char* what, const at::Tensor& ids,
                      const IdRange& range) {
  TORCH_CHECK_TYPE(at::isIntegralType(ids.scalar_type(), /*includeBool=*/false),
                   what, ": expected integers; got: ", ids.scalar_type());
  const Allowed allowed{what, range};
  DataFaults* const faults = DataFaults::Current();
  const bool later = faults != nullptr && faults->defers() && range.count > 0;
  const at::Tensor distinct = Distinct(ids);
  const at::Tensor checked = later ? CheckedLater(distinct, allowed, *faults)
                                   : CheckedNow(distinct, allowed, faults);
  if (checked.is_same(distinct)) return ids;
  return checked.expand(ids.sizes());
}

}  // namespace shardplane
