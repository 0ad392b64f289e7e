#include "worker/kernels/driver_kernels.h"

extern "C" {
extern const uint8_t shardplane_fused_image[];
extern const uint8_t shardplane_fused_image_end[];
}

namespace shardplane {

absl::Span<const uint8_t> FusedImage() {
  return absl::MakeConstSpan(shardplane_fused_image,
                             shardplane_fused_image_end);
}

}  // namespace shardplane
