// Checkpoints that a worker may read: safetensors files below one folder.
#ifndef SHARDPLANE_WORKER_WEIGHTS_WEIGHT_FILES_H_
#define SHARDPLANE_WORKER_WEIGHTS_WEIGHT_FILES_H_

#include <filesystem>
#include <memory>
#include <string>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "worker/weights/safetensors.h"

namespace shardplane {

// Files stay open as long as this lives. One thread.
class WeightFiles {
 public:
  // `root`: nothing outside it is read, by way of links neither; "": nothing at
  // all.
  explicit WeightFiles(const std::string& root);

  struct Found {
    std::shared_ptr<const SafetensorsFile> file;
    std::string name;  // that the file has it under
    StoredTensor tensor;
  };

  // The first of `names` that the files of `path` have. `path`: below the root,
  // or absolute: a file, an index of several (.json, as Hugging Face writes
  // it), or a folder that has one of kInFolder. FailedPrecondition, reason
  // NO_WEIGHTS_ROOT; PermissionDenied, reason WEIGHTS_OUTSIDE_ROOT; NotFound:
  // no such file (WEIGHTS_NOT_FOUND) or tensor (WEIGHT_NOT_IN_FILES);
  // Unimplemented: a tensor of a type that Shardplane lacks; and as
  // SafetensorsFile::Open.
  absl::StatusOr<Found> Find(const std::string& path,
                             absl::Span<const std::string> names);

  static constexpr absl::string_view kInFolder[] = {
      "model.safetensors.index.json", "model.safetensors"};

 private:
  using Path = std::filesystem::path;
  using File = std::shared_ptr<const SafetensorsFile>;
  // Which file has a tensor, by name.
  using FileOf = absl::btree_map<std::string, Path>;

  // The whole path of what is there.
  absl::StatusOr<Path> Inside(const Path& path) const;
  absl::StatusOr<const FileOf*> Open(const std::string& path);
  absl::StatusOr<FileOf> OfFile(const Path& path);
  absl::StatusOr<FileOf> OfIndex(const Path& path) const;
  absl::StatusOr<File> OpenFile(const Path& path);

  const Path root_;                              // absolute
  absl::btree_map<std::string, FileOf> opened_;  // by the path asked for
  absl::btree_map<Path, File> files_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_WEIGHTS_WEIGHT_FILES_H_
