"""Checks that the manifests agree with each other and with the binaries."""

import re

import pytest

from tests.deploy import cluster
from tests.deploy import kustomize
from tests.deploy import network_policy
from tests.deploy.cluster import selects

ROOT = kustomize.ROOT
SOURCES = {"coordinator": "coordinator/main.cc", "worker": "worker/main.cc"}


@pytest.fixture(params=kustomize.CLUSTERS)
def made(request):
    return cluster.load(request.param)


@pytest.fixture(params=cluster.COMPONENTS)
def component(request):
    return request.param


def known_flags(component):
    """name -> default, as main.cc writes it."""
    return dict(re.findall(r"ABSL_FLAG\(\s*[\w:<>]+,\s*(\w+),\s*([^,]+),",
                           (ROOT / SOURCES[component]).read_text()))


def test_arguments_are_flags_of_the_binary(made, component):
    assert set(made.flags(component)) <= set(known_flags(component))


def test_binaries_listen_on_loopback_unless_told_otherwise(component):
    for flag in ("listen", "http_listen"):
        assert known_flags(component)[flag] == '"127.0.0.1:0"'


def test_listens_on_the_ports_that_it_shows(made, component):
    ports, given = made.ports(component), made.flags(component)
    assert given["listen"].endswith(f":{ports['grpc']}")
    assert given["http_listen"].endswith(f":{ports['http']}")
    assert len(set(ports.values())) == len(ports)


def test_environment_of_arguments_is_set(made, component):
    environment = {e["name"] for e in made.container(component).get("env", [])}
    arguments = " ".join(made.container(component)["args"])
    assert set(re.findall(r"\$\((\w+)\)", arguments)) <= environment


def test_services_lead_to_pods_and_ports(made):
    for name, service in made.of_kind("Service").items():
        ports = made.ports(made.service_pods(service))
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"], name


def test_workers_find_the_coordinator(made):
    host, port = made.flags("worker")["coordinator"].split(":")
    service = made.of_kind("Service")[host]
    assert made.service_pods(service) == "coordinator"
    assert service["spec"].get("clusterIP") != "None"
    assert [p["port"] for p in service["spec"]["ports"]] == [int(port)]


def test_stateful_sets_have_a_headless_service(made):
    for name, workload in made.of_kind("StatefulSet").items():
        component = name.removeprefix("shardplane-")
        service = made.of_kind("Service")[workload["spec"]["serviceName"]]
        assert service["spec"]["clusterIP"] == "None"
        assert made.service_pods(service) == component
        assert selects(workload["spec"]["selector"], made.labels(component))


def test_workers_start_in_parallel_and_come_back_alone(made):
    spec = made.workload("worker")["spec"]
    if "leaderWorkerTemplate" in spec:
        assert spec["startupPolicy"] == "LeaderCreated"
        assert spec["leaderWorkerTemplate"]["restartPolicy"] == "None"
    else:
        assert spec["podManagementPolicy"] == "Parallel"


def test_there_is_one_coordinator(made):
    assert made.workload("coordinator")["spec"]["replicas"] == 1


@pytest.mark.parametrize("probe, path", [
    ("startupProbe", "/livez"), ("livenessProbe", "/livez"),
    ("readinessProbe", "/readyz")])
def test_probes_ask_the_plaintext_port(made, component, probe, path):
    assert made.container(component)[probe]["httpGet"] == {"path": path,
                                                           "port": "http"}


def test_pods_are_restricted(made, component):
    pod = made.pod(component)
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == security["runAsGroup"] == 65532
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert made.container(component)["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]}}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for volume in pod.get("volumes", []):
        assert "hostPath" not in volume


def drain_seconds(flags):
    if "drain_ms" in flags:
        return int(flags["drain_ms"]) / 1000
    return int(flags["drain_timeout"].removesuffix("s"))


def test_pods_have_limits_and_time_to_drain(made, component):
    resources = made.container(component)["resources"]
    assert {"cpu", "memory"} <= set(resources["requests"])
    assert "memory" in resources["limits"]
    # Deregistering takes a third of a lease at most, closing half a second.
    lease = int(made.flags("coordinator")["lease_ms"]) / 1000
    assert (drain_seconds(made.flags(component)) + lease / 3 + 1 <
            made.pod(component)["terminationGracePeriodSeconds"])


def test_worker_has_shared_memory(made):
    (mount,) = made.container("worker")["volumeMounts"]
    (volume,) = made.pod("worker")["volumes"]
    assert mount == {"name": volume["name"], "mountPath": "/dev/shm"}
    assert volume["emptyDir"]["medium"] == "Memory"


def test_disruption_budgets_cover_the_pods(made, component):
    (budget,) = [b for b in made.of_kind("PodDisruptionBudget").values()
                 if selects(b["spec"]["selector"], made.labels(component))]
    assert "maxUnavailable" in budget["spec"]


def test_pod_monitor_scrapes_every_pod(made, component):
    (monitor,) = [item for item in kustomize.build("monitoring")
                  if item["kind"] == "PodMonitor"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert selects(monitor["spec"]["selector"], made.labels(component))
    assert endpoint["port"] in made.ports(component)


def test_network_is_closed_by_default(made, component):
    policies = network_policy.policies_of(made, made.labels(component))
    denying = [sorted(p["policyTypes"]) for p in policies
               if not {"ingress", "egress"} & set(p)]
    assert denying == [["Egress", "Ingress"]]


EPHEMERAL = 43210
CLIENT = {"shardplane.dev/client": "true"}
STRANGER = {"app": "stranger"}
FLOWS = [  # from, to, port, allowed
    ("worker", "coordinator", 7070, True),
    ("coordinator", "worker", 7071, True),
    ("worker", "worker", EPHEMERAL, True),
    ("worker", "coordinator", EPHEMERAL, False),
    ("coordinator", "worker", EPHEMERAL, False),
    ("coordinator", "coordinator", 7070, False),
    (CLIENT, "coordinator", 7070, True),
    (CLIENT, "coordinator", 8080, False),
    (CLIENT, "worker", 7071, False),
    (STRANGER, "coordinator", 7070, False),
    ("worker", STRANGER, 443, False),
]


@pytest.mark.parametrize("source, target, port, allowed", FLOWS, ids=str)
def test_network_flow(made, source, target, port, allowed):
    source, target = (made.labels(end) if isinstance(end, str) else end
                      for end in (source, target))
    assert network_policy.allows(made, source, target, port) == allowed


@pytest.mark.parametrize("labels, allowed", [
    ({"shardplane.dev/monitoring": "true"}, True), ({"name": "other"}, False)])
def test_prometheus_comes_from_a_labelled_namespace(made, component, labels,
                                                    allowed):
    assert network_policy.half(
        made, made.labels(component), "ingress", {"app": "prometheus"},
        made.ports(component)["http"], peer_namespace=labels) == allowed


def test_workers_may_ask_for_names(made):
    assert network_policy.half(
        made, made.labels("worker"), "egress", {"k8s-app": "kube-dns"}, 53,
        peer_namespace={"kubernetes.io/metadata.name": "kube-system"})
