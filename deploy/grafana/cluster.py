"""The dashboard of a whole cluster: who is there, what is asked, what fails."""

from deploy.grafana.panels import Dashboard, Row, Variable, graph, stat

N = 'namespace=~"$namespace"'
OURS = N + ',job=~"(.+/)?shardplane"'
NAMESPACE = Variable("namespace", "Namespace",
                     "label_values(shardplane_build_info, namespace)")

AT_A_GLANCE = Row("At a glance", (
    stat("Workers ready", "Workers that a deployment can have or has.", "none",
         f'sum(namespace_state:shardplane_workers:max{{{N},state="ready"}})'),
    stat("Deployments ready", "Those that take steps.", "none",
         f'sum(max by (namespace) (shardplane_deployments{{{N},'
         'state="ready"}))'),
    stat("Deployments failed", "They take no further step; delete them.",
         "none", f'sum(max by (namespace) (shardplane_deployments{{{N},'
         'state="failed"}))'),
    stat("Steps a second", "Numbered actions and forwards that succeeded.",
         "ops", "sum(namespace_phase_result:shardplane_steps:rate5m"
         f'{{{N},result="ok"}})'),
    stat("Steps that fail", "A failed step is applied nowhere and keeps its "
         "number.", "percentunit",
         f"max(namespace:shardplane_steps_failed:ratio_rate5m{{{N}}})"),
    stat("Versions", "More than one name: an upgrade is under way.", "none",
         "count by (component, version) (shardplane_build_info"
         f"{{{N}}})", "{{component}} {{version}}"),
))

COORDINATOR = Row("Coordinator", (
    graph("Leaders", "One for each cluster.", "none",
          (f"sum by (namespace) (shardplane_coordinator_is_leader{{{N}}})",
           "{{namespace}}"), width=6),
    graph("Gang epoch", "Rises whenever a gang is formed.", "none",
          (f"max by (namespace) (shardplane_coordinator_epoch{{{N}}})",
           "{{namespace}}"), width=6),
    graph("Watches", "Streams that clients follow.", "none",
          (f"sum by (namespace) (shardplane_watch_streams{{{N}}})",
           "{{namespace}}"), width=6),
    graph("Events", "What the coordinator has recorded, by reason.", "none",
          ("sum by (reason) (increase(shardplane_events_total"
           f"{{{N}}}[5m]))", "{{reason}}"), width=6),
))

WORKERS = Row("Workers and deployments", (
    graph("Workers by state", "As the coordinator sees them.", "none",
          (f"sum by (state) (namespace_state:shardplane_workers:max{{{N}}})",
           "{{state}}")),
    graph("Workers lost", "Within ten minutes, by reason; retired is no loss.",
          "none", ("sum by (reason) (namespace_reason:shardplane_worker_lost:"
                   f'increase10m{{{N},reason!="retired"}})', "{{reason}}")),
    graph("Deployments by state", "As the coordinator sees them.", "none",
          ("sum by (state) (max by (namespace, state) (shardplane_deployments"
           f"{{{N}}}))", "{{state}}")),
))

CALLS = Row("Calls", (
    graph("Calls by method", "Started. Those of workers are the "
          "coordinator's.", "reqps",
          ("sum by (component, grpc_method) (namespace_component_grpc_method:"
           f"grpc_server_call_started:rate5m{{{N}}})",
           "{{component}} {{grpc_method}}")),
    graph("Calls that failed", "Refusals of wrong requests among them.",
          "reqps", ("sum by (component, grpc_method, grpc_status) (rate("
                    f'grpc_server_call_duration_seconds_count{{{N},'
                    'grpc_status!="OK"}[$__rate_interval]))',
                    "{{component}} {{grpc_method}} {{grpc_status}}")),
    graph("Time of calls, p99", "Long ones are streams, steps and waits.", "s",
          ("max by (component, grpc_method) (namespace_component_grpc_method:"
           f"grpc_server_call_duration_seconds:p99_rate5m{{{N}}})",
           "{{component}} {{grpc_method}}")),
    graph("Errors of servers", "Share of calls that a server is to blame for.",
          "percentunit",
          (f"namespace_component:grpc_server_call_errors:ratio_rate5m{{{N}}}",
           "{{namespace}} {{component}}")),
    graph("Calls of steps under way", "Step and Train, begun and not ended.",
          "none", (f"namespace:shardplane_step_calls:in_flight{{{N}}}",
                   "{{namespace}}")),
    graph("Started calls, one by one", "Without the five minutes' mean.",
          "reqps", ("sum by (component) (rate(grpc_server_call_started_total"
                    f"{{{N}}}[$__rate_interval]))", "{{component}}")),
))

PROCESSES = Row("Processes", (
    graph("CPU", "Cores in use.", "none",
          (f"rate(process_cpu_seconds_total{{{OURS}}}[$__rate_interval])",
           "{{component}} {{instance}}")),
    graph("Resident memory", "Of the process; see worker for its device.",
          "bytes", (f"process_resident_memory_bytes{{{OURS}}}",
                    "{{component}} {{instance}}")),
    graph("Virtual memory", "Mapped, used or not.", "bytes",
          (f"process_virtual_memory_bytes{{{OURS}}}",
           "{{component}} {{instance}}")),
    graph("Open files", "Share of what is allowed.", "percentunit",
          (f"namespace_component_pod_instance:process_open_fds:ratio{{{N}}}",
           "{{component}} {{instance}}")),
    graph("Threads", "Of each process.", "none",
          (f"process_threads{{{OURS}}}", "{{component}} {{instance}}")),
    graph("Age", "Falls to 0 at a restart.", "s",
          (f"time() - process_start_time_seconds{{{OURS}}}",
           "{{component}} {{instance}}")),
))

DASHBOARD = Dashboard(
    "cluster", "Shardplane: cluster",
    "Coordinators, workers, calls and processes of the clusters chosen.",
    (NAMESPACE,), (AT_A_GLANCE, COORDINATOR, WORKERS, CALLS, PROCESSES))
