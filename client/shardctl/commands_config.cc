// config: contexts.
#include <ostream>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/shardctl/commands.h"
#include "client/shardctl/suggest.h"
#include "client/shardctl/text_values.h"

namespace shardplane {
namespace {

absl::Status NoContext(const std::string& name, const Contexts& contexts) {
  return UsageError(absl::StrCat("no context \"", name, "\".",
                                 DidYouMean(name, contexts.Names())),
                    "`shardctl config get-contexts` lists them");
}

}  // namespace

absl::StatusOr<ExitCode> RunGetContexts(Invocation& invocation) {
  const absl::StatusOr<Contexts> contexts =
      ReadContexts(invocation.ContextsFile());
  if (!contexts.ok()) return contexts.status();
  Table table({{"CURRENT"}, {"NAME"}, {"ADDRESS"}});
  for (const Context& context : contexts->all) {
    if (invocation.output() == OutputFormat::kName) {
      invocation.out() << context.name << "\n";
    }
    table.Add({context.name == contexts->current ? "*" : "", context.name,
               context.address});
  }
  if (invocation.output() != OutputFormat::kName) {
    invocation.out() << table.Text(invocation.Layout());
  }
  return ExitCode::kDone;
}

absl::StatusOr<ExitCode> RunCurrentContext(Invocation& invocation) {
  const absl::StatusOr<Contexts> contexts =
      ReadContexts(invocation.ContextsFile());
  if (!contexts.ok()) return contexts.status();
  if (contexts->current.empty()) {
    return UsageError("no context is the current one",
                      "`shardctl config use-context NAME`");
  }
  invocation.out() << contexts->current << "\n";
  return ExitCode::kDone;
}

absl::StatusOr<ExitCode> RunUseContext(Invocation& invocation) {
  const std::string& name = invocation.arguments()[0];
  absl::StatusOr<Contexts> contexts = ReadContexts(invocation.ContextsFile());
  if (!contexts.ok()) return contexts.status();
  if (contexts->Find(name) == nullptr) return NoContext(name, *contexts);
  contexts->current = name;
  absl::Status status = WriteContexts(invocation.ContextsFile(), *contexts);
  if (!status.ok()) return status;
  invocation.out() << "Switched to context \"" << name << "\".\n";
  return ExitCode::kDone;
}

absl::StatusOr<ExitCode> RunSetContext(Invocation& invocation) {
  const std::string& name = invocation.arguments()[0];
  if (!invocation.Has("address")) {
    return UsageError("expected where its coordinator is, got: no --address",
                      absl::StrCat("shardctl config set-context ", name,
                                   " --address HOST:PORT"));
  }
  absl::StatusOr<Contexts> contexts = ReadContexts(invocation.ContextsFile());
  if (!contexts.ok()) return contexts.status();
  const bool is_new = contexts->Find(name) == nullptr;
  contexts->Set({name, invocation.Value("address")});
  // The first one is what is meant.
  if (contexts->current.empty()) contexts->current = name;
  absl::Status status = WriteContexts(invocation.ContextsFile(), *contexts);
  if (!status.ok()) return status;
  invocation.out() << "Context \"" << name << "\" "
                   << (is_new ? "created" : "modified") << ".\n";
  return ExitCode::kDone;
}

absl::StatusOr<ExitCode> RunDeleteContext(Invocation& invocation) {
  const std::string& name = invocation.arguments()[0];
  absl::StatusOr<Contexts> contexts = ReadContexts(invocation.ContextsFile());
  if (!contexts.ok()) return contexts.status();
  if (!contexts->Delete(name)) return NoContext(name, *contexts);
  absl::Status status = WriteContexts(invocation.ContextsFile(), *contexts);
  if (!status.ok()) return status;
  invocation.out() << "Context \"" << name << "\" deleted.\n";
  return ExitCode::kDone;
}

}  // namespace shardplane
