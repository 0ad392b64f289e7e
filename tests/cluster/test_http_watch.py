"""Steps and watches over HTTP, of a real coordinator."""

import concurrent.futures

from shardplane.v1 import coordinator_pb2 as pb
from tests.cluster.test_http_api import (STEPS, cluster, fetch, read,
                                         trained)

assert cluster and trained  # fixtures: pytest finds them by name


def test_steps_come_as_a_list(cluster, trained):
    steps = read(cluster, f"{trained.name}/steps?after=1",
                 pb.ListStepsResponse()).steps
    assert [step.number for step in steps] == list(range(2, STEPS + 1))
    assert all(step.timing.run_seconds > 0 for step in steps)


def test_a_watch_tells_what_there_is_and_what_changes(cluster, trained):
    first = read(cluster, "watch?collections=workers", pb.WatchResponse())
    workers = {event.worker.name for event in first.events
               if event.HasField("worker")}
    assert workers == {"workers/worker-0", "workers/worker-1"}
    version = first.events[-1].version
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = pool.submit(read, cluster, "watch?collections=workers&"
                              f"resume_version={version}", pb.WatchResponse())
        cluster.add_workers(1)
        changed = [event.worker.name for event in waiting.result(30).events
                   if event.HasField("worker")]
    assert set(changed) == {"workers/worker-2"}


def test_many_watches_leave_room_for_probes(cluster):
    version = read(cluster, "watch?collections=modules",
                   pb.WatchResponse()).events[-1].version
    path = (f"/v1/watch?collections=modules&resume_version={version}"
            "&wait_ms=3000")
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(fetch, cluster, path) for _ in range(30)]
        for path in ("/livez", "/metrics", "/v1/workers"):
            assert fetch(cluster, path)[0] == 200
        codes = [one.result(30)[0] for one in waiting]
    assert set(codes) == {200, 503}
    assert codes.count(200) >= 16
