"""Deployments, operations, events, watches and where a step's time and memory
go: what a real Prometheus knows is what the API says."""

import collections
import os
import types

import grpc
import pytest

import shardplane as sp
from shardplane.v1 import coordinator_pb2 as pb
from shardplane.v1 import coordinator_pb2_grpc

from tests.deploy.conftest import RANKS, parallelized
from tests.deploy.dashboard_test import QUERIES, filled
from tests.deploy.prometheus_server import Prometheus

LOSS = {"loss": "sum", "optimizer": sp.SGD(lr=0.01)}
# Of one rank: half of both weights and of the first bias, the second bias.
SHARD_BYTES = 4 * (8 * 16 // 2 + 16 // 2 + 16 * 4 // 2 + 4)
# Empty where nothing is wrong, or for ten minutes.
EMPTY_WHERE_ALL_IS_WELL = {"cluster-Workers_lost-A",
                           "cluster-Calls_that_failed-A",
                           "deployment-Mean_beside_its_baseline-B"}
OF_GPUS = {"worker-Memory_of_the_device-B", "worker-Utilization_of_the_GPU-A",
           "worker-Utilization_of_the_GPU-B"}  # and this cluster has none


@pytest.fixture
def stub(watched):
    with grpc.insecure_channel(watched.cluster.address) as channel:
        yield coordinator_pb2_grpc.ShardingCoordinatorStub(channel)


def word(enum, value, prefix):
    """STATE_READY as metrics have it: ready."""
    return enum.Name(value).removeprefix(prefix).lower()


def nonzero(values):
    return {key: value for key, value in values.items() if value}


def deployment_states(cluster):
    return collections.Counter(
        word(pb.Deployment.State, deployment.state, "STATE_")
        for deployment in cluster.deployments())


def step(watched, times=3):
    for _ in range(times):
        watched.m.step(watched.x, **LOSS)


def test_the_only_coordinator_leads(watched):
    watched.prometheus.scraped()
    assert watched.prometheus.by(
        "pod", "shardplane_coordinator_is_leader") == {"coordinator": 1}


def test_deployments_by_state(watched):
    prometheus = watched.prometheus
    assert deployment_states(watched.cluster) == {"ready": 1}
    prometheus.becomes(lambda: nonzero(
        prometheus.by("state", "shardplane_deployments")), {"ready": 1})


def test_last_step_by_deployment(watched):
    step(watched)
    (deployment,) = watched.cluster.deployments()
    name = deployment.name.removeprefix("deployments/")
    assert deployment.last_step >= 3
    watched.prometheus.becomes(
        lambda: watched.prometheus.by(
            "deployment", "shardplane_deployment_last_step"),
        {name: deployment.last_step})


def test_a_deleted_deployment_has_no_last_step(tmp_path):
    with sp.LocalCluster(workers=RANKS) as cluster:
        with Prometheus(tmp_path, cluster) as prometheus:
            m, x = parallelized(cluster)
            m.step(x, **LOSS)
            steps = "shardplane_deployment_last_step"
            prometheus.becomes(lambda: prometheus.total(steps), 1)
            m.close()
            prometheus.becomes(lambda: prometheus.query(steps), [])


def test_operations_by_kind_and_state(watched, stub):
    listed = stub.ListOperations(pb.ListOperationsRequest(page_size=1000),
                                 timeout=30).operations
    expected = collections.Counter(
        (word(pb.Operation.Kind, operation.kind, "KIND_"),
         word(pb.Operation.State, operation.state, "STATE_"))
        for operation in listed)
    assert expected[("materialize", "succeeded")] >= 1
    watched.prometheus.becomes(
        lambda: {(labels["kind"], labels["state"]): value for labels, value
                 in watched.prometheus.query("shardplane_operations") if value},
        expected)


def test_events_by_reason(watched, stub):
    listed = stub.ListEvents(pb.ListEventsRequest(page_size=1000),
                             timeout=30).events
    assert 0 < len(listed) < 1000  # none has been forgotten
    watched.prometheus.scraped()
    assert nonzero(watched.prometheus.by(
        "reason", "shardplane_events_total")) == collections.Counter(
            event.reason for event in listed)


def test_watches_that_are_open(watched, stub):
    prometheus = watched.prometheus
    prometheus.scraped()
    before = prometheus.total("shardplane_watch_streams")  # of other clients
    watches = [stub.Watch(pb.WatchRequest(collections=["workers"]))
               for _ in range(2)]
    for watch in watches:
        next(iter(watch))
    for open_streams in (before + 2, before):
        prometheus.becomes(
            lambda: prometheus.total("shardplane_watch_streams"), open_streams)
        for watch in watches:
            watch.cancel()


COORDINATORS_TIMES = ["shardplane_step_dispatch_seconds",
                      "shardplane_step_overhead_ratio"]


@pytest.mark.parametrize("metric", COORDINATORS_TIMES)
def test_each_step_is_timed(watched, metric):
    prometheus = watched.prometheus
    prometheus.scraped()
    before = prometheus.total(f"{metric}_count")
    step(watched, 4)
    prometheus.scraped()
    assert prometheus.total(f"{metric}_count") == before + 4


def test_parts_of_a_step_are_no_longer_than_it(watched):
    step(watched)
    prometheus = watched.prometheus
    prometheus.scraped()
    whole = prometheus.total("shardplane_step_duration_seconds_sum"
                             '{component="coordinator",phase="train"}')
    assert 0 < prometheus.total("shardplane_step_dispatch_seconds_sum") <= whole
    # All ratios lie between 0 and 1.
    count = prometheus.total("shardplane_step_overhead_ratio_count")
    assert prometheus.total(
        'shardplane_step_overhead_ratio_bucket{le="1"}') == count
    assert 0 < prometheus.total("shardplane_step_overhead_ratio_sum") < count


def test_each_rank_waits_in_the_collectives_that_it_issues(watched):
    step(watched)
    prometheus = watched.prometheus
    prometheus.scraped()
    waits = prometheus.by("pod", "sum by (pod) (shardplane_collective_wait_"
                          'seconds_count{collective="all_reduce"})')
    issued = prometheus.by("pod", "sum by (pod) (shardplane_collectives_total"
                           '{collective="all_reduce"})')
    times = prometheus.by("pod", "sum by (pod) (shardplane_collective_wait_"
                          "seconds_sum)")
    whole = prometheus.by("pod", "sum by (pod) (shardplane_step_duration_"
                          'seconds_sum{component="worker"})')
    assert len(waits) == RANKS
    for pod, count in waits.items():
        assert 0 < count <= issued[pod]
        assert 0 < times[pod] <= whole[pod]


def test_memory_of_the_device(watched):
    watched.prometheus.scraped()
    used = watched.prometheus.by("pod", "shardplane_device_memory_used_bytes")
    total = watched.prometheus.by("pod", "shardplane_device_memory_total_bytes")
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert len(used) == RANKS
    for pod, value in used.items():
        assert SHARD_BYTES <= value < total[pod] <= physical


@pytest.fixture
def broken(tmp_path):
    """A cluster of its own, one worker of whose deployment is killed."""
    with sp.LocalCluster(
            workers=RANKS, coordinator_args=("--lease_ms=1000",)) as cluster:
        with Prometheus(tmp_path, cluster) as prometheus:
            m, _ = parallelized(cluster)
            prometheus.scraped()
            cluster.process("worker-0").kill()
            yield types.SimpleNamespace(cluster=cluster, m=m,
                                        prometheus=prometheus)


def test_a_failed_deployment_is_an_alarm_until_it_is_deleted(broken):
    prometheus = broken.prometheus
    alarm = {"ShardplaneDeploymentFailed"}
    prometheus.until(lambda: prometheus.firing() >= alarm)
    assert deployment_states(broken.cluster) == {"failed": 1}
    assert nonzero(prometheus.by("state", "shardplane_deployments")) == {
        "failed": 1}
    broken.cluster.delete(broken.m.name)
    prometheus.until(lambda: not prometheus.firing() & alarm)


@pytest.fixture(scope="module")
def busy(watched):
    """Twice some of everything, so that rates are seen."""
    for _ in range(2):
        step(watched)
        watched.m(watched.x)
        watched.prometheus.scraped()
    return watched


@pytest.mark.parametrize(
    "name", sorted(set(QUERIES) - EMPTY_WHERE_ALL_IS_WELL - OF_GPUS))
def test_a_dashboard_has_data(busy, name):
    assert busy.prometheus.query(filled(QUERIES[name]))


@pytest.mark.parametrize("name", sorted(OF_GPUS))
def test_figures_of_gpus_are_absent_without_one(busy, name):
    assert busy.prometheus.query(filled(QUERIES[name])) == []
