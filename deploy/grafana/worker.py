"""The dashboard of workers: where a rank's time and memory go."""

from deploy.grafana.cluster import NAMESPACE
from deploy.grafana.panels import Dashboard, Row, Variable, graph, stat

N = 'namespace=~"$namespace"'
W = N + ',instance=~"$worker"'
WORKER = W + ',component="worker"'
VARIABLE = Variable(
    "worker", "Worker",
    f'label_values(shardplane_build_info{{{N},component="worker"}}, instance)')
NAME = "{{pod}} {{instance}}"
WAIT_SHARE = "namespace_pod_instance:shardplane_collective_wait:ratio_rate5m"
MEMORY_SHARE = "namespace_pod_instance:shardplane_device_memory_used:ratio"

AT_A_GLANCE = Row("At a glance", (
    stat("Workers", "Those chosen that can be scraped.", "none",
         f"sum(up{{{WORKER}}})"),
    stat("Fullest device", "Share of its memory in use.", "percentunit",
         f"max({MEMORY_SHARE}{{{W}}})"),
    stat("Share in collectives, least", "The one that the others wait for.",
         "percentunit", f"min({WAIT_SHARE}{{{W}}})"),
    stat("Share in collectives, most", "The one that waits most.",
         "percentunit", f"max({WAIT_SHARE}{{{W}}})"),
))

STEPS = Row("Steps of a rank", (
    graph("Steps by phase", "This rank's part; a commit belongs to each "
          "training step.", "ops",
          ("sum by (pod, instance, phase, result) (rate("
           f"shardplane_steps_total{{{WORKER}}}[$__rate_interval]))",
           NAME + " {{phase}} {{result}}")),
    graph("Time of a step, p50", "Far below the coordinator's: the dispatch "
          "costs.", "s",
          ("histogram_quantile(0.5, sum by (le, pod, instance, phase) (rate("
           f"shardplane_step_duration_seconds_bucket{{{WORKER}}}"
           "[$__rate_interval])))", NAME + " {{phase}}")),
    graph("Time of a step, p99", "One rank above the others: its machine.", "s",
          ("histogram_quantile(0.99, sum by (le, pod, instance, phase) (rate("
           f"shardplane_step_duration_seconds_bucket{{{WORKER}}}"
           "[$__rate_interval])))", NAME + " {{phase}}")),
))

COLLECTIVES = Row("Collectives of a rank", (
    graph("Share of steps in collectives", "The lowest line is the rank that "
          "the others wait for.", "percentunit",
          (f"{WAIT_SHARE}{{{W}}}", NAME)),
    graph("Time of a step in collectives, p99", "By kind, waiting for other "
          "ranks included.", "s",
          ("histogram_quantile(0.99, sum by (le, pod, instance, collective) "
           f"(rate(shardplane_collective_wait_seconds_bucket{{{WORKER}}}"
           "[$__rate_interval])))", NAME + " {{collective}}")),
    graph("Collectives", "By kind.", "ops",
          ("sum by (pod, instance, collective) (rate("
           f"shardplane_collectives_total{{{WORKER}}}[$__rate_interval]))",
           NAME + " {{collective}}")),
    graph("Bytes", "The larger buffer of each collective, by what carries it.",
          "Bps",
          ("sum by (pod, instance, collective, transport) (rate("
           f"shardplane_collective_bytes_total{{{WORKER}}}"
           "[$__rate_interval]))", NAME + " {{collective}} {{transport}}")),
    graph("Groups joined, by transport", "shm is shared memory of one machine, "
          "gloo is TCP, nccl is between GPUs.", "none",
          ("sum by (pod, instance, transport) (increase("
           f"shardplane_process_groups_total{{{WORKER}}}[5m]))",
           NAME + " {{transport}}")),
    graph("Streams of steps, by transport", "local is a socket of the "
          "coordinator's machine, the other gRPC.", "none",
          ("sum by (pod, instance, transport) (increase("
           f"shardplane_step_streams_total{{{WORKER}}}[5m]))",
           NAME + " {{transport}}")),
))

MEMORY = Row("Memory and CPU", (
    graph("Memory of the device", "Tensors, all that is taken of a GPU, and "
          "what there is.", "bytes",
          (f"shardplane_device_memory_used_bytes{{{WORKER}}}", NAME + " used"),
          (f"shardplane_device_memory_taken_bytes{{{WORKER}}}",
           NAME + " taken"),
          (f"shardplane_device_memory_total_bytes{{{WORKER}}}",
           NAME + " total")),
    graph("Share of the device's memory", "The alert is at 90 %.",
          "percentunit", (f"{MEMORY_SHARE}{{{W}}}", NAME)),
    graph("Utilization of the GPU", "By all of its processes: in what part of "
          "the time a kernel ran, or its memory was read or written.",
          "percentunit",
          (f"shardplane_device_utilization_ratio{{{WORKER}}}",
           NAME + " kernels"),
          (f"shardplane_device_memory_utilization_ratio{{{WORKER}}}",
           NAME + " memory")),
    graph("CPU", "Cores in use.", "none",
          (f"rate(process_cpu_seconds_total{{{WORKER}}}[$__rate_interval])",
           NAME)),
    graph("Open files and their limit", "Descriptors.", "none",
          (f"process_open_fds{{{WORKER}}}", NAME + " open"),
          (f"process_max_fds{{{WORKER}}}", NAME + " limit")),
    graph("Time to materialize, p99", "This rank's part.", "s",
          ("histogram_quantile(0.99, sum by (le, pod, instance) (rate("
           f"shardplane_materialize_duration_seconds_bucket{{{WORKER}}}"
           "[$__rate_interval])))", NAME)),
))

DASHBOARD = Dashboard(
    "worker", "Shardplane: worker",
    "Where the time and the memory of each rank go.",
    (NAMESPACE, VARIABLE), (AT_A_GLANCE, STEPS, COLLECTIVES, MEMORY))
