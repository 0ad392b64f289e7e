#include "client/shardctl/manual.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "client/shardctl/command.h"
#include "client/shardctl/findings.h"
#include "client/shardctl/help_text.h"
#include "client/shardctl/resource_kind.h"

namespace shardplane {
namespace {

// What roff takes for its own.
std::string Escaped(const std::string& text) {
  std::string escaped = absl::StrReplaceAll(
      text,
      {{"\\", "\\e"}, {"-", "\\-"}, {"\n.", "\n\\&."}, {"\n'", "\n\\&'"}});
  if (!escaped.empty() && (escaped[0] == '.' || escaped[0] == '\'')) {
    escaped = "\\&" + escaped;
  }
  return escaped;
}

std::string Entry(const std::string& term, const std::string& text) {
  return absl::StrCat(".TP\n.B ", Escaped(term), "\n", Escaped(text), "\n");
}

std::string FlagEntries(const std::vector<Flag>& flags) {
  std::string text;
  for (const Flag& flag : flags) {
    absl::StrAppend(&text, Entry(FlagText(flag), flag.help));
  }
  return text;
}

std::string CommandText(const Command& command) {
  std::string text = absl::StrCat(
      ".SS ", Escaped(command.name), command.arguments.empty() ? "" : " ",
      Escaped(command.arguments), "\n", Escaped(command.summary), ".\n");
  if (!command.description.empty()) {
    absl::StrAppend(&text, ".PP\n", Escaped(command.description), "\n");
  }
  absl::StrAppend(&text, FlagEntries(command.flags));
  if (!command.examples.empty()) {
    absl::StrAppend(&text, ".PP\n.nf\n");
    for (const std::string& example : command.examples) {
      absl::StrAppend(&text, "shardctl ", Escaped(example), "\n");
    }
    absl::StrAppend(&text, ".fi\n");
  }
  return text;
}

std::string KindEntries() {
  std::string text;
  for (const ResourceKind& kind : ResourceKinds()) {
    absl::StrAppend(&text,
                    Entry(kind.plural,
                          absl::StrCat(kind.singular, ", ",
                                       absl::StrJoin(kind.short_names, ", "))));
  }
  return text;
}

}  // namespace

std::string ManualPage() {
  std::string text = absl::StrCat(
      ".TH SHARDCTL 1 \"\" \"Shardplane\" \"User Commands\"\n"
      ".SH NAME\nshardctl \\- plans, runs and watches sharded models\n"
      ".SH SYNOPSIS\n.B shardctl\n.I COMMAND\n[ARGUMENTS] [FLAGS]\n"
      ".SH DESCRIPTION\nThe client of a Shardplane coordinator, for "
      "terminals and scripts.\n"
      ".SH COMMANDS\n");
  for (const Command& command : Commands()) {
    absl::StrAppend(&text, CommandText(command));
  }
  absl::StrAppend(&text, ".SH FLAGS OF ALL COMMANDS\n",
                  FlagEntries(GlobalFlags()), ".SH RESOURCES\n", KindEntries(),
                  ".SH CHECKS OF DIAGNOSE\n");
  for (const Check& check : Checks()) {
    absl::StrAppend(&text, Entry(check.name, check.about));
  }
  absl::StrAppend(&text, ".SH EXIT STATUS\n");
  for (const ExitCodeText& row : ExitCodeTexts()) {
    absl::StrAppend(
        &text, Entry(absl::StrCat(static_cast<int>(row.code)), row.meaning));
  }
  absl::StrAppend(&text, ".SH ENVIRONMENT\n",
                  Entry("SHARDPLANE_ADDRESS",
                        "the coordinator, HOST:PORT, where no flag says it"),
                  Entry("SHARDPLANE_CONFIG", "the file of contexts"),
                  Entry("NO_COLOR", "no colours, as --no-color"), ".SH FILES\n",
                  Entry("~/.config/shardplane/config.yaml", "contexts"));
  return text;
}

}  // namespace shardplane
