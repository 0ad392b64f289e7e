"""A pod as the kubelet and a container runtime run it, from its manifest.

The image's root read-only, the manifest's user without capabilities, no new
privileges, the runtime's seccomp filter, a network, hostname, process table and
/dev/shm of its own; writable is what the manifest mounts. Memory and processor
limits are not set.
"""

import json
import math
import os
import re
import signal
import subprocess

from tests.deploy import seccomp

NAMESPACE = "training"
UNITS = {"": 1, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What setpriv needs until it has given them up.
NEEDED = ["CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"]
# A runtime's, where the manifest mounts nothing there.
DEFAULT_SHM = 64 << 20


def quantity(text):
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text).groups()
    return float(number) * UNITS[unit]


def _value(entry, container, fields):
    if "value" in entry:
        return entry["value"]
    ((kind, source),) = entry["valueFrom"].items()
    if kind == "fieldRef":
        return fields[source["fieldPath"]]
    assert kind == "resourceFieldRef", kind
    section, resource = source["resource"].split(".")
    return str(math.ceil(quantity(container["resources"][section][resource]) /
                         quantity(source["divisor"])))


def expand(text, variables):
    """$(NAME), as the kubelet does; one that is not set stays."""
    return re.sub(r"\$\((\w+)\)",
                  lambda match: variables.get(match[1], match[0]), text)


def environment(container, fields):
    found = {}
    for entry in container.get("env", []):
        found[entry["name"]] = expand(_value(entry, container, fields), found)
    return found


def shared_memory(spec, container):
    """Bytes of /dev/shm; nothing else may be mounted."""
    volumes = {v["name"]: v for v in spec.get("volumes", [])}
    size = DEFAULT_SHM
    for mount in container.get("volumeMounts", []):
        assert mount["mountPath"] == "/dev/shm", mount
        (source,) = set(volumes[mount["name"]]) - {"name"}
        assert source == "emptyDir", source
        size = quantity(volumes[mount["name"]]["emptyDir"]["sizeLimit"])
    return int(size)


class Pod:
    """One container, and its process; close() kills what is left."""

    def __init__(self, name, labels, spec, image, root, network, folder,
                 address=None):
        self.name, self.labels, self.image = name, labels, image
        (self.container,) = spec["containers"]
        self.spec = spec
        self.network = network
        self.namespace, self.address = network.add_pod(address)
        self._root, self._folder = root, folder
        self.log = folder / f"{name}.log"
        self.process = self.pid = self.guard = None

    def command(self):
        """The image's entry point and the manifest's arguments."""
        assert "command" not in self.container
        return self.image.entrypoint + [
            expand(a, self.environment()) for a in self.container["args"]]

    def environment(self):
        return environment(self.container, {"metadata.name": self.name,
                                            "status.podIP": self.address})

    def _sandbox(self, etc):
        options = [*self._root, "--proc", "/proc", "--dev", "/dev",
                   "--size", shared_memory(self.spec, self.container),
                   "--perms", "1777", "--tmpfs", "/dev/shm",
                   "--remount-ro", "/dev",
                   "--unshare-pid", "--as-pid-1", "--unshare-ipc",
                   "--unshare-uts", "--hostname", self.name, "--new-session",
                   "--die-with-parent", "--chdir", "/", "--cap-drop", "ALL"]
        for capability in NEEDED:
            options += ["--cap-add", capability]
        for file in etc:
            options += ["--ro-bind", file, f"/etc/{file.name}"]
        variables = {"PATH": PATH, "HOSTNAME": self.name, "HOME": "/",
                     **self.image.environment, **self.environment()}
        options.append("--clearenv")
        for name, value in variables.items():
            options += ["--setenv", name, value]
        return options

    def _user(self):
        """A prefix: gives up root, for the manifest's user."""
        security = self.spec["securityContext"]
        user, group = security["runAsUser"], security["runAsGroup"]
        assert (user, group) == self.image.user
        return ["/usr/bin/setpriv", f"--reuid={user}", f"--regid={group}",
                f"--groups={security['fsGroup']}", "--inh-caps=-all",
                "--bounding-set=-all", "--no-new-privs", "--"]

    def start(self, etc, command=None):
        """`etc`: files that go to /etc."""
        reader, writer = os.pipe()
        filter_file = seccomp.compiled()
        os.lseek(filter_file, 0, os.SEEK_SET)
        arguments = self.namespace.within(
            "bwrap", *self._sandbox(etc), "--seccomp", filter_file,
            "--info-fd", writer, "--", *self._user(),
            *(command or self.command()))
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=[writer, filter_file])
        os.close(writer)
        os.close(filter_file)
        with open(reader, encoding="utf-8") as file:
            told = file.read()
        assert told, self.log.read_text()
        self.pid = json.loads(told)["child-pid"]
        # --die-with-parent does not survive the change of user. This kills when
        # its input ends, as it does when we end, however that may be.
        self.guard = subprocess.Popen(
            ["sh", "-c", f"read -r _; kill -KILL {self.pid}"],
            stdin=subprocess.PIPE, start_new_session=True)

    def stop(self):
        """As the kubelet: the signal, the grace period. The exit code; fails
        where it would have to kill."""
        assert "lifecycle" not in self.container
        os.kill(self.pid, signal.Signals[self.image.stop_signal])
        return self.process.wait(self.spec["terminationGracePeriodSeconds"])

    def close(self):
        if self.guard is not None:
            self.guard.kill()  # a number may be another's by now
            self.guard.wait()
            self.guard.stdin.close()
        if self.process is not None and self.process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.process.wait()
