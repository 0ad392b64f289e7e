"""A node and its pods: network namespaces on a bridge.

They exist only as descriptors of this process, so that nothing is left when it
ends, and the machine's own network is not touched. Needs root.
"""

import concurrent.futures
import ctypes
import os
import subprocess
import threading

NEW_NETWORK = 0x40000000
PREFIX = "10.244.0."
NODE = PREFIX + "1"
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, "network namespaces need root and a kernel that "
                      f"has them: {os.strerror(number)}")


def _new_namespace():
    """Its descriptor, that children may inherit."""
    def make():
        _check(_libc.unshare(NEW_NETWORK))
        file = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        os.set_inheritable(file, True)
        return file
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(make).result()


class Namespace:
    """A network of its own. `within(...)` is a command's prefix."""

    def __init__(self):
        self.file = _new_namespace()
        self.path = f"/proc/{os.getpid()}/fd/{self.file}"
        self.outer = None  # the name of its other end on the node
        self.ip("link", "set", "lo", "up")

    def within(self, *command):
        return ["nsenter", f"--net={self.path}", "--", *map(str, command)]

    def ip(self, *arguments):
        subprocess.run(self.within("ip", *arguments), check=True,
                       stdin=subprocess.DEVNULL)

    def close(self):
        os.close(self.file)


class Network:
    """Pods get addresses in turn; an address that is given stays."""

    def __init__(self):
        self._node = Namespace()
        self._pods = []
        self._next = 2
        # In the node's network, as the kubelet's probes are.
        self.node_thread = concurrent.futures.ThreadPoolExecutor(
            1, initializer=self._enter)
        self._node.ip("link", "add", "pods", "type", "bridge")
        self._node.ip("address", "add", f"{NODE}/24", "dev", "pods")
        self._node.ip("link", "set", "pods", "up")

    def _enter(self):
        assert threading.current_thread() is not threading.main_thread()
        _check(_libc.setns(self._node.file, NEW_NETWORK))

    def add_pod(self, address=None):
        """(its namespace, its address)"""
        pod, number = Namespace(), self._next
        self._next += 1
        address = address or PREFIX + str(number)
        pod.outer = f"pod{number}"
        # By the address, so that nobody need forget a replaced pod's.
        hardware = f"02:00:00:00:00:{int(address.split('.')[-1]):02x}"
        self._node.ip("link", "add", pod.outer, "type", "veth", "peer", "name",
                      "eth0", "address", hardware, "netns", pod.path)
        self._node.ip("link", "set", pod.outer, "master", "pods", "up")
        pod.ip("address", "add", f"{address}/24", "dev", "eth0")
        pod.ip("link", "set", "eth0", "up")
        self._pods.append(pod)
        return pod, address

    def remove_pod(self, pod):
        self._node.ip("link", "delete", pod.outer)
        self._pods.remove(pod)
        pod.close()

    def close(self):
        self.node_thread.shutdown()
        for namespace in (*self._pods, self._node):
            namespace.close()
