"""Which connections the NetworkPolicies of one namespace allow.

Of what the manifests use: selectors by matchLabels, ports by number.
"""

from tests.deploy.cluster import selects

PEERS = {"ingress": "from", "egress": "to"}


def policies_of(cluster, labels):
    specs = [p["spec"] for p in cluster.of_kind("NetworkPolicy").values()]
    return [spec for spec in specs if selects(spec["podSelector"], labels)]


def _matches(rule, peers, labels, namespace, port):
    if port not in [p["port"] for p in rule.get("ports", [])] + (
            [] if "ports" in rule else [port]):
        return False
    for peer in rule[peers]:
        assert set(peer) <= {"podSelector", "namespaceSelector"}, peer
        of_namespace = (namespace == {} if "namespaceSelector" not in peer
                        else selects(peer["namespaceSelector"], namespace))
        if of_namespace and selects(peer.get("podSelector", {}), labels):
            return True
    return False


def half(cluster, labels, direction, peer_labels, port, peer_namespace=None):
    """Whether a pod's policies let it talk to, or hear, the peer.
    `peer_namespace`: labels of the peer's namespace, None for the pod's own."""
    policies = [policy for policy in policies_of(cluster, labels)
                if direction.capitalize() in policy["policyTypes"]]
    namespace = peer_namespace or {}
    return not policies or any(
        _matches(rule, PEERS[direction], peer_labels, namespace, port)
        for policy in policies for rule in policy.get(direction, []))


def allows(cluster, source, target, port):
    """Whether a pod with labels `source` may connect to `target`'s port, both
    in this namespace."""
    return (half(cluster, source, "egress", target, port) and
            half(cluster, target, "ingress", source, port))
