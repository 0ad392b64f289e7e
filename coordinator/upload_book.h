// What has been uploaded to the workers of one deployment; names, not bytes.
#ifndef SHARDPLANE_COORDINATOR_UPLOAD_BOOK_H_
#define SHARDPLANE_COORDINATOR_UPLOAD_BOOK_H_

#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/tensor_type.h"
#include "coordinator/ids.h"

namespace shardplane {

// Owned and guarded by the deployment's entry. An upload is used by one call:
// then it is gone at the workers, but its checksum is kept here as long as the
// answer of the step that used it, so that a repeated step is known again.
class UploadBook {
 public:
  static constexpr size_t kMaxUploads = 10'000;

  void AddParameter(const std::string& fqn, absl::Span<const int> ranks);
  bool HasParameter(const std::string& fqn, int rank) const;

  // ResourceExhausted: kMaxUploads are waiting to be used.
  absl::Status Add(const std::string& id, const TensorType& type,
                   uint32_t crc32);
  // NotFound unless an unused upload of that id is there; InvalidArgument,
  // naming `field`, if it has another type.
  absl::Status Check(const std::string& id, const TensorType& type,
                     absl::string_view field) const;
  // The type of an upload that may be used; NotFound as Check.
  absl::StatusOr<TensorType> TypeOf(const std::string& id,
                                    absl::string_view field) const;
  // Text that differs where contents differ, of used uploads too.
  std::string Fingerprint(const std::string& id) const;

  // `step` used them; 0: a call without a number did.
  void Use(absl::Span<const std::string> ids, StepNumber step);
  // All that were used by steps before `step`.
  void ForgetUsed(StepNumber step);

 private:
  struct Upload {
    TensorType type;
    uint32_t crc32 = 0;
    bool used = false;
    StepNumber used_by;
  };
  absl::btree_map<std::string, Upload> uploads_;
  std::set<std::pair<std::string, int>> parameters_;  // FQN, rank
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_UPLOAD_BOOK_H_
