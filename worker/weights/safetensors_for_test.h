// For tests: safetensors files and folders.
#ifndef SHARDPLANE_WORKER_WEIGHTS_SAFETENSORS_FOR_TEST_H_
#define SHARDPLANE_WORKER_WEIGHTS_SAFETENSORS_FOR_TEST_H_

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/host_tensor.h"
#include "common/tensor_type.h"
#include "nlohmann/json.hpp"

namespace shardplane {

// A folder of its own, empty, that goes with this.
class TestFolder {
 public:
  TestFolder() {
    std::string name =
        std::filesystem::temp_directory_path() / "weights-XXXXXX";
    path_ = mkdtemp(name.data());
  }
  ~TestFolder() { std::filesystem::remove_all(path_); }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  std::string operator/(absl::string_view name) const {
    return path_ / std::string(name);
  }
  std::string Write(absl::string_view name, const std::string& text) const {
    const std::string path = *this / name;
    std::filesystem::create_directories(
        std::filesystem::path(path).parent_path());
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }

 private:
  std::filesystem::path path_;
};

// The bytes of a file with this header.
inline std::string WithHeader(const std::string& json,
                              const std::string& data) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) {
    bytes += static_cast<char>(uint64_t{json.size()} >> (8 * i) & 0xff);
  }
  return bytes + json + data;
}

// The bytes of a file of these f32, bf16 and i64 tensors, one after the other.
inline std::string SafetensorsOf(
    const std::vector<std::pair<std::string, HostTensor>>& tensors) {
  nlohmann::json header;
  header["__metadata__"] = {{"format", "pt"}};
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    const DType dtype = tensor.type.dtype;
    header[name] = {
        {"dtype", dtype == DType::kFloat32    ? "F32"
                  : dtype == DType::kBFloat16 ? "BF16"
                                              : "I64"},
        {"shape", std::vector<int64_t>(tensor.type.shape.begin(),
                                       tensor.type.shape.end())},
        {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  return WithHeader(header.dump(), data);
}

// Its bytes are 0, 1, 2, … 250, 0, 1, …
inline HostTensor Counting(TensorType type) {
  HostTensor tensor{std::move(type), ""};
  const int64_t size = ByteSize(tensor.type);
  for (int64_t i = 0; i < size; ++i) {
    tensor.bytes += static_cast<char>(i % 251);
  }
  return tensor;
}

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_WEIGHTS_SAFETENSORS_FOR_TEST_H_
