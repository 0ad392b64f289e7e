// Lines of log, for people or for machines.
#ifndef SHARDPLANE_TELEMETRY_LOG_H_
#define SHARDPLANE_TELEMETRY_LOG_H_

#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace shardplane {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };
// "debug", "info", "warning", "error"; "text", "json". InvalidArgument, naming
// what there is.
absl::StatusOr<LogLevel> ParseLogLevel(absl::string_view text);
absl::StatusOr<LogFormat> ParseLogFormat(absl::string_view text);

// Keys are ours: "deployment", "step", "request_id", "trace_id", "method",
// "code", "reason". Empty values are left out.
struct LogField {
  absl::string_view key;
  std::string value;
};

// Owned by main(). Any thread may write; a line is written as a whole.
//
//   text  2026-11-23T01:02:03.004Z INFO worker w0: joined deployment="d"
//   json  {"time":"2026-11-23T01:02:03.004Z","level":"INFO","component":
//          "worker","instance":"w0","message":"joined","deployment":"d"}
class Log {
 public:
  struct Options {
    std::string component;  // "coordinator" or "worker"
    std::string instance;   // the worker's id; "" of a coordinator
    LogFormat format = LogFormat::kText;
    LogLevel level = LogLevel::kInfo;  // lower ones are not written
    std::function<absl::Time()> clock;
    // A line with its end. By default to standard error, in one write.
    std::function<void(const std::string& line)> write;
  };
  explicit Log(Options options);

  bool Writes(LogLevel level) const { return level >= options_.level; }
  void Write(LogLevel level, absl::string_view message,
             const std::vector<LogField>& fields = {}) const;
  void Info(absl::string_view message,
            const std::vector<LogField>& fields = {}) const {
    Write(LogLevel::kInfo, message, fields);
  }

 private:
  const Options options_;
};

// A JSON string with its quotes. What is no UTF-8 becomes U+FFFD.
std::string JsonString(absl::string_view text);

}  // namespace shardplane

#endif  // SHARDPLANE_TELEMETRY_LOG_H_
