"""A coordinator's HTTP port, as far as the status page asks: for clusters that
no test can start, and for changes that no test can wait for.

It answers with the proto JSON of real messages; paths, `fields` and watches
are those of the HTTP API.
"""

import http.server
import importlib.util
import json
import pathlib
import re
import threading
import urllib.parse

from google.protobuf import json_format

from shardplane.v1 import coordinator_pb2 as pb

JOIN = (pathlib.Path(__file__).resolve().parents[2] / "coordinator" /
        "status_page" / "join.py")
FIELDS = {"workers": "worker", "deployments": "deployment",
          "operations": "operation", "events": "event"}


def joined():
    """The module that makes the page."""
    spec = importlib.util.spec_from_file_location("status_page_join", JOIN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def camel(path):
    return re.sub(r"_([a-z])", lambda m: m[1].upper(), path)


def keep(value, paths):
    """What `fields` leaves of a JSON value."""
    if isinstance(value, list):
        return [keep(item, paths) for item in value]
    below = {}
    for path in paths:
        head, _, rest = path.partition(".")
        below.setdefault(head, []).extend([rest] if rest else [])
    return {name: keep(item, below[name]) if below[name] else item
            for name, item in value.items() if name in below}


class FakeCoordinator:
    """`with FakeCoordinator() as fake:` serves at `fake.url`."""

    def __init__(self):
        self.items = {name: {} for name in FIELDS}
        self.details = {}  # of deployments, with module and report
        self.programs = {}
        self.steps = {}
        self.log = []      # (version, event)
        self.oldest = 0
        self.requests = []
        self.down = None   # (status, google.rpc.Status as JSON)
        self.changed = threading.Condition()
        join = joined()
        self.page, self.policy = join.page(), join.policy()
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                fake.answer(self)

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0),
                                                      Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever,
                                       args=(0.05,))
        self.url = "http://127.0.0.1:%d/" % self.server.server_address[1]

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.down = (503, {"code": 14, "message": "gone"})
        with self.changed:
            self.changed.notify_all()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    # What a test does to it.

    def put(self, collection, *resources, kind="TYPE_MODIFIED"):
        with self.changed:
            for resource in resources:
                if kind == "TYPE_DELETED":
                    del self.items[collection][resource.name]
                else:
                    self.items[collection][resource.name] = resource
                self.log.append((collection, kind, self.json(resource)))
            self.changed.notify_all()

    def deploy(self, deployment, programs=(), steps=()):
        self.details[deployment.name] = deployment
        self.programs[deployment.name] = list(programs)
        self.steps[deployment.name] = list(steps)
        self.touch(deployment)

    def touch(self, deployment):
        brief = pb.Deployment()
        brief.CopyFrom(deployment)
        brief.ClearField("module")
        brief.ClearField("report")
        self.put("deployments", brief)

    def train(self, name, step):
        self.steps[name].append(step)
        self.details[name].last_step = step.number
        self.touch(self.details[name])

    def forget(self):
        """As a coordinator that has started anew, or a watch too old."""
        with self.changed:
            self.log = self.log[:]
            self.oldest = len(self.log) + 1
            self.log.append(("workers", "TYPE_BOOKMARK", None))
            self.changed.notify_all()

    # What it answers.

    @staticmethod
    def json(message):
        return json_format.MessageToDict(message)

    def event(self, at):
        collection, kind, resource = self.log[at]
        event = {"type": kind, "version": str(at + 1)}
        return event | ({FIELDS[collection]: resource} if resource else {})

    def watch(self, query):
        version = query.get("resume_version", [""])[0]
        if not version:
            with self.changed:
                return {"events": [
                    {"type": "TYPE_ADDED", FIELDS[name]: self.json(item)}
                    for name, items in self.items.items()
                    for item in items.values()] + [
                        {"type": "TYPE_BOOKMARK",
                         "version": str(len(self.log))}]}
        at = int(version)
        with self.changed:
            self.changed.wait_for(lambda: len(self.log) > at or self.down,
                                  int(query["wait_ms"][0]) / 1000)
            if at < self.oldest:
                return 400, {"code": 11, "message": "no longer known"}
            return {"events": [self.event(i)
                               for i in range(at, len(self.log))]}

    def find(self, path, query):
        if path == "watch":
            return self.watch(query)
        name = re.fullmatch(r"(deployments/[^/]+)(?:/(.*))?", path)
        if name is None or name[1] not in self.details:
            return 404, {"code": 5, "message": f"no such thing: {path}"}
        deployment, rest = name[1], name[2] or ""
        if not rest:
            return self.json(self.details[deployment])
        if rest == "steps":
            after = int(query.get("after", ["0"])[0])
            token = int(query.get("page_token", [""])[0] or 0)
            size = int(query["page_size"][0])
            steps = [s for s in self.steps[deployment] if s.number > after]
            more = token + size < len(steps)
            return {"steps": [self.json(s) for s in steps[token:token + size]],
                    "nextPageToken": str(token + size) if more else ""}
        programs = self.programs[deployment]
        if rest == "programs":
            return {"programs": [
                {k: v for k, v in self.json(p).items() if k != "report"}
                for p in programs]}
        for program in programs:
            if program.name == f"{deployment}/{rest}":
                return self.json(program)
        return 404, {"code": 5, "message": f"no such thing: {path}"}

    def answer(self, handler):
        url = urllib.parse.urlsplit(handler.path)
        self.requests.append(handler.path)
        if url.path == "/":
            self.send(handler, 200, self.page, "text/html; charset=utf-8")
            return
        query = urllib.parse.parse_qs(url.query)
        answer = self.down or self.find(
            urllib.parse.unquote(url.path).removeprefix("/v1/"), query)
        answer = self.down or answer  # it may have gone meanwhile
        status, body = answer if isinstance(answer, tuple) else (200, answer)
        if status == 200 and "fields" in query:
            body = keep(body, [camel(path) for fields in query["fields"]
                               for path in fields.split(",")])
        self.send(handler, status, json.dumps(body), "application/json")

    def send(self, handler, status, text, content_type):
        body = text.encode()
        handler.send_response(status)
        handler.send_header("Content-Type", content_type)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("Content-Security-Policy", self.policy)
        handler.end_headers()
        try:
            handler.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the page has gone away while it waited
