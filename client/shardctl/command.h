// Commands as data: what they are called, what they take, what runs.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_COMMAND_H_
#define SHARDPLANE_CLIENT_SHARDCTL_COMMAND_H_

#include <functional>
#include <iosfwd>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/client.h"
#include "client/shardctl/contexts.h"
#include "client/shardctl/failure.h"
#include "client/shardctl/table.h"

namespace shardplane {

struct Flag {
  enum class Kind { kSwitch, kValue, kList };
  std::string name;   // "output", without dashes
  char letter = 0;    // 'o', if it has one
  std::string value;  // "FORMAT"; of a switch ""
  std::string help;
  Kind kind = Kind::kValue;
  std::vector<std::string> choices;  // if it takes one of these alone
};

// What completes an argument.
enum class Completes { kNothing, kKinds, kDeployments, kWorkers, kContexts };

class Invocation;

struct Command {
  // "get", or "config use-context": a group and a name in it.
  std::string name;
  std::string arguments;  // "KIND [NAME...]"
  size_t least = 0;       // arguments
  size_t most = 0;
  Completes completes = Completes::kNothing;  // the first argument
  std::string summary;                        // a line without an end
  std::string description;                    // paragraphs
  std::vector<std::string> examples;          // without "shardctl "
  std::vector<Flag> flags;
  absl::StatusOr<ExitCode> (*run)(Invocation&) = nullptr;
};

// All commands, in the order of the help.
const std::vector<Command>& Commands();
// Flags that each of them takes.
const std::vector<Flag>& GlobalFlags();

// Everything outside that a command sees.
struct Environment {
  std::ostream* out = nullptr;
  std::ostream* err = nullptr;
  std::istream* in = nullptr;
  bool out_is_terminal = false;
  bool err_is_terminal = false;
  size_t width = 0;  // of the terminal; 0: unknown
  Getenv getenv;
  std::function<absl::Time()> now;
  std::function<void(absl::Duration)> sleep;
};

enum class OutputFormat { kTable, kWide, kJson, kYaml, kName };

// One command that was typed: its arguments and flags, and what it needs.
class Invocation {
 public:
  Invocation(const Command& command, const Environment& environment,
             std::vector<std::string> arguments,
             std::map<std::string, std::vector<std::string>> flags);

  const Command& command() const { return command_; }
  const Environment& environment() const { return environment_; }
  std::ostream& out() const { return *environment_.out; }
  std::ostream& err() const { return *environment_.err; }
  absl::Time now() const { return environment_.now(); }

  const std::vector<std::string>& arguments() const { return arguments_; }
  bool Has(const std::string& flag) const;
  // The flag's value, the last one; "" or the default: it was not given.
  std::string Value(const std::string& flag,
                    const std::string& otherwise = "") const;
  std::vector<std::string> Values(const std::string& flag) const;
  // Usage error: it is no whole number of at least `least`.
  absl::StatusOr<int64_t> Number(const std::string& flag, int64_t otherwise,
                                 int64_t least = 0) const;
  absl::StatusOr<double> Real(const std::string& flag, double otherwise) const;
  // "30s", "5m", "300ms". Usage error: it is none.
  absl::StatusOr<absl::Duration> Span(const std::string& flag,
                                      absl::Duration otherwise) const;

  OutputFormat output() const;
  bool IsColored() const;
  TableLayout Layout() const;
  // The text between the codes of a colour, where there are colours.
  std::string Colored(const std::string& text, const char* code) const;

  std::string ContextsFile() const;
  absl::StatusOr<std::string> Address() const;
  // Connects with the first call.
  absl::StatusOr<Client*> Connect();

 private:
  const Command& command_;
  const Environment& environment_;
  const std::vector<std::string> arguments_;
  const std::map<std::string, std::vector<std::string>> flags_;
  std::unique_ptr<Client> client_;
};

inline constexpr char kRed[] = "31";
inline constexpr char kGreen[] = "32";
inline constexpr char kYellow[] = "33";
inline constexpr char kBold[] = "1";

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_COMMAND_H_
