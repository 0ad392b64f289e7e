"""A real Prometheus that scrapes a local cluster, with the project's rules."""

import datetime
import json
import pathlib
import re
import signal
import subprocess
import threading
import time
import urllib.parse
import urllib.request

import yaml

FOLDER = (pathlib.Path(__file__).resolve().parents[2] / "deploy"
          / "prometheus")
LISTENS = re.compile(r'msg="Listening on" address=(\S+)')
READY = "Server is ready to receive web requests"
SECONDS = 60  # that anything is waited for at most
LATE = 15      # that a value may be behind the API at most


def _seconds(text):
    """Of 2026-01-02T03:04:05.678901234Z, or with an offset."""
    date, fraction, zone = re.fullmatch(
        r"([^.Z+]+)(\.\d+)?(Z|[+-][\d:]+)", text).groups()
    whole = datetime.datetime.fromisoformat(date + zone.replace("Z", "+00:00"))
    return whole.timestamp() + float(fraction or 0)


class Prometheus:
    """`with Prometheus(tmp_path, cluster) as prometheus:`

    deploy/prometheus/prometheus.yml with short intervals, on a free port.
    """

    def __init__(self, folder, cluster, interval="200ms"):
        config = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))
        config["global"] = {"scrape_interval": interval,
                            "scrape_timeout": interval,
                            "evaluation_interval": interval}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        (folder / "rules").symlink_to(FOLDER / "rules")
        targets = cluster.scrape_targets()
        (folder / "targets.json").write_text(json.dumps(targets))
        self._targets = len(targets)
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--",  # ends with the tests
             "prometheus", f"--config.file={folder}/prometheus.yml",
             f"--storage.tsdb.path={folder}/data",
             "--web.listen-address=127.0.0.1:0"],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.log = []
        self._address = self._wait_until_ready()
        self._drain = threading.Thread(
            target=lambda: self.log.extend(self._process.stderr), daemon=True)
        self._drain.start()

    def _wait_until_ready(self):
        address = None
        for line in self._process.stderr:
            self.log.append(line)
            address = LISTENS.search(line) or address
            if READY in line:
                return address.group(1)
        raise RuntimeError("Prometheus has ended:\n" + "".join(self.log))

    def get(self, path, **parameters):
        """The data of an answer of its HTTP API."""
        query = urllib.parse.urlencode(parameters)
        url = f"http://{self._address}/api/v1/{path}?{query}"
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            body = json.load(answer)
        assert body["status"] == "success"
        return body["data"]

    def query(self, expression):
        """[(labels, value)]"""
        data = self.get("query", query=expression)
        assert data["resultType"] == "vector", expression
        return [(sample["metric"], float(sample["value"][1]))
                for sample in data["result"]]

    def by(self, label, expression):
        """value of `label` -> value, which is one for each."""
        found = self.query(expression)
        values = {labels[label]: value for labels, value in found}
        assert len(values) == len(found)
        return values

    def total(self, expression):
        """The sum of all series; 0 where there is none."""
        return sum(value for _, value in self.query(expression))

    def firing(self, state=("firing",)):
        """Names of the alerts that are in one of these states."""
        return {alert["labels"]["alertname"]
                for alert in self.get("alerts")["alerts"]
                if alert["state"] in state}

    def scraped(self, down=0):
        """Returns when all targets but those that are down, and then all rules,
        have been seen to after now. A busy machine may miss a scrape."""
        now = time.time()
        self.until(lambda: len(self.query(
            f"timestamp(up) > {now} and up == 1")) == self._targets - down)
        now = time.time()
        self.until(lambda: all(
            _seconds(group["lastEvaluation"]) > now
            for group in self.get("rules")["groups"]))

    def becomes(self, read, expected):
        """Returns when read() is `expected`. What a coordinator brings up to
        date once a second is a little late."""
        end = time.monotonic() + LATE
        while (found := read()) != expected and time.monotonic() < end:
            time.sleep(0.05)
        assert found == expected

    def until(self, holds):
        """Asks again and again, within SECONDS."""
        end = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < end, "".join(self.log[-20:])
            time.sleep(0.05)

    def close(self):
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(SECONDS)
        self._drain.join(SECONDS)
        self._process.stderr.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()
