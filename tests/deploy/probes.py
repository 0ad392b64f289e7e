"""Probes of a pod, as its manifest says and the kubelet makes them."""

import http.client
import threading


def get(pod, port, path, seconds=5):
    """(status, body) as the node sees it; status 0: no answer."""
    number = {p["name"]: p["containerPort"] for p in pod.container["ports"]}
    def ask():
        connection = http.client.HTTPConnection(
            pod.address, number.get(port, port), timeout=seconds)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)
        finally:
            connection.close()
    return pod.network.node_thread.submit(ask).result()


def passes(pod, name):
    probe = pod.container[name]
    status, _ = get(pod, probe["httpGet"]["port"], probe["httpGet"]["path"],
                    probe.get("timeoutSeconds", 1))
    return 200 <= status < 400


def wait(pod, name):
    """Probes until it passes; fails where the kubelet would give up, or (a
    readiness probe never does) after a minute. How often it asked."""
    probe = pod.container[name]
    period = probe.get("periodSeconds", 10)
    tries = (probe.get("failureThreshold", 3) if name == "startupProbe"
             else -(-60 // period))
    for tried in range(1, tries + 1):
        if passes(pod, name):
            return tried
        assert pod.process.poll() is None, pod.log.read_text()
        threading.Event().wait(period)
    raise AssertionError(f"{pod.name}, {name}: {pod.log.read_text()}")


def until(condition, seconds=30, every=0.05):
    """Asks until it is true; fails after `seconds`. What it returned."""
    for _ in range(int(seconds / every)):
        found = condition()
        if found:
            return found
        threading.Event().wait(every)
    raise AssertionError(f"not within {seconds} s")
