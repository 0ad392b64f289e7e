#include "client/shardctl/text_values.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

namespace shardplane {
namespace {

// By the numbers of v1::DType.
constexpr std::array<const char*, 13> kDTypes = {
    "?",   "f32", "f64", "f16",  "bf16", "i64", "i32",
    "i16", "i8",  "u8",  "bool", "c64",  "c128"};

struct AgeUnit {
  const char* name;
  absl::Duration size;
};

}  // namespace

std::string OrNone(absl::string_view text) {
  return std::string(text.empty() ? kNone : text);
}

std::string BytesText(int64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"KiB", "MiB", "GiB", "TiB",
                                                 "PiB"};
  if (bytes < 1024) {
    return absl::StrCat(bytes, " B");
  }
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < kUnits.size(); ++unit) {
    value /= 1024;
  }
  return absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

std::string AgeText(absl::Duration age) {
  const std::array<AgeUnit, 4> units = {{{"d", absl::Hours(24)},
                                         {"h", absl::Hours(1)},
                                         {"m", absl::Minutes(1)},
                                         {"s", absl::Seconds(1)}}};
  constexpr int64_t kManyDays = 100;
  absl::Duration rest = std::max(age, absl::ZeroDuration());
  for (size_t i = 0; i < units.size(); ++i) {
    const int64_t count = absl::IDivDuration(rest, units[i].size, &rest);
    if (count == 0 && i + 1 < units.size()) {
      continue;
    }
    std::string text = absl::StrCat(count, units[i].name);
    if (i + 1 < units.size() && !(i == 0 && count >= kManyDays)) {
      const int64_t less = absl::IDivDuration(rest, units[i + 1].size, &rest);
      if (less > 0) {
        absl::StrAppend(&text, less, units[i + 1].name);
      }
    }
    return text;
  }
  return "0s";
}

std::string AgeSince(const google::protobuf::Timestamp& then, absl::Time now) {
  if (then.seconds() == 0 && then.nanos() == 0) {
    return kNone;
  }
  return AgeText(now - (absl::FromUnixSeconds(then.seconds()) +
                        absl::Nanoseconds(then.nanos())));
}

std::string SecondsText(double seconds) {
  if (seconds < 1e-3) {
    return absl::StrFormat("%.3gus", seconds * 1e6);
  }
  if (seconds < 1) {
    return absl::StrFormat("%.3gms", seconds * 1e3);
  }
  return absl::StrFormat("%.3gs", seconds);
}

std::string EnumText(absl::string_view name, absl::string_view prefix) {
  return std::string(absl::StripPrefix(name, prefix));
}

std::string TypeText(const v1::TensorType& type) {
  const size_t dtype = static_cast<size_t>(type.dtype());
  return absl::StrCat(kDTypes[dtype < kDTypes.size() ? dtype : 0], "[",
                      absl::StrJoin(type.shape(), ", "), "]");
}

std::optional<double> ScalarOf(const v1::Tensor& tensor) {
  const std::string& bytes = tensor.inline_();
  if (tensor.type().dtype() == v1::DTYPE_FLOAT64 && bytes.size() == 8) {
    double value;
    std::memcpy(&value, bytes.data(), sizeof(value));
    return value;
  }
  uint32_t bits = 0;
  if (tensor.type().dtype() == v1::DTYPE_FLOAT32 && bytes.size() == 4) {
    std::memcpy(&bits, bytes.data(), sizeof(bits));
  } else if (tensor.type().dtype() == v1::DTYPE_BFLOAT16 && bytes.size() == 2) {
    uint16_t high;
    std::memcpy(&high, bytes.data(), sizeof(high));
    bits = static_cast<uint32_t>(high) << 16;
  } else {
    return std::nullopt;
  }
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

std::string LastPart(absl::string_view name) {
  const size_t slash = name.rfind('/');
  return std::string(slash == absl::string_view::npos ? name
                                                      : name.substr(slash + 1));
}

}  // namespace shardplane
