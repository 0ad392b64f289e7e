#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/shardctl/command.h"

namespace shardplane {
namespace {

constexpr absl::Duration kConnectTimeout = absl::Seconds(5);
constexpr absl::Duration kRetryFor = absl::Seconds(15);
constexpr absl::Duration kCallTimeout = absl::Minutes(1);

struct FormatName {
  const char* name;
  OutputFormat format;
};
constexpr FormatName kFormats[] = {{"table", OutputFormat::kTable},
                                   {"wide", OutputFormat::kWide},
                                   {"json", OutputFormat::kJson},
                                   {"yaml", OutputFormat::kYaml},
                                   {"name", OutputFormat::kName}};

absl::Status BadValue(const std::string& flag, const char* expected,
                      const std::string& got) {
  return UsageError(
      absl::StrCat("--", flag, ": expected ", expected, ", got: ", got));
}

}  // namespace

Invocation::Invocation(const Command& command, const Environment& environment,
                       std::vector<std::string> arguments,
                       std::map<std::string, std::vector<std::string>> flags)
    : command_(command),
      environment_(environment),
      arguments_(std::move(arguments)),
      flags_(std::move(flags)) {}

bool Invocation::Has(const std::string& flag) const {
  return flags_.contains(flag);
}

std::string Invocation::Value(const std::string& flag,
                              const std::string& otherwise) const {
  const auto it = flags_.find(flag);
  return it == flags_.end() || it->second.empty() ? otherwise
                                                  : it->second.back();
}

std::vector<std::string> Invocation::Values(const std::string& flag) const {
  const auto it = flags_.find(flag);
  return it == flags_.end() ? std::vector<std::string>() : it->second;
}

absl::StatusOr<int64_t> Invocation::Number(const std::string& flag,
                                           int64_t otherwise,
                                           int64_t least) const {
  if (!Has(flag)) return otherwise;
  int64_t number = 0;
  if (!absl::SimpleAtoi(Value(flag), &number) || number < least) {
    return BadValue(flag,
                    absl::StrCat("a whole number from ", least, " on").c_str(),
                    Value(flag));
  }
  return number;
}

absl::StatusOr<double> Invocation::Real(const std::string& flag,
                                        double otherwise) const {
  if (!Has(flag)) return otherwise;
  double number = 0;
  if (!absl::SimpleAtod(Value(flag), &number)) {
    return BadValue(flag, "a number", Value(flag));
  }
  return number;
}

absl::StatusOr<absl::Duration> Invocation::Span(
    const std::string& flag, absl::Duration otherwise) const {
  if (!Has(flag)) return otherwise;
  absl::Duration duration;
  if (!absl::ParseDuration(Value(flag), &duration) ||
      duration <= absl::ZeroDuration()) {
    return BadValue(flag, "a time like 30s, 5m or 300ms", Value(flag));
  }
  return duration;
}

OutputFormat Invocation::output() const {
  const std::string name = Value("output", "table");
  const auto it =
      std::find_if(std::begin(kFormats), std::end(kFormats),
                   [&](const FormatName& row) { return row.name == name; });
  // The command line takes the names of the table alone.
  return it == std::end(kFormats) ? OutputFormat::kTable : it->format;
}

bool Invocation::IsColored() const {
  return environment_.out_is_terminal && !Has("no-color") &&
         environment_.getenv("NO_COLOR").empty();
}

TableLayout Invocation::Layout() const {
  return {.wide = output() == OutputFormat::kWide,
          .headers = !Has("no-headers"),
          .width = environment_.out_is_terminal ? environment_.width : 0};
}

std::string Invocation::Colored(const std::string& text,
                                const char* code) const {
  return IsColored() ? absl::StrCat("\033[", code, "m", text, "\033[0m") : text;
}

std::string Invocation::ContextsFile() const {
  return ContextsPath(Value("config"), environment_.getenv);
}

absl::StatusOr<std::string> Invocation::Address() const {
  if (Has("address")) return Value("address");
  absl::StatusOr<Contexts> contexts = ReadContexts(ContextsFile());
  if (!contexts.ok()) return contexts.status();
  return AddressOf("", Value("context"), *contexts, environment_.getenv);
}

absl::StatusOr<Client*> Invocation::Connect() {
  if (client_ != nullptr) return client_.get();
  absl::StatusOr<std::string> address = Address();
  if (!address.ok()) return address.status();
  absl::StatusOr<absl::Duration> timeout = Span("timeout", kCallTimeout);
  if (!timeout.ok()) return timeout.status();
  ClientOptions options;
  options.connect_timeout = std::min(*timeout, kConnectTimeout);
  options.call_timeout = *timeout;
  options.backoff.retry_for = std::min(*timeout, kRetryFor);
  options.sleep = environment_.sleep;
  absl::StatusOr<std::unique_ptr<Client>> client =
      Client::Connect(*address, std::move(options));
  if (!client.ok()) return client.status();
  client_ = *std::move(client);
  return client_.get();
}

}  // namespace shardplane
