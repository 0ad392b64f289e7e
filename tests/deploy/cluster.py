"""The objects of one overlay, and what of them makes a pod."""

import dataclasses

from tests.deploy import kustomize

COMPONENTS = ["coordinator", "worker"]


def selects(selector, labels):
    return all(labels.get(key) == value
               for key, value in selector.get("matchLabels", {}).items())


@dataclasses.dataclass(frozen=True)
class Cluster:
    objects: list

    def of_kind(self, kind):
        return {item["metadata"]["name"]: item for item in self.objects
                if item["kind"] == kind}

    def workload(self, component):
        """The StatefulSet or LeaderWorkerSet."""
        (only,) = [item for kind in ("StatefulSet", "LeaderWorkerSet")
                   for name, item in self.of_kind(kind).items()
                   if name == f"shardplane-{component}"]
        return only

    def template(self, component):
        spec = self.workload(component)["spec"]
        return (spec["template"] if "template" in spec else
                spec["leaderWorkerTemplate"]["workerTemplate"])

    def pod(self, component):
        return self.template(component)["spec"]

    def labels(self, component):
        return self.template(component)["metadata"]["labels"]

    def container(self, component):
        (only,) = self.pod(component)["containers"]
        return only

    def ports(self, component):
        """name -> number"""
        return {port["name"]: port["containerPort"]
                for port in self.container(component)["ports"]}

    def flags(self, component):
        return dict(argument.removeprefix("--").split("=", 1)
                    for argument in self.container(component)["args"])

    def pod_names(self, component):
        """As the controllers name them, in the order of their numbers."""
        workload = self.workload(component)
        name, spec = workload["metadata"]["name"], workload["spec"]
        if workload["kind"] == "StatefulSet":
            return [f"{name}-{i}" for i in range(spec["replicas"])]
        size = spec["leaderWorkerTemplate"]["size"]
        return [f"{name}-{group}" + (f"-{i}" if i else "")
                for group in range(spec["replicas"]) for i in range(size)]

    def service_pods(self, service):
        """The component that a Service leads to."""
        (only,) = [c for c in COMPONENTS if selects(
            {"matchLabels": service["spec"]["selector"]}, self.labels(c))]
        return only


def load(overlay):
    return Cluster(kustomize.build(overlay))
