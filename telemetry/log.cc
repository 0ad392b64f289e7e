#include "telemetry/log.h"

#include <unistd.h>

#include <array>
#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"

namespace shardplane {
namespace {

constexpr std::array<absl::string_view, 4> kLevels = {"debug", "info",
                                                      "warning", "error"};
constexpr std::array<absl::string_view, 4> kLevelTexts = {"DEBUG", "INFO",
                                                          "WARNING", "ERROR"};
constexpr std::array<absl::string_view, 2> kFormats = {"text", "json"};

template <typename T, size_t kSize>
absl::StatusOr<T> Parse(const std::array<absl::string_view, kSize>& names,
                        absl::string_view text) {
  for (size_t i = 0; i < kSize; ++i) {
    if (names[i] == text) return static_cast<T>(i);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "expected one of ", absl::StrJoin(names, ", "), ", got: \"", text, "\""));
}

void WriteToStandardError(const std::string& line) {
  size_t written = 0;
  while (written < line.size()) {
    const ssize_t count =
        write(STDERR_FILENO, line.data() + written, line.size() - written);
    if (count <= 0) return;  // nobody reads it
    written += static_cast<size_t>(count);
  }
}

std::string TimeText(absl::Time time) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", time, absl::UTCTimeZone());
}

// How many bytes of UTF-8 a character at the beginning of `text` has; 0: it is
// none.
size_t CharacterSize(absl::string_view text) {
  const auto byte = [text](size_t i) {
    return static_cast<unsigned char>(text[i]);
  };
  if (byte(0) < 0x80) return 1;
  const size_t size = byte(0) >= 0xF0 ? 4 : byte(0) >= 0xE0 ? 3 : 2;
  if (byte(0) < 0xC2 || byte(0) > 0xF4 || text.size() < size) return 0;
  for (size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  // Overlong forms, surrogates, what is above U+10FFFF.
  const bool bad = (byte(0) == 0xE0 && byte(1) < 0xA0) ||
                   (byte(0) == 0xED && byte(1) > 0x9F) ||
                   (byte(0) == 0xF0 && byte(1) < 0x90) ||
                   (byte(0) == 0xF4 && byte(1) > 0x8F);
  return bad ? 0 : size;
}

}  // namespace

absl::StatusOr<LogLevel> ParseLogLevel(absl::string_view text) {
  return Parse<LogLevel>(kLevels, text);
}

absl::StatusOr<LogFormat> ParseLogFormat(absl::string_view text) {
  return Parse<LogFormat>(kFormats, text);
}

std::string JsonString(absl::string_view text) {
  std::string json = "\"";
  while (!text.empty()) {
    const size_t size = CharacterSize(text);
    const auto first = static_cast<unsigned char>(text[0]);
    if (size == 0) {
      json += "\\ufffd";
    } else if (first < 0x20) {
      absl::StrAppendFormat(&json, "\\u%04x", first);
    } else {
      if (first == '"' || first == '\\') json += '\\';
      absl::StrAppend(&json, text.substr(0, size));
    }
    text.remove_prefix(size == 0 ? 1 : size);
  }
  return json + "\"";
}

Log::Log(Options options)
    : options_([&options] {
        if (options.clock == nullptr) options.clock = &absl::Now;
        if (options.write == nullptr) options.write = &WriteToStandardError;
        return std::move(options);
      }()) {}

void Log::Write(LogLevel level, absl::string_view message,
                const std::vector<LogField>& fields) const {
  if (!Writes(level)) return;
  const std::string time = TimeText(options_.clock());
  const absl::string_view level_text = kLevelTexts[static_cast<size_t>(level)];
  const bool json = options_.format == LogFormat::kJson;
  std::string line =
      json ? absl::StrCat("{\"time\":\"", time, "\",\"level\":\"", level_text,
                          "\",\"component\":", JsonString(options_.component))
           : absl::StrCat(time, " ", level_text, " ", options_.component);
  if (!options_.instance.empty()) {
    json ? absl::StrAppend(&line,
                           ",\"instance\":", JsonString(options_.instance))
         : absl::StrAppend(&line, " ", options_.instance);
  }
  json ? absl::StrAppend(&line, ",\"message\":", JsonString(message))
       : absl::StrAppend(&line, ": ", message);
  for (const LogField& field : fields) {
    if (field.value.empty()) continue;
    json ? absl::StrAppend(&line, ",", JsonString(field.key), ":",
                           JsonString(field.value))
         : absl::StrAppend(&line, " ", field.key, "=", JsonString(field.value));
  }
  absl::StrAppend(&line, json ? "}\n" : "\n");
  options_.write(line);
}

}  // namespace shardplane
