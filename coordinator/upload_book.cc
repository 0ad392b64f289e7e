#include "coordinator/upload_book.h"

#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace shardplane {

void UploadBook::AddParameter(const std::string& fqn,
                              absl::Span<const int> ranks) {
  for (const int rank : ranks) {
    parameters_.emplace(fqn, rank);
  }
}

bool UploadBook::HasParameter(const std::string& fqn, int rank) const {
  return parameters_.contains({fqn, rank});
}

absl::Status UploadBook::Add(const std::string& id, const TensorType& type,
                             uint32_t crc32) {
  if (uploads_.size() >= kMaxUploads && !uploads_.contains(id)) {
    return MakeError(absl::StatusCode::kResourceExhausted,
                     absl::StrCat("at most ", kMaxUploads, " uploads may wait ",
                                  "to be used, got: \"", id, "\" as well"),
                     {.reason = "TOO_MANY_UPLOADS"});
  }
  uploads_[id] = {.type = type, .crc32 = crc32};
  return absl::OkStatus();
}

absl::StatusOr<TensorType> UploadBook::TypeOf(const std::string& id,
                                              absl::string_view field) const {
  const auto it = uploads_.find(id);
  if (it != uploads_.end() && !it->second.used) {
    return it->second.type;
  }
  return MakeError(
      absl::StatusCode::kNotFound,
      absl::StrCat(field,
                   ": expected an upload that is complete and not used "
                   "yet, got: \"",
                   id, "\"", it == uploads_.end() ? "" : ", which was used"),
      {.reason = "UPLOAD_NOT_FOUND",
       .metadata = {{"field", std::string(field)},
                    {"resource", absl::StrCat("uploads/", id)},
                    {"remedy",
                     "call UploadTensor first; an upload is used by "
                     "one call"}}});
}

absl::Status UploadBook::Check(const std::string& id, const TensorType& type,
                               absl::string_view field) const {
  SP_ASSIGN_OR_RETURN(const TensorType uploaded, TypeOf(id, field));
  if (uploaded == type) {
    return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat(field, ": expected an upload of ", ToString(type),
                   ", got: \"", id, "\" of ", ToString(uploaded)),
      {.reason = "TENSOR_TYPE_MISMATCH",
       .metadata = {{"field", std::string(field)},
                    {"expected", ToString(type)}}});
}

std::string UploadBook::Fingerprint(const std::string& id) const {
  const auto it = uploads_.find(id);
  return it == uploads_.end() ? "" : absl::StrCat(it->second.crc32);
}

void UploadBook::Use(absl::Span<const std::string> ids, StepNumber step) {
  for (const std::string& id : ids) {
    if (const auto it = uploads_.find(id); it != uploads_.end()) {
      it->second.used = true;
      it->second.used_by = step;
    }
  }
}

void UploadBook::ForgetUsed(StepNumber step) {
  for (auto it = uploads_.begin(); it != uploads_.end();) {
    const bool forget = it->second.used && it->second.used_by < step;
    it = forget ? uploads_.erase(it) : std::next(it);
  }
}

}  // namespace shardplane
