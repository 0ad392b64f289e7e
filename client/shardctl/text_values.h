// Values as shardctl shows them.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_TEXT_VALUES_H_
#define SHARDPLANE_CLIENT_SHARDCTL_TEXT_VALUES_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/timestamp.pb.h"
#include "shardplane/v1/types.pb.h"

namespace shardplane {

// What there is nothing to say of.
inline constexpr char kNone[] = "-";

std::string OrNone(absl::string_view text);

// 999 -> "999 B", 1536 -> "1.5 KiB", 1 << 30 -> "1.0 GiB"
std::string BytesText(int64_t bytes);

// As kubectl has ages: "0s", "42s", "3m5s", "7h12m", "3d4h", "812d".
std::string AgeText(absl::Duration age);
// The age of what was then; kNone for a time that is not set.
std::string AgeSince(const google::protobuf::Timestamp& then, absl::Time now);

// 0.0000123 -> "12.3us", 0.0123 -> "12.3ms", 1.23 -> "1.23s"
std::string SecondsText(double seconds);

// STATE_AWAITING_DATA -> "AWAITING_DATA": an enum's value without its prefix.
std::string EnumText(absl::string_view name, absl::string_view prefix);

// DTYPE_FLOAT32 [8, 10] -> "f32[8, 10]"
std::string TypeText(const v1::TensorType& type);

// The one number of a 0-dim float tensor that is inline, a step's loss.
std::optional<double> ScalarOf(const v1::Tensor& tensor);

// What is behind the last slash: "deployments/mlp" -> "mlp".
std::string LastPart(absl::string_view name);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_TEXT_VALUES_H_
