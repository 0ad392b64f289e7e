"""A pod of a client's: Python with the client in a network of its own."""

import json
import subprocess
import sys

# Executes what comes, a JSON string a line, in one namespace; answers with
# what it leaves in `reply`, or with the error.
LOOP = """
import json, sys, traceback
names, answers = {}, sys.stdout
sys.stdout = sys.stderr
for line in sys.stdin:
    names["reply"] = None
    try:
        exec(json.loads(line), names)
        answer = {"reply": names["reply"]}
    except Exception:
        answer = {"error": traceback.format_exc()}
    print(json.dumps(answer), file=answers, flush=True)
"""
LABELS = {"shardplane.dev/client": "true"}


class ClientPod:
    """`hosts`: its /etc/hosts. The machine's own files otherwise. `within`: a
    pod whose network it shares, which is where a port-forward ends."""

    def __init__(self, network, hosts, within=None):
        self.labels = LABELS
        self.namespace, self.address = (
            (within.namespace, within.address) if within
            else network.add_pod())
        self.process = subprocess.Popen(
            self.namespace.within(
                "bwrap", "--dev-bind", "/", "/", "--ro-bind", hosts,
                "/etc/hosts", "--die-with-parent", sys.executable, "-W",
                "ignore", "-c", LOOP),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    @property
    def pid(self):
        return self.process.pid

    def begin(self, code):
        self.process.stdin.write(json.dumps(code) + "\n")
        self.process.stdin.flush()

    def finish(self):
        """The reply to what was begun first."""
        answer = json.loads(self.process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer["reply"]

    def run(self, code):
        self.begin(code)
        return self.finish()

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
