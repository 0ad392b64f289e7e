#include "worker/weights/weight_files.h"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <sstream>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "nlohmann/json.hpp"

namespace shardplane {
namespace {

using Path = std::filesystem::path;

absl::Status Error(absl::StatusCode code, absl::string_view reason,
                   const Path& path, absl::string_view message) {
  return MakeError(
      code, absl::StrCat(path.string(), ": ", message),
      {.reason = std::string(reason), .metadata = {{"path", path.string()}}});
}

// Both absolute, and without "." or "..".
bool IsBelow(const Path& path, const Path& root) {
  return std::mismatch(root.begin(), root.end(), path.begin(), path.end())
             .first == root.end();
}

// "/a/" has an empty last part.
Path WithoutSlash(const Path& path) {
  return path.has_filename() ? path : path.parent_path();
}

// Some of what there is, for a name that is not.
template <typename Map>
std::string Examples(const Map& map) {
  constexpr size_t kShown = 3;
  std::vector<std::string> names;
  for (const auto& [name, unused] : map) {
    if (names.size() == kShown) break;
    names.push_back(absl::StrCat("\"", name, "\""));
  }
  return absl::StrCat(map.size(), " tensors", names.empty() ? "" : ": ",
                      absl::StrJoin(names, ", "),
                      map.size() > kShown ? ", …" : "");
}

}  // namespace

WeightFiles::WeightFiles(const std::string& root)
    : root_(root.empty()
                ? Path()
                : WithoutSlash(
                      std::filesystem::absolute(root).lexically_normal())) {}

absl::StatusOr<Path> WeightFiles::Inside(const Path& path) const {
  if (root_.empty()) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition,
        absl::StrCat("weights: expected a worker with --weights_root, a folder "
                     "that has ",
                     path.string(), ", got: one without"),
        {.reason = "NO_WEIGHTS_ROOT",
         .metadata = {{"path", path.string()},
                      {"remedy", "start the workers with --weights_root"}}});
  }
  const auto outside = [&] {
    return Error(absl::StatusCode::kPermissionDenied, "WEIGHTS_OUTSIDE_ROOT",
                 path,
                 absl::StrCat("expected files below the worker's "
                              "--weights_root, ",
                              root_.string()));
  };
  const Path whole = (root_ / path).lexically_normal();
  // First without a look at the disk: what lies elsewhere is not told.
  if (!IsBelow(whole, root_)) return outside();
  std::error_code error;
  const Path real = std::filesystem::canonical(whole, error);
  if (error) {
    return Error(absl::StatusCode::kNotFound, "WEIGHTS_NOT_FOUND", whole,
                 absl::StrCat("expected safetensors files; ", error.message()));
  }
  const Path root = std::filesystem::canonical(root_, error);
  if (error || !IsBelow(real, root)) return outside();
  // Not the real one: caches link to files without a suffix, elsewhere.
  return whole;
}

absl::StatusOr<WeightFiles::File> WeightFiles::OpenFile(const Path& path) {
  File& file = files_[path];
  if (file == nullptr) {
    SP_ASSIGN_OR_RETURN(file, SafetensorsFile::Open(path.string()));
  }
  return file;
}

absl::StatusOr<WeightFiles::FileOf> WeightFiles::OfFile(const Path& path) {
  SP_ASSIGN_OR_RETURN(const File file, OpenFile(path));
  FileOf all;
  for (const auto& [name, tensor] : file->header().tensors) all[name] = path;
  for (const auto& [name, type] : file->header().foreign) all[name] = path;
  return all;
}

absl::StatusOr<WeightFiles::FileOf> WeightFiles::OfIndex(
    const Path& path) const {
  std::ifstream stream(path);
  std::ostringstream text;
  text << stream.rdbuf();
  const auto index = nlohmann::json::parse(text.str(), nullptr,
                                           /*allow_exceptions=*/false);
  const auto malformed = [&path] {
    return Error(absl::StatusCode::kDataLoss, "WEIGHTS_MALFORMED", path,
                 "expected an index of safetensors files: an object with "
                 "weight_map, of file names by tensor");
  };
  if (!index.is_object() || !index.contains("weight_map") ||
      !index["weight_map"].is_object()) {
    return malformed();
  }
  FileOf all;
  absl::btree_map<std::string, Path> known;
  for (const auto& [name, file] : index["weight_map"].items()) {
    if (!file.is_string()) return malformed();
    Path& inside = known[file.get<std::string>()];
    if (inside.empty()) {
      SP_ASSIGN_OR_RETURN(inside,
                          Inside(path.parent_path() / file.get<std::string>()));
    }
    all[name] = inside;
  }
  return all;
}

absl::StatusOr<const WeightFiles::FileOf*> WeightFiles::Open(
    const std::string& path) {
  if (const auto found = opened_.find(path); found != opened_.end()) {
    return &found->second;
  }
  SP_ASSIGN_OR_RETURN(Path file, Inside(path));
  std::error_code error;
  if (std::filesystem::is_directory(file, error)) {
    const Path folder = file;
    for (const absl::string_view name : kInFolder) {
      file = folder / std::string(name);
      if (std::filesystem::exists(file, error)) break;
    }
    // A link may lead out. Of a folder with neither, the last is not there.
    SP_ASSIGN_OR_RETURN(file, Inside(file));
  }
  SP_ASSIGN_OR_RETURN(
      FileOf all, file.extension() == ".json" ? OfIndex(file) : OfFile(file));
  return &(opened_[path] = std::move(all));
}

absl::StatusOr<WeightFiles::Found> WeightFiles::Find(
    const std::string& path, absl::Span<const std::string> names) {
  SP_ASSIGN_OR_RETURN(const FileOf* files, Open(path));
  for (const std::string& name : names) {
    const auto place = files->find(name);
    if (place == files->end()) continue;
    SP_ASSIGN_OR_RETURN(const File file, OpenFile(place->second));
    const SafetensorsHeader& header = file->header();
    if (const auto it = header.tensors.find(name); it != header.tensors.end()) {
      return Found{file, name, it->second};
    }
    if (const auto it = header.foreign.find(name); it != header.foreign.end()) {
      return Error(
          absl::StatusCode::kUnimplemented, "WEIGHT_TYPE_UNKNOWN",
          place->second,
          absl::StrCat("expected \"", name,
                       "\" of a type that Shardplane has, got: ", it->second));
    }
    return Error(
        absl::StatusCode::kDataLoss, "WEIGHTS_MALFORMED", place->second,
        absl::StrCat("expected \"", name,
                     "\", as the index says, got: ", Examples(header.tensors)));
  }
  return Error(absl::StatusCode::kNotFound, "WEIGHT_NOT_IN_FILES", path,
               absl::StrCat("expected \"", absl::StrJoin(names, "\" or \""),
                            "\", got: ", Examples(*files)));
}

}  // namespace shardplane
