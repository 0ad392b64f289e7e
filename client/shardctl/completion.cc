#include "client/shardctl/completion.h"

#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "client/shardctl/command.h"
#include "client/shardctl/resource_kind.h"

namespace shardplane {
namespace {

// What the table says of one command, for the scripts.
struct Words {
  std::vector<std::string> flags;
  std::vector<std::string> values;  // "--output=table json yaml": in a case
};

Words WordsOf(const Command& command) {
  Words words;
  std::vector<const Flag*> flags;
  for (const Flag& flag : command.flags) flags.push_back(&flag);
  for (const Flag& flag : GlobalFlags()) flags.push_back(&flag);
  for (const Flag* flag : flags) {
    words.flags.push_back(absl::StrCat("--", flag->name));
    if (!flag->choices.empty()) {
      words.values.push_back(absl::StrCat(
          flag->letter == 0
              ? ""
              : absl::StrCat("-", std::string(1, flag->letter), "|"),
          "--", flag->name, ") choices='", absl::StrJoin(flag->choices, " "),
          "' ;;"));
    }
  }
  words.flags.push_back("--help");
  return words;
}

std::vector<std::string> FirstWords() {
  std::vector<std::string> names;
  std::set<std::string> seen;
  for (const Command& command : Commands()) {
    const std::string word = command.name.substr(0, command.name.find(' '));
    if (seen.insert(word).second) names.push_back(word);
  }
  names.push_back("help");
  return names;
}

std::vector<std::string> SecondWords(const std::string& group) {
  std::vector<std::string> names;
  for (const Command& command : Commands()) {
    const std::vector<std::string> words = absl::StrSplit(command.name, ' ');
    if (words.size() == 2 && words[0] == group) names.push_back(words[1]);
  }
  return names;
}

std::string KindWords() {
  std::vector<std::string> names;
  for (const ResourceKind& kind : ResourceKinds()) {
    names.push_back(kind.plural);
  }
  return absl::StrJoin(names, " ");
}

const char* NamesOf(Completes completes) {
  switch (completes) {
    case Completes::kKinds:
      return "kinds";
    case Completes::kDeployments:
      return "deployments";
    case Completes::kWorkers:
      return "workers";
    case Completes::kContexts:
      return "contexts";
    case Completes::kNothing:
      break;
  }
  return "";
}

// One case a command: its flags, choices, and what its arguments are.
std::string Cases() {
  std::string cases;
  for (const Command& command : Commands()) {
    const Words words = WordsOf(command);
    absl::StrAppend(&cases, "    '", command.name, "')\n      flags='",
                    absl::StrJoin(words.flags, " "), "'\n      names='",
                    NamesOf(command.completes),
                    "'\n      case \"$before\" in\n");
    for (const std::string& value : words.values) {
      absl::StrAppend(&cases, "        ", value, "\n");
    }
    absl::StrAppend(&cases, "      esac ;;\n");
  }
  for (const std::string& word : FirstWords()) {
    const std::vector<std::string> second = SecondWords(word);
    if (!second.empty()) {
      absl::StrAppend(&cases, "    '", word, "') choices='",
                      absl::StrJoin(second, " "), "' ;;\n");
    }
  }
  return cases;
}

// The function that both shells share: from `words` before the current one to
// the candidates, one a line.
constexpr char kFunction[] = R"sh(_shardctl_candidates() {
  # $1: the word that is completed; the rest: the words before it.
  local current="$1" before='' command='' kind='' flags='' names='' choices=''
  local word
  shift
  local -a options=()
  for word in "$@"; do
    case "$before" in
      --address|--context|--config)
        options+=("$before" "$word"); before=''; continue ;;
    esac
    case "$word" in
      --address=*|--context=*|--config=*) options+=("$word") ;;
      -*) ;;
      *)
        if [ -z "$command" ]; then command="$word"
        elif [ "$command" = config ]; then command="config $word"
        elif [ -z "$kind" ]; then kind="$word"
        fi ;;
    esac
    before="$word"
  done
  if [ -z "$command" ]; then
    printf '%s\n' @COMMANDS@
    return
  fi
  case "$command" in
@CASES@  esac
  if [ -n "$choices" ]; then
    printf '%s\n' $(echo $choices)
    return
  fi
  case "$before" in
    -f|--filename|--inputs|--config|--trace) return ;;
    -d|--deployment) names=deployments kind='' ;;
  esac
  case "$current" in
    -*) printf '%s\n' $(echo $flags); return ;;
  esac
  case "$names" in
    contexts) shardctl config get-contexts -o name "${options[@]}" 2>/dev/null ;;
    deployments|workers)
      _shardctl_names "$names" "${options[@]}" ;;
    kinds)
      if [ -z "$kind" ]; then printf '%s\n' @KINDS@
      else _shardctl_names "$kind" "${options[@]}"
      fi ;;
  esac
}

_shardctl_names() {
  shardctl get "$1" -o name --timeout=1s "${@:2}" 2>/dev/null |
    sed 's|.*/||'
}
)sh";

constexpr char kBash[] = R"sh(
_shardctl() {
  local current="${COMP_WORDS[COMP_CWORD]}"
  local IFS=$' \t\n'
  local candidates
  candidates="$(_shardctl_candidates "$current" \
    "${COMP_WORDS[@]:1:COMP_CWORD-1}")"
  COMPREPLY=($(compgen -W "$candidates" -- "$current"))
  if [ ${#COMPREPLY[@]} -eq 0 ]; then
    case "${COMP_WORDS[COMP_CWORD-1]}" in
      -f|--filename|--inputs|--config|--trace)
        COMPREPLY=($(compgen -f -- "$current")) ;;
    esac
  fi
}
complete -F _shardctl shardctl
)sh";

constexpr char kZsh[] = R"sh(
_shardctl() {
  setopt localoptions ksharrays
  local -a candidates
  candidates=("${(@f)$(_shardctl_candidates "${words[CURRENT-1]}" \
    "${(@)words[1,CURRENT-2]}")}")
  case "${words[CURRENT-2]}" in
    -f|--filename|--inputs|--config|--trace) _files ;;
    *) compadd -- "${(@)candidates}" ;;
  esac
}
compdef _shardctl shardctl
)sh";

std::string Function() {
  return absl::StrReplaceAll(kFunction,
                             {{"@COMMANDS@", absl::StrJoin(FirstWords(), " ")},
                              {"@KINDS@", KindWords()},
                              {"@CASES@", Cases()}});
}

}  // namespace

std::string BashCompletion() {
  return absl::StrCat("# bash completion of shardctl: source it.\n", Function(),
                      kBash);
}

std::string ZshCompletion() {
  return absl::StrCat("#compdef shardctl\n", Function(), kZsh);
}

}  // namespace shardplane
