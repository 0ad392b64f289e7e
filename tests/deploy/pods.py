"""All pods of an overlay, on one node, with what a cluster gives them: names
of Services in /etc/hosts, addresses, an image each."""

import concurrent.futures
import contextlib
import copy

from tests.deploy import client_pod
from tests.deploy import cluster
from tests.deploy import image
from tests.deploy import pod_network
from tests.deploy import probes
from tests.deploy.pod import NAMESPACE, Pod

DNS = "10.96.0.10"


class Pods:
    """Use as a context; `images`: component -> what image.make returned.
    `changed`: values of flags that differ from the manifest's."""

    def __init__(self, overlay, images, folder):
        self.cluster = cluster.load(overlay)
        self.network = pod_network.Network()
        self.changed = {}
        self._images, self._folder = images, folder
        self._closing = contextlib.ExitStack()
        self._closing.callback(self.network.close)
        # The address of the coordinator's Service, which stays.
        self._service = pod_network.PREFIX + "100"
        self.pods = {}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._closing.close()

    def start(self, component, name):
        """A new pod; one of that name, which has ended, is replaced."""
        if name in self.pods:
            assert self.pods[name].process.poll() is not None
            self.network.remove_pod(self.pods[name].namespace)
        pod = Pod(name, self.cluster.labels(component), self._spec(component),
                  image.Image(component), self._images[component],
                  self.network, self._folder,
                  self._service if component == "coordinator" else None)
        self._closing.callback(pod.close)
        self.pods[name] = pod
        pod.start(self._etc(name))
        return pod

    def _spec(self, component):
        spec = copy.deepcopy(self.cluster.pod(component))
        flags = self.cluster.flags(component)
        flags.update({name: value for name, value in self.changed.items()
                      if name in flags})
        spec["containers"][0]["args"] = [
            f"--{name}={value}" for name, value in flags.items()]
        return spec

    def start_all(self, workers=None):
        """All at once, as after `kubectl apply` (`workers`: scaled down to so
        many); returns when all are ready."""
        names = {"worker": self.cluster.pod_names("worker")[:workers],
                 "coordinator": self.cluster.pod_names("coordinator")}
        started = [self.start(component, name) for component in names
                   for name in names[component]]
        with concurrent.futures.ThreadPoolExecutor(len(started)) as threads:
            list(threads.map(wait_ready, started))

    def of(self, component):
        return [pod for pod in self.pods.values()
                if pod.labels == self.cluster.labels(component)]

    def client(self, within=None):
        client = client_pod.ClientPod(self.network, self._etc("client")[0],
                                      within)
        self._closing.callback(client.close)
        return client

    def _etc(self, name):
        folder = self._folder / f"etc-{name}"
        folder.mkdir(exist_ok=True)
        texts = {"hosts": self._hosts(name), "hostname": f"{name}\n",
                 "resolv.conf": f"nameserver {DNS}\nsearch {NAMESPACE}.svc."
                 "cluster.local svc.cluster.local cluster.local\n"
                 "options ndots:5\n"}
        for file, text in texts.items():
            (folder / file).write_text(text)
        return [folder / file for file in texts]

    def _hosts(self, name):
        """Of Services, those with an address of their own: the manifests use
        no other by name."""
        lines = ["127.0.0.1 localhost"]
        if name in self.pods:
            lines.append(f"{self.pods[name].address} {name}")
        for service, item in self.cluster.of_kind("Service").items():
            if item["spec"].get("clusterIP") != "None":
                assert self.cluster.service_pods(item) == "coordinator"
                names = [service, f"{service}.{NAMESPACE}",
                         f"{service}.{NAMESPACE}.svc",
                         f"{service}.{NAMESPACE}.svc.cluster.local"]
                lines.append(f"{self._service} {' '.join(names)}")
        return "\n".join(lines) + "\n"


def wait_ready(pod):
    probes.wait(pod, "startupProbe")
    probes.wait(pod, "readinessProbe")
    return pod


def images(out, folder):
    """component -> root, for Pods; `out`: from image.collect."""
    return {component: image.make(image.Image(component), out,
                                  folder / component)
            for component in cluster.COMPONENTS}
