#include "worker/weights/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "nlohmann/json.hpp"

namespace shardplane {
namespace {

using Json = nlohmann::json;

constexpr int64_t kSizeBytes = 8;  // of the header's size
// As the format's own library has it.
constexpr int64_t kMaxHeaderBytes = 100'000'000;
constexpr int64_t kShortRun = 4096;
constexpr int64_t kWindowBytes = 1 << 20;

struct TypeName {
  absl::string_view name;
  DType dtype;
};
constexpr TypeName kTypes[] = {
    {"F64", DType::kFloat64},   {"F32", DType::kFloat32},
    {"F16", DType::kFloat16},   {"BF16", DType::kBFloat16},
    {"I64", DType::kInt64},     {"I32", DType::kInt32},
    {"I16", DType::kInt16},     {"I8", DType::kInt8},
    {"U8", DType::kUInt8},      {"BOOL", DType::kBool},
    {"C64", DType::kComplex64},
};

std::optional<DType> DTypeOf(absl::string_view name) {
  for (const TypeName& type : kTypes) {
    if (type.name == name) return type.dtype;
  }
  return std::nullopt;
}

absl::Status Bad(absl::string_view what) {
  return absl::InvalidArgumentError(what);
}

// A number of bytes or elements; nullopt: anything else.
std::optional<int64_t> CountOf(const Json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  const auto count = value.get<uint64_t>();
  if (count > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return static_cast<int64_t>(count);
}

std::optional<std::vector<int64_t>> CountsOf(const Json& values) {
  if (!values.is_array()) return std::nullopt;
  std::vector<int64_t> counts;
  for (const Json& value : values) {
    const std::optional<int64_t> count = CountOf(value);
    if (!count.has_value()) return std::nullopt;
    counts.push_back(*count);
  }
  return counts;
}

// nullopt: more than an int64 counts.
std::optional<int64_t> BytesOf(const TensorType& type) {
  if (absl::c_linear_search(type.shape, 0)) return 0;
  int64_t bytes = ByteSize(type.dtype);
  for (const int64_t size : type.shape) {
    if (__builtin_mul_overflow(bytes, size, &bytes)) return std::nullopt;
  }
  return bytes;
}

// Adds one tensor of the header. `data`: the bytes there are.
absl::Status AddTensor(const std::string& name, const Json& entry,
                       int64_t begin, int64_t data, SafetensorsHeader& header) {
  const auto member = [&entry](const char* key) {
    return entry.is_object() && entry.contains(key) ? entry[key] : Json();
  };
  const Json dtype = member("dtype");
  const auto shape = CountsOf(member("shape"));
  const auto offsets = CountsOf(member("data_offsets"));
  if (!dtype.is_string() || !shape.has_value() || !offsets.has_value() ||
      offsets->size() != 2) {
    return Bad(absl::StrCat("expected dtype, shape and data_offsets of \"",
                            name, "\""));
  }
  const int64_t from = offsets->at(0);
  const int64_t to = offsets->at(1);
  if (from > to || to > data) {
    return Bad(absl::StrCat("expected the bytes of \"", name, "\" within ",
                            data, ", got: ", from, " to ", to));
  }
  const auto text = dtype.get<std::string>();
  const std::optional<DType> type = DTypeOf(text);
  if (!type.has_value()) {
    header.foreign[name] = text;
    return absl::OkStatus();
  }
  const StoredTensor tensor{{*type, {shape->begin(), shape->end()}},
                            begin + from};
  if (BytesOf(tensor.type) != to - from) {
    return Bad(absl::StrCat("expected \"", name, "\" to have the bytes of ",
                            ToString(tensor.type), ", got: ", to - from));
  }
  header.tensors[name] = tensor;
  return absl::OkStatus();
}

// An object in which no name stands twice.
absl::StatusOr<Json> ParseJson(absl::string_view text) {
  std::set<std::string> names;
  std::string twice;
  const Json::parser_callback_t look = [&](int depth, Json::parse_event_t event,
                                           Json& parsed) {
    if (event == Json::parse_event_t::key && depth == 1 &&
        !names.insert(parsed.get<std::string>()).second) {
      twice = parsed.get<std::string>();
    }
    return true;
  };
  Json json = Json::parse(text.begin(), text.end(), look,
                          /*allow_exceptions=*/false);
  if (!json.is_object()) return Bad("expected a JSON object as header");
  if (!twice.empty()) return Bad(absl::StrCat("\"", twice, "\" stands twice"));
  return json;
}

absl::Status OfErrno(absl::string_view doing, const std::string& path,
                     int error) {
  const absl::StatusCode code =
      error == ENOENT || error == ENOTDIR ? absl::StatusCode::kNotFound
      : error == EACCES                   ? absl::StatusCode::kPermissionDenied
                                          : absl::StatusCode::kUnavailable;
  return MakeError(
      code, absl::StrCat(doing, " ", path, ": ", std::strerror(error)),
      {.reason = code == absl::StatusCode::kNotFound ? "WEIGHTS_NOT_FOUND"
                                                     : "WEIGHTS_UNREADABLE",
       .metadata = {{"path", path}}});
}

absl::Status Malformed(const std::string& path, absl::string_view what) {
  return MakeError(
      absl::StatusCode::kDataLoss,
      absl::StrCat(path, ": expected a safetensors file; ", what),
      {.reason = "WEIGHTS_MALFORMED", .metadata = {{"path", path}}});
}

}  // namespace

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view json,
                                                         int64_t begin,
                                                         int64_t size) {
  SP_ASSIGN_OR_RETURN(const Json entries, ParseJson(json));
  SafetensorsHeader header;
  for (const auto& [name, entry] : entries.items()) {
    if (name == "__metadata__") continue;
    SP_RETURN_IF_ERROR(AddTensor(name, entry, begin, size - begin, header));
  }
  return header;
}

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::Open(
    const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return OfErrno("opening", path, errno);
  struct stat is {};
  const int asked = fstat(descriptor, &is);
  const int error = errno;
  const std::shared_ptr<SafetensorsFile> file(
      new SafetensorsFile(path, descriptor, is.st_size));
  if (asked != 0) return OfErrno("opening", path, error);
  if (!S_ISREG(is.st_mode)) return Malformed(path, "got: none");
  SP_RETURN_IF_ERROR(file->ReadHeader());
  return file;
}

SafetensorsFile::~SafetensorsFile() { close(descriptor_); }

absl::Status SafetensorsFile::ReadHeader() {
  if (size_ < kSizeBytes) {
    return Malformed(path_, absl::StrCat("got: ", size_, " bytes"));
  }
  char bytes[kSizeBytes];
  SP_RETURN_IF_ERROR(Read(0, absl::MakeSpan(bytes)));
  uint64_t header_size = 0;
  for (int i = kSizeBytes - 1; i >= 0; --i) {
    header_size = header_size << 8 | static_cast<unsigned char>(bytes[i]);
  }
  const int64_t most = std::min(kMaxHeaderBytes, size_ - kSizeBytes);
  if (header_size > static_cast<uint64_t>(most)) {
    return Malformed(path_, absl::StrCat("expected a header of at most ", most,
                                         " bytes, got: ", header_size));
  }
  std::string json(header_size, '\0');
  SP_RETURN_IF_ERROR(
      Read(kSizeBytes, absl::MakeSpan(json.data(), json.size())));
  absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(
      json, kSizeBytes + static_cast<int64_t>(header_size), size_);
  if (!header.ok()) return Malformed(path_, header.status().message());
  header_ = *std::move(header);
  return absl::OkStatus();
}

absl::Status SafetensorsFile::Read(int64_t offset, absl::Span<char> to) const {
  while (!to.empty()) {
    const ssize_t got = pread(descriptor_, to.data(), to.size(), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return OfErrno("reading", path_, errno);
    if (got == 0) {
      return Malformed(path_, absl::StrCat("got: no more than ", offset,
                                           " bytes, of ", size_));
    }
    offset += got;
    to.remove_prefix(got);
  }
  return absl::OkStatus();
}

absl::Status RunReader::Read(int64_t offset, absl::Span<char> to) {
  const auto size = static_cast<int64_t>(to.size());
  if (size >= kShortRun) return file_->Read(offset, to);
  if (offset < window_offset_ ||
      offset + size > window_offset_ + static_cast<int64_t>(window_.size())) {
    window_.resize(
        std::max(size, std::min(kWindowBytes, file_->size() - offset)));
    window_offset_ = offset;
    if (absl::Status status = file_->Read(offset, absl::MakeSpan(window_));
        !status.ok()) {
      window_.clear();
      return status;
    }
  }
  std::memcpy(to.data(), &window_[offset - window_offset_], size);
  return absl::OkStatus();
}

}  // namespace shardplane
