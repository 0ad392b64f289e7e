"""Checks the Kubernetes manifests without a cluster."""

import pathlib
import re
import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
BASE = KUBERNETES / "base"
MONITORING = KUBERNETES / "overlays" / "monitoring"
GRAFANA = ROOT / "deploy" / "grafana"
# The oldest that has everything the manifests use, and the newest known.
VERSIONS = ["1.30", "1.37"]
# Kinds of the Prometheus operator have no schema among Kubernetes' own.
FOREIGN = {"PodMonitor"}
COMPONENTS = {"coordinator": "coordinator/main.cc", "worker": "worker/main.cc"}


def load(folder):
    """All objects of a kustomization, those of its bases first."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    objects = []
    for resource in kustomization.get("resources", []):
        path = folder / resource
        if path.is_dir():
            objects += load(path.resolve())
        else:
            objects += [o for o in yaml.safe_load_all(path.read_text()) if o]
    for config_map in kustomization.get("configMapGenerator", []):
        objects.append({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": config_map["name"],
                         "labels": config_map["options"]["labels"]},
            "data": {name: (folder / name).read_text()
                     for name in config_map["files"]}})
    return objects


def name_of(item):
    return f"{item['kind']}/{item['metadata']['name']}"


ALL = load(MONITORING)
OWN_KINDS = [item for item in ALL if item["kind"] not in FOREIGN]


def of_kind(kind):
    return {item["metadata"]["name"]: item for item in ALL
            if item["kind"] == kind}


def stateful_set(component):
    return of_kind("StatefulSet")[f"shardplane-{component}"]


def pod(component):
    return stateful_set(component)["spec"]["template"]["spec"]


def container(component):
    (only,) = pod(component)["containers"]
    return only


def container_ports(component):
    return {p["name"]: p["containerPort"]
            for p in container(component)["ports"]}


def flags(component):
    return dict(argument.removeprefix("--").split("=", 1)
                for argument in container(component)["args"])


def selects(selector, labels):
    return all(labels.get(key) == value for key, value in selector.items())


def pod_labels(component):
    return stateful_set(component)["spec"]["template"]["metadata"]["labels"]


@pytest.fixture(params=sorted(COMPONENTS))
def component(request):
    return request.param


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("item", OWN_KINDS, ids=name_of)
def test_fits_its_schema(item, version):
    kubernetes_validate.validate(item, version, strict=True)


def test_schema_check_can_fail():
    broken = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"},
              "spec": {"ports": [{"port": 1, "targetport": 2}]}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_pod_monitor_scrapes_every_pod():
    (monitor,) = of_kind("PodMonitor").values()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    for component in COMPONENTS:
        assert selects(monitor["spec"]["selector"]["matchLabels"],
                       pod_labels(component))
        assert endpoint["port"] in container_ports(component)
    assert endpoint["path"] == "/metrics"


def test_no_file_is_left_out():
    listed = set()
    for folder in (BASE, MONITORING, GRAFANA):
        text = yaml.safe_load((folder / "kustomization.yaml").read_text())
        listed |= {(folder / r).resolve() for r in text.get("resources", [])}
        listed.add(folder / "kustomization.yaml")
    files = set(KUBERNETES.rglob("*.yaml")) | set(GRAFANA.rglob("*.yaml"))
    assert files <= listed


def test_kustomize_renders_the_same_objects():
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return  # What this module loads is checked above in any case.
    done = subprocess.run([kubectl, "kustomize", MONITORING], check=False,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rendered = {name_of(o) for o in yaml.safe_load_all(done.stdout)}
    assert rendered == {name_of(o) for o in ALL}


def test_namespace_is_the_users():
    assert [name_of(i) for i in ALL if "namespace" in i["metadata"]] == []


def test_recommended_labels():
    for item in ALL:
        labels = item["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "shardplane", name_of(item)
        assert labels["app.kubernetes.io/part-of"] == "shardplane"


def known_flags(component):
    """name -> default, as main.cc writes it."""
    return dict(re.findall(r"ABSL_FLAG\(\s*[\w:<>]+,\s*(\w+),\s*([^,]+),",
                           (ROOT / COMPONENTS[component]).read_text()))


def test_arguments_are_flags_of_the_binary(component):
    assert set(flags(component)) <= set(known_flags(component))


def test_binaries_listen_on_loopback_unless_told_otherwise(component):
    for flag in ("listen", "http_listen"):
        assert known_flags(component)[flag] == '"127.0.0.1:0"'


def test_listens_on_the_ports_that_it_shows(component):
    ports = container_ports(component)
    given = flags(component)
    assert given["listen"].endswith(f":{ports['grpc']}")
    assert given["http_listen"].endswith(f":{ports['http']}")
    assert len(set(ports.values())) == len(ports)


def test_environment_of_arguments_is_set(component):
    environment = {e["name"] for e in container(component).get("env", [])}
    arguments = " ".join(container(component)["args"])
    used = set(re.findall(r"\$\((\w+)\)", arguments))
    assert used <= environment


def test_services_lead_to_pods_and_ports():
    for name, service in of_kind("Service").items():
        chosen = [c for c in COMPONENTS
                  if selects(service["spec"]["selector"], pod_labels(c))]
        assert len(chosen) == 1, name
        for port in service["spec"]["ports"]:
            ports = container_ports(chosen[0])
            assert ports[port["targetPort"]] == port["port"], name


def test_workers_find_the_coordinator():
    host, port = flags("worker")["coordinator"].split(":")
    service = of_kind("Service")[host]
    assert selects(service["spec"]["selector"], pod_labels("coordinator"))
    assert service["spec"].get("clusterIP") != "None"
    assert [p["port"] for p in service["spec"]["ports"]] == [int(port)]


def test_stateful_sets_have_a_headless_service(component):
    spec = stateful_set(component)["spec"]
    service = of_kind("Service")[spec["serviceName"]]
    assert service["spec"]["clusterIP"] == "None"
    assert selects(service["spec"]["selector"], pod_labels(component))
    assert selects(spec["selector"]["matchLabels"], pod_labels(component))


def test_workers_start_in_parallel():
    assert stateful_set("worker")["spec"]["podManagementPolicy"] == "Parallel"


@pytest.mark.parametrize("probe, path", [
    ("startupProbe", "/livez"), ("livenessProbe", "/livez"),
    ("readinessProbe", "/readyz")])
def test_probes_ask_for_paths_that_are_served(component, probe, path):
    assert container(component)[probe]["httpGet"] == {"path": path,
                                                      "port": "http"}
    assert f'"{path}"' in (ROOT / "telemetry/http_server.cc").read_text()


def test_pods_are_restricted(component):
    security = pod(component)["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == security["runAsGroup"] == 65532
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(component)["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]}}
    assert pod(component)["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod(component))
    for volume in pod(component).get("volumes", []):
        assert "hostPath" not in volume


def test_pods_have_limits_and_time_to_drain(component):
    resources = container(component)["resources"]
    assert {"cpu", "memory"} <= set(resources["requests"])
    assert "memory" in resources["limits"]
    drain = flags(component)
    seconds = (int(drain["drain_ms"]) / 1000 if "drain_ms" in drain
               else int(drain["drain_timeout"].removesuffix("s")))
    assert seconds + 10 <= pod(component)["terminationGracePeriodSeconds"]


def test_worker_has_shared_memory():
    (mount,) = container("worker")["volumeMounts"]
    (volume,) = pod("worker")["volumes"]
    assert mount == {"name": volume["name"], "mountPath": "/dev/shm"}
    assert volume["emptyDir"]["medium"] == "Memory"


def test_disruption_budgets_cover_the_pods(component):
    (budget,) = [b for b in of_kind("PodDisruptionBudget").values()
                 if selects(b["spec"]["selector"]["matchLabels"],
                            pod_labels(component))]
    assert "maxUnavailable" in budget["spec"]


def policies_of(component):
    return [p["spec"] for p in of_kind("NetworkPolicy").values()
            if selects(p["spec"]["podSelector"]["matchLabels"],
                       pod_labels(component))]


def allows(component, direction, peer_labels, port):
    """Whether a policy lets the pod talk to peers of its own namespace."""
    peer_key = "from" if direction == "ingress" else "to"
    for policy in policies_of(component):
        for rule in policy.get(direction, []):
            ports = [p["port"] for p in rule.get("ports", [])]
            if ports and port not in ports:
                continue
            if any(selects(peer["podSelector"]["matchLabels"], peer_labels)
                   for peer in rule[peer_key] if "podSelector" in peer):
                return True
    return False


def test_network_is_closed_by_default(component):
    denying = [p for p in policies_of(component)
               if "ingress" not in p and "egress" not in p]
    assert [sorted(p["policyTypes"]) for p in denying] == [
        ["Egress", "Ingress"]]


EPHEMERAL = 43210
FLOWS = [  # from, to, port, allowed
    ("worker", "coordinator", 7070, True),
    ("coordinator", "worker", 7071, True),
    ("worker", "worker", EPHEMERAL, True),
    ("worker", "coordinator", EPHEMERAL, False),
    ("coordinator", "worker", EPHEMERAL, False),
    ("coordinator", "coordinator", 7070, False),
]


@pytest.mark.parametrize("source, target, port, allowed", FLOWS)
def test_network_flow(source, target, port, allowed):
    leaves = allows(source, "egress", pod_labels(target), port)
    enters = allows(target, "ingress", pod_labels(source), port)
    assert (leaves and enters) == allowed


def test_clients_need_their_label():
    port = container_ports("coordinator")["grpc"]
    assert allows("coordinator", "ingress",
                  {"shardplane.dev/client": "true"}, port)
    assert not allows("coordinator", "ingress", {"app": "stranger"}, port)
