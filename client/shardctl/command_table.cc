// What there is to type: names, arguments, flags, help, examples.
#include "client/shardctl/command.h"
#include "client/shardctl/commands.h"

namespace shardplane {
namespace {

constexpr size_t kMany = 1000;
constexpr auto kSwitch = Flag::Kind::kSwitch;
constexpr auto kList = Flag::Kind::kList;

Flag Output(std::vector<std::string> choices) {
  return {.name = "output",
          .letter = 'o',
          .value = "FORMAT",
          .help = "one of " + choices[0] +
                  [&] {
                    std::string rest;
                    for (size_t i = 1; i < choices.size(); ++i) {
                      rest += ", " + choices[i];
                    }
                    return rest;
                  }(),
          .choices = choices};
}
Flag OutputOfAll() { return Output({"table", "wide", "json", "yaml", "name"}); }
Flag OutputOfText() { return Output({"table", "wide", "json", "yaml"}); }
Flag Filename(const char* help) {
  return {.name = "filename",
          .letter = 'f',
          .value = "FILE",
          .help = help,
          .kind = kList};
}
Flag NoHeaders() {
  return {.name = "no-headers", .help = "rows alone", .kind = kSwitch};
}
Flag WatchFlag(const char* help) {
  return {.name = "watch", .letter = 'w', .help = help, .kind = kSwitch};
}
Flag OfDeployment() {
  return {.name = "deployment",
          .letter = 'd',
          .value = "NAME",
          .help = "whose programs or steps; of `get`, else those of all"};
}

std::vector<Flag> StepFlags() {
  return {
      {.name = "inputs",
       .value = "FILE",
       .help = "JSON or YAML: {\"inputs\": [...], \"targets\": [...]}, each "
               "nested lists of numbers, or one number that fills it; - is "
               "stdin"},
      {.name = "random",
       .value = "SEED",
       .help = "random inputs and targets: floats in [-1, 1), integers below "
               "--integers-below"},
      {.name = "targets",
       .value = "N",
       .help = "with --random: how many of the program's inputs, the last "
               "ones, are targets (default 0)"},
      {.name = "integers-below",
       .value = "N",
       .help = "with --random (default 2)"},
      {.name = "program",
       .value = "NAME",
       .help = "which of the deployment's programs, if it has several"},
      {.name = "optimizer",
       .value = "KIND",
       .help = "none: gradients alone (default)",
       .choices = {"none", "sgd", "adam", "adamw"}},
      {.name = "lr", .value = "RATE", .help = "default 0.01, of adam 0.001"},
      {.name = "momentum", .value = "M", .help = "of sgd"},
      {.name = "clip-norm",
       .value = "NORM",
       .help = "gradients are scaled to at most this norm"},
      Output({"table", "json", "yaml", "name"}),
  };
}

std::vector<Flag> With(std::vector<Flag> flags, const std::vector<Flag>& more) {
  flags.insert(flags.begin(), more.begin(), more.end());
  return flags;
}

std::vector<Command> PlanCommands() {
  return {
      {"plan",
       "",
       0,
       0,
       Completes::kNothing,
       "Shows what a deployment would do, and touches no worker",
       "Assignments, collectives, memory by rank, warnings. -o wide adds what "
       "each module\ncommunicates and the program; -o json is the API's "
       "answer.",
       {"plan -f deployment.yaml", "plan -f deployment.yaml -o wide"},
       {Filename("what to plan; - is stdin"),
        {.name = "strict", .help = "warnings are errors", .kind = kSwitch},
        OutputOfAll()},
       &RunPlan},
      {"apply",
       "",
       0,
       0,
       Completes::kNothing,
       "Makes deployments and modules as files say",
       "What is there already and is the same stays; a program that the file "
       "adds is added.\nDeployments and modules never change: one that "
       "differs is shown as a diff, and\nreplaced with --replace alone.",
       {"apply -f deployment.yaml --materialize",
        "apply -f deployment.yaml --dry-run",
        "get deploy mlp -o yaml | shardctl apply -f - --name=copy"},
       {Filename("YAML or JSON, several documents; - is stdin"),
        {.name = "dry-run",
         .help = "print the diff and change nothing; exit code 1: there is one",
         .kind = kSwitch},
        {.name = "replace",
         .help = "delete what differs and create it anew",
         .kind = kSwitch},
        {.name = "materialize",
         .help = "make the parameters' first values, and wait",
         .kind = kSwitch},
        {.name = "name", .value = "NAME", .help = "instead of the file's"},
        Output({"table", "name"})},
       &RunApply},
      {"delete",
       "KIND NAME...",
       0,
       kMany,
       Completes::kKinds,
       "Deletes deployments and modules",
       "",
       {"delete deploy mlp", "delete -f deployment.yaml --ignore-not-found"},
       {Filename("delete what it names"),
        {.name = "ignore-not-found",
         .help = "what is not there is no error",
         .kind = kSwitch},
        {.name = "wait", .help = "until they are gone", .kind = kSwitch},
        OfDeployment()},
       &RunDelete},
      {"explain",
       "[DEPLOYMENT] [FQN]",
       0,
       2,
       Completes::kDeployments,
       "Tells why a module, parameter or buffer lies as it does",
       "FQN is a name as PyTorch has it; without one: the root. With -f the "
       "deployment is\nplanned and not made.",
       {"explain mlp layers.0.attention.wq",
        "explain -f deployment.yaml up.weight"},
       {Filename("a deployment that there is not yet"), OutputOfText()},
       &RunExplain},
  };
}

std::vector<Command> ResourceCommands() {
  return {
      {"get",
       "KIND [NAME...]",
       1,
       kMany,
       Completes::kKinds,
       "Lists resources, or shows some",
       "KIND: workers (wk), modules (mod), deployments (deploy, dp), programs "
       "(prog),\nsteps (st), operations (op), events (ev); several with "
       "commas; all. Or KIND/NAME.",
       {"get workers -o wide", "get deploy mlp -o yaml",
        "get steps --deployment mlp", "get all", "get deployments --watch"},
       {OutputOfAll(), WatchFlag("go on with what changes"), OfDeployment(),
        NoHeaders()},
       &RunGet},
      {"describe",
       "KIND NAME...",
       1,
       kMany,
       Completes::kKinds,
       "Shows all that is known of resources, with their events",
       "",
       {"describe deploy mlp", "describe workers/worker-0"},
       {OfDeployment()},
       &RunDescribe},
      {"wait",
       "KIND NAME...",
       1,
       kMany,
       Completes::kKinds,
       "Waits until resources are in a state",
       "Exit code 4: not in time. One that can no longer come to it is an "
       "error at once.",
       {"wait deployments/mlp --for=ready --timeout=5m",
        "wait deploy mlp --for=deleted"},
       {{.name = "for",
         .value = "STATE",
         .help = "ready, failed, draining, succeeded, deleted, …"},
        OfDeployment()},
       &RunWait},
      {"events",
       "",
       0,
       0,
       Completes::kNothing,
       "Shows what has happened",
       "The last 1000, the oldest first.",
       {"events", "events --for deploy/mlp --watch"},
       {{.name = "for", .value = "KIND/NAME", .help = "of this resource alone"},
        WatchFlag("go on with what happens"),
        OutputOfText(),
        NoHeaders()},
       &RunEvents},
      {"top",
       "[deployments|workers]",
       0,
       1,
       Completes::kKinds,
       "Shows how fast deployments step, and where the time goes",
       "By their last 64 steps. COMPUTE, COLLECTIVES and COMMIT are parts of "
       "a step's time;\nthe rest is RPC and the coordinator's own.",
       {"top", "top workers --watch"},
       {WatchFlag("again and again"),
        {.name = "interval",
         .value = "TIME",
         .help = "between two (default 2s)"},
        {.name = "times", .value = "N", .help = "so many, then end"}},
       &RunTop},
      {"diagnose",
       "",
       0,
       0,
       Completes::kNothing,
       "Finds what is wrong with the cluster",
       "Exit code 0: nothing, or notes alone; 1: warnings or errors; 3: no "
       "coordinator.",
       {"diagnose", "diagnose -o json"},
       {Output({"table", "json", "yaml"})},
       &RunDiagnose},
  };
}

std::vector<Command> RunCommands() {
  return {
      {"step",
       "DEPLOYMENT",
       1,
       1,
       Completes::kDeployments,
       "Runs one training step",
       "It has the number behind the deployment's last one. The same number "
       "and inputs again\nare answered, not repeated.",
       {"step mlp --random 1 --optimizer sgd --lr 0.1",
        "step mlp --inputs batch.json"},
       With(StepFlags(), {{.name = "number",
                           .value = "N",
                           .help = "of the step (default: the next)"}}),
       &RunStep},
      {"train",
       "DEPLOYMENT",
       1,
       1,
       Completes::kDeployments,
       "Runs training steps one after the other",
       "Each has the same --inputs, or random ones of its own.",
       {"train mlp --steps 100 --random 1 --optimizer adamw"},
       With(StepFlags(),
            {{.name = "steps", .value = "N", .help = "how many (default 1)"},
             {.name = "ahead",
              .value = "N",
              .help = "sent before the first answer (default 4)"}}),
       &RunTrain},
      {"timeline",
       "DEPLOYMENT [STEP]",
       1,
       2,
       Completes::kDeployments,
       "Shows where a step spent its time, on each rank",
       "Without a number: the last step. Each worker keeps 64.",
       {"timeline mlp", "timeline mlp 12 --trace step.json"},
       {{.name = "trace",
         .value = "FILE",
         .help = "write a trace that ui.perfetto.dev and chrome://tracing "
                 "open"},
        OutputOfText()},
       &RunTimeline},
      {"drain",
       "WORKER...",
       1,
       kMany,
       Completes::kWorkers,
       "Keeps workers out of further gangs",
       "What they serve goes on.",
       {"drain worker-0"},
       {},
       &RunDrain},
      {"uncordon",
       "WORKER...",
       1,
       kMany,
       Completes::kWorkers,
       "Gives drained workers to gangs again",
       "",
       {"uncordon worker-0"},
       {},
       &RunUncordon},
      {"cancel",
       "OPERATION...",
       1,
       kMany,
       Completes::kNothing,
       "Ends operations; their deployments are then FAILED",
       "",
       {"cancel operations/o1"},
       {},
       &RunCancel},
  };
}

std::vector<Command> OwnCommands() {
  return {
      {"config get-contexts",
       "",
       0,
       0,
       Completes::kNothing,
       "Lists contexts: coordinators under names",
       "",
       {"config get-contexts"},
       {Output({"table", "name"}), NoHeaders()},
       &RunGetContexts},
      {"config current-context",
       "",
       0,
       0,
       Completes::kNothing,
       "Prints the current context's name",
       "",
       {"config current-context"},
       {},
       &RunCurrentContext},
      {"config use-context",
       "NAME",
       1,
       1,
       Completes::kContexts,
       "Makes a context the current one",
       "",
       {"config use-context lab"},
       {},
       &RunUseContext},
      {"config set-context",
       "NAME",
       1,
       1,
       Completes::kContexts,
       "Adds a context, or gives it another address",
       "The first one becomes the current one.",
       {"config set-context lab --address 10.0.0.7:7070"},
       {},
       &RunSetContext},
      {"config delete-context",
       "NAME",
       1,
       1,
       Completes::kContexts,
       "Deletes a context",
       "",
       {"config delete-context lab"},
       {},
       &RunDeleteContext},
      {"completion",
       "bash|zsh",
       1,
       1,
       Completes::kNothing,
       "Prints a script that completes what is typed",
       "",
       {"completion bash > /etc/bash_completion.d/shardctl"},
       {},
       &RunCompletion},
      {"man",
       "",
       0,
       0,
       Completes::kNothing,
       "Prints the manual page",
       "",
       {"man | man -l -"},
       {},
       &RunManual},
      {"version",
       "",
       0,
       0,
       Completes::kNothing,
       "Prints this program's version and its API",
       "",
       {"version"},
       {Output({"table", "json", "yaml"})},
       &RunVersion},
  };
}

}  // namespace

const std::vector<Command>& Commands() {
  static const auto* const kCommands = [] {
    auto* all = new std::vector<Command>;
    for (std::vector<Command>& group :
         std::vector<std::vector<Command>>{PlanCommands(), ResourceCommands(),
                                           RunCommands(), OwnCommands()}) {
      all->insert(all->end(), group.begin(), group.end());
    }
    return all;
  }();
  return *kCommands;
}

const std::vector<Flag>& GlobalFlags() {
  static const auto* const kFlags = new std::vector<Flag>{
      {.name = "address",
       .value = "HOST:PORT",
       .help = "of the coordinator; else SHARDPLANE_ADDRESS, else the "
               "context's"},
      {.name = "context",
       .value = "NAME",
       .help = "of the contexts; else the current one"},
      {.name = "config",
       .value = "FILE",
       .help = "of contexts; else SHARDPLANE_CONFIG, else "
               "~/.config/shardplane/config.yaml"},
      {.name = "timeout",
       .value = "TIME",
       .help = "of a call (default 1m), or of all that is waited for (10m)"},
      {.name = "no-color", .help = "no colours, as NO_COLOR", .kind = kSwitch},
  };
  return *kFlags;
}

}  // namespace shardplane
