"""What a real Prometheus knows of a cluster is what the cluster's API says."""

import collections
import types

import grpc
import pytest
import torch
from torch.distributed.tensor.parallel import ColwiseParallel

import shardplane as sp
from shardplane.v1 import coordinator_pb2 as pb
from shardplane.v1 import coordinator_pb2_grpc

from tests.deploy.conftest import RANKS, parallelized
from tests.deploy.prometheus_server import Prometheus

WORKERS = [f"worker-{n}" for n in range(RANKS)]
LOSS = {"loss": "sum", "optimizer": sp.SGD(lr=0.01)}


def rise(watched, act, expressions, label=None):
    """By how much each expression rises while act() runs; by `label`, if it is
    given."""
    prometheus = watched.prometheus

    def read(expression):
        return (prometheus.by(label, expression) if label
                else {None: prometheus.total(expression)})

    prometheus.scraped()
    before = [read(expression) for expression in expressions]
    act()
    prometheus.scraped()
    rises = []
    for expression, old in zip(expressions, before):
        new = read(expression)
        rises.append({key: new[key] - old.get(key, 0) for key in new})
    return rises if label else [change[None] for change in rises]


def states(cluster):
    """State, as metrics name it -> how many workers the API has in it."""
    prefix = "STATE_"
    return collections.Counter(
        pb.WorkerNode.State.Name(worker.state).removeprefix(prefix).lower()
        for worker in cluster.workers())


def nonzero(values):
    return {key: value for key, value in values.items() if value}


def last_step(watched):
    (deployment,) = watched.cluster.deployments()
    return deployment.last_step


def test_workers_by_state(watched):
    watched.prometheus.scraped()
    assert nonzero(watched.prometheus.by("state", "shardplane_workers")) == (
        states(watched.cluster)) == {"ready": RANKS}


def test_every_process_is_scraped_and_says_what_it_is(watched):
    prometheus, cluster = watched.prometheus, watched.cluster
    prometheus.scraped()
    names = {process.name for process in cluster.processes}
    assert prometheus.by("pod", "up") == dict.fromkeys(names, 1)
    assert prometheus.by("pod", "shardplane_build_info") == dict.fromkeys(
        names, 1)
    for process in cluster.processes:
        component = process.name.partition("-")[0]
        ((labels, _),) = prometheus.query(
            f'shardplane_build_info{{pod="{process.name}"}}')
        assert labels["component"] == component
        assert labels["instance"] == process.http_address


def test_epoch(watched):
    (deployment,) = watched.cluster.deployments()
    watched.prometheus.scraped()
    assert watched.prometheus.total("shardplane_coordinator_epoch") == (
        deployment.epoch)


def test_steps(watched):
    m, x = watched.m, watched.x
    steps = ('shardplane_steps_total{component="coordinator",phase="train",'
             'result="ok"}')
    times = ('shardplane_step_duration_seconds_count{component="coordinator",'
             'phase="train"}')
    forwards = ('shardplane_steps_total{component="coordinator",'
                'phase="forward",result="ok"}')
    before = last_step(watched)

    def act():
        for _ in range(3):
            m.step(x, **LOSS)
        list(m.train([x] * 4, **LOSS))
        m(x)

    assert rise(watched, act, [steps, times, forwards]) == [
        last_step(watched) - before, 7, 1]


def test_each_rank_counts_its_part_of_a_step(watched):
    done = rise(watched, lambda: watched.m.step(watched.x, **LOSS), [
        'sum by (pod) (shardplane_steps_total{component="worker",'
        'phase="train",result="ok"})',
        'sum by (pod) (shardplane_step_duration_seconds_count'
        '{component="worker",phase="commit"})'], "pod")
    assert done == [dict.fromkeys(WORKERS, 1)] * 2


def added(per_call):
    """Phase -> kind -> number of all calls, as kind -> number."""
    sums = collections.Counter()
    for phases in per_call:
        for phase, kinds in phases.items():
            if phase != "materialize":  # once, when the deployment was made
                sums.update(kinds)
    return dict(sums)


def test_collectives_and_their_bytes(watched):
    m, x = watched.m, watched.x
    counts, volumes = [], []

    def act():
        for call in (lambda: m(x), lambda: m.step(x, **LOSS),
                     lambda: m.step(x, **LOSS)):
            call()
            counts.append(m.comm_counts())
            volumes.append(m.comm_bytes())

    for expected, metric in ((counts, "shardplane_collectives_total"),
                             (volumes, "shardplane_collective_bytes_total")):
        counts.clear()
        volumes.clear()
        # A call's counts are those of each rank.
        by_kind = f"sum by (kind) (label_replace({metric}, " \
            '"kind", "$1", "collective", "(.*)"))'
        (done,) = rise(watched, act, [by_kind], "kind")
        assert nonzero(done) == {kind: RANKS * number for kind, number
                                 in added(expected).items()}
        assert added(expected)["all_reduce"] >= 3


def test_what_was_moved_to_place_parameters(watched):
    watched.prometheus.scraped()
    assert watched.prometheus.by("op", (
        "sum by (op) (shardplane_materialize_bytes_total)")) == {
            kind: RANKS * number for kind, number
            in watched.m.comm_bytes()["materialize"].items()}


@pytest.fixture
def stub(watched):
    with grpc.insecure_channel(watched.cluster.address) as channel:
        yield coordinator_pb2_grpc.ShardingCoordinatorStub(channel)


def test_calls(watched, stub):
    calls = ('{component="coordinator",grpc_method="shardplane.v1.'
             'ShardingCoordinator/GetModule"%s}')

    def act():
        for name in ("modules/none", "modules/no", "deployments/a"):
            with pytest.raises(grpc.RpcError):
                stub.GetModule(pb.GetModuleRequest(name=name), timeout=30)

    assert rise(watched, act, [
        "grpc_server_call_started_total" + calls % "",
        "grpc_server_call_duration_seconds_count" + calls % "",
        "grpc_server_call_duration_seconds_count"
        + calls % ',grpc_status="NOT_FOUND"']) == [3, 3, 2]


def test_calls_of_steps_under_way(watched):
    """A stream of steps counts until it ends."""
    in_flight = "namespace:shardplane_step_calls:in_flight"
    prometheus = watched.prometheus
    prometheus.scraped()
    assert prometheus.total(in_flight) == 0

    def batches():
        yield watched.x
        prometheus.scraped()
        seen.append(prometheus.total(in_flight))
        yield watched.x

    seen = []
    list(watched.m.train(batches(), **LOSS))
    prometheus.scraped()
    assert (seen, prometheus.total(in_flight)) == ([1], 0)


def test_patterns_without_a_match(watched):
    def act():
        with pytest.warns(UserWarning, match="typo"):
            watched.cluster.parallelize_module(
                torch.nn.Linear(4, 4), {"tp": RANKS},
                {"typo": ColwiseParallel()}, validate_only=True)

    (patterns,) = rise(watched, act,
                       ["shardplane_plan_unmatched_patterns_total"])
    assert patterns == 1
    watched.prometheus.until(lambda: "ShardplaneUnmatchedPatterns"
                             in watched.prometheus.firing())


# What a machine that others use too does to a cluster for a moment: before it is
# an alarm it must last for minutes.
TIMINGS = {"ShardplaneCollectiveWaitHigh", "ShardplaneMaterializeSlow",
           "ShardplaneRpcSlow", "ShardplaneStepOverheadHigh",
           "ShardplaneStepsSlow", "ShardplaneStraggler"}


def test_a_cluster_that_is_well_raises_no_alarm(watched):
    watched.prometheus.scraped()
    firing = watched.prometheus.firing(("firing",))
    raised = firing | watched.prometheus.firing(("pending",))
    assert firing <= {"ShardplaneUnmatchedPatterns"}
    assert raised <= TIMINGS | {"ShardplaneUnmatchedPatterns"}


def test_all_rules_are_evaluated_without_errors(watched):
    watched.prometheus.scraped()
    rules = [rule for group in watched.prometheus.get("rules")["groups"]
             for rule in group["rules"]]
    assert len(rules) > 40
    for rule in rules:
        assert rule["health"] == "ok", rule.get("lastError")


@pytest.fixture
def broken(tmp_path):
    """A cluster of its own whose second worker has been killed."""
    with sp.LocalCluster(
            workers=RANKS, coordinator_args=("--lease_ms=1000",)) as cluster:
        with Prometheus(tmp_path, cluster) as prometheus:
            m, _ = parallelized(cluster)
            prometheus.scraped()
            assert prometheus.firing(("pending", "firing")) == set()
            cluster.process("worker-1").kill()
            yield types.SimpleNamespace(cluster=cluster, m=m,
                                        prometheus=prometheus)


def test_a_killed_worker(broken):
    prometheus = broken.prometheus
    prometheus.until(lambda: prometheus.by(
        "reason", "shardplane_worker_lost_total") == {
            "lost": 1, "fenced": 0, "retired": 0})
    prometheus.until(lambda: prometheus.firing() >= {"ShardplaneWorkerLost"})
    prometheus.scraped(down=1)
    assert nonzero(prometheus.by("state", "shardplane_workers")) == (
        states(broken.cluster)) == {"ready": 1, "lost": 1}
    assert prometheus.by("pod", 'up{component="worker"}') == {
        "worker-0": 1, "worker-1": 0}
    # These wait for five minutes before they fire.
    assert prometheus.firing(("pending",)) == {
        "ShardplaneTargetDown", "ShardplaneTooFewWorkersReady"}
    assert prometheus.total("namespace_reason:shardplane_worker_lost:"
                            'increase10m{reason="lost"}') == 1
