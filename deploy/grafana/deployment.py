"""The dashboard of deployments: how they are made, how their steps go."""

from deploy.grafana.cluster import NAMESPACE
from deploy.grafana.panels import Dashboard, Row, Variable, graph, stat

N = 'namespace=~"$namespace"'
D = N + ',deployment=~"$deployment"'
COORDINATOR = N + ',component="coordinator"'
DEPLOYMENT = Variable(
    "deployment", "Deployment",
    f"label_values(shardplane_deployment_last_step{{{N}}}, deployment)")
RESOLVE = "shardplane_plan_resolve_seconds"
STEP_TIME = "namespace_phase:shardplane_step_duration_seconds"

PROGRESS = Row("Progress of the deployments chosen", (
    stat("Highest step", "The last one of those chosen.", "none",
         f"max(shardplane_deployment_last_step{{{D}}})"),
    stat("Steps a second", "Of all chosen, over five minutes.", "ops",
         "sum(namespace_deployment:shardplane_deployment_last_step:deriv5m"
         f"{{{D}}})"),
    graph("Last step", "Flat: no step is accepted.", "none",
          ("max by (namespace, deployment) (shardplane_deployment_last_step"
           f"{{{D}}})", "{{deployment}}")),
    graph("Steps a second, each", "How fast the last step rises.", "ops",
          ("namespace_deployment:shardplane_deployment_last_step:deriv5m"
           f"{{{D}}}", "{{deployment}}")),
))

STEPS = Row("Steps of all deployments of the namespace", (
    graph("Steps by phase and result", "As the coordinator counts them.", "ops",
          ("sum by (phase, result) (namespace_phase_result:shardplane_steps:"
           f"rate5m{{{N}}})", "{{phase}} {{result}}")),
    graph("Steps that fail", "Share of all; the alert is at 5 %.",
          "percentunit",
          (f"namespace:shardplane_steps_failed:ratio_rate5m{{{N}}}",
           "{{namespace}}")),
    graph("Steps, one by one", "Without the five minutes' mean.", "ops",
          (f"sum by (phase) (rate(shardplane_steps_total{{{COORDINATOR}}}"
           "[$__rate_interval]))", "{{phase}}")),
    graph("Time of a step", "All ranks and the dispatch.", "s",
          (f"{STEP_TIME}:p50_rate5m{{{N}}}", "p50 {{phase}}"),
          (f"{STEP_TIME}:p99_rate5m{{{N}}}", "p99 {{phase}}")),
    graph("Mean beside its baseline", "The alert is at twice the median of six "
          "hours.", "s",
          (f"{STEP_TIME}:mean_rate5m{{{N}}}", "{{phase}}"),
          (f"{STEP_TIME}:median6h_mean_rate5m{{{N}}}", "{{phase}}, six hours")),
    graph("Dispatch, p99", "From a step's acceptance until all ranks have been "
          "told.", "s",
          (f"namespace:shardplane_step_dispatch_seconds:p99_rate5m{{{N}}}",
           "{{namespace}}")),
    graph("Overhead", "Share of a step that is neither forward, backward nor "
          "commit.", "percentunit",
          (f"namespace:shardplane_step_overhead_ratio:mean_rate5m{{{N}}}",
           "mean {{namespace}}"),
          ("histogram_quantile(0.99, sum by (namespace, le) (rate("
           f"shardplane_step_overhead_ratio_bucket{{{N}}}[$__rate_interval])))",
           "p99 {{namespace}}")),
))

COLLECTIVES = Row("Collectives", (
    graph("Collectives by kind and phase", "Summed over ranks.", "ops",
          ("sum by (collective, phase) (namespace_collective_phase:"
           f"shardplane_collectives:rate5m{{{N}}})",
           "{{collective}} {{phase}}")),
    graph("Bytes in collectives", "The larger buffer of each, padding "
          "included, summed over ranks.", "Bps",
          ("sum by (collective) (namespace_collective:"
           f"shardplane_collective_bytes:rate5m{{{N}}})", "{{collective}}")),
    graph("Time of a step in collectives, p99", "By kind, waiting for other "
          "ranks included.", "s",
          ("max by (collective) (namespace_collective:"
           f"shardplane_collective_wait_seconds:p99_rate5m{{{N}}})",
           "{{collective}}")),
))

MAKING = Row("Plans and parameters", (
    graph("Time to resolve a plan", "Against the module's tree.", "s",
          (f"histogram_quantile(0.5, sum by (le) (rate({RESOLVE}_bucket{{{N}}}"
           "[$__rate_interval])))", "p50"),
          (f"histogram_quantile(0.99, sum by (le) (rate({RESOLVE}_bucket{{{N}}}"
           "[$__rate_interval])))", "p99"), width=6),
    graph("Patterns without a match", "Named no module: often a typing "
          "mistake.", "none",
          ("sum by (namespace) (increase("
           f"shardplane_plan_unmatched_patterns_total{{{N}}}[5m]))",
           "{{namespace}}"), width=6),
    graph("Time to materialize", "Of a deployment, all ranks.", "s",
          ("histogram_quantile(0.5, sum by (le) (rate("
           f"shardplane_materialize_duration_seconds_bucket{{{COORDINATOR}}}"
           "[$__rate_interval])))", "p50"),
          ("histogram_quantile(0.99, sum by (le) (rate("
           f"shardplane_materialize_duration_seconds_bucket{{{COORDINATOR}}}"
           "[$__rate_interval])))", "p99"), width=6),
    graph("Bytes materialized", "By what moves them, summed over ranks.", "Bps",
          (f"sum by (op) (rate(shardplane_materialize_bytes_total{{{N}}}"
           "[$__rate_interval]))", "{{op}}"), width=6),
    graph("Operations", "What lasts, by kind and state; kept for a day.",
          "none", ("max by (kind, state) (shardplane_operations"
                   f"{{{N}}})", "{{kind}} {{state}}"), width=12),
))

DASHBOARD = Dashboard(
    "deployment", "Shardplane: deployment",
    "How deployments are made, and how their steps go.",
    (NAMESPACE, DEPLOYMENT), (PROGRESS, STEPS, COLLECTIVES, MAKING))
