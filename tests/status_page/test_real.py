"""The page of a real coordinator, with workers that train."""

import pytest
import torch
from playwright.sync_api import expect
from torch.distributed.tensor.parallel import (ColwiseParallel,
                                               RowwiseParallel)

import shardplane as sp


@pytest.fixture(scope="module")
def cluster():
    with sp.LocalCluster(workers=3, coordinator_args=(
            "--lease_ms=2000",)) as running:
        yield running


@pytest.fixture(scope="module")
def handle(cluster):
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(
        torch.nn.Sequential(torch.nn.Linear(6, 10), torch.nn.ReLU(),
                            torch.nn.Linear(10, 6)) for _ in range(3)))
    x = torch.randn(5, 6)
    made = cluster.parallelize_module(
        model, {"tp": 2}, {"*.0": ColwiseParallel(), "*.2": RowwiseParallel()},
        example_inputs=(x,), loss="mean", name="mlp")
    made.train_once = lambda: made.step(x, optimizer=sp.SGD(lr=0.05)).item()
    yield made
    made.close()


def url(cluster):
    return f"http://{cluster.coordinator.http_address}/"


def section(page, name):
    return page.locator(f"section:has(#h-{name})")


def test_workers_and_deployments(cluster, handle, open_page):
    page = open_page(url(cluster))
    expect(page.locator(".grid a")).to_have_count(3)
    expect(page.locator(".grid a.free")).to_have_count(1)
    expect(section(page, "deployments")).to_contain_text("[tp=2]")
    cluster.add_workers(1)
    expect(page.locator(".grid a.free")).to_have_count(2)
    page.click(".grid a >> nth=0")
    expect(page.locator("main")).to_contain_text(handle.name)


def test_a_deployment_that_trains(cluster, handle, open_page):
    losses = [handle.train_once() for _ in range(5)]
    page = open_page(url(cluster), f"#/{handle.name}")
    expect(section(page, "loss")).to_contain_text("Loss of steps 1 to 5")
    chart = page.locator("section:has(#h-loss) svg.chart")
    chart.focus()
    page.keyboard.press("End")
    expect(section(page, "loss")).to_contain_text(
        f"step 5: loss {losses[-1]:.4f}"[:-1])
    expect(section(page, "step-split")).to_contain_text("Collectives")
    expect(section(page, "report-and-plan")).to_contain_text("6 assignments")
    expect(section(page, "collectives-by-layer")).to_contain_text(
        "all_reduce[tp]")
    expect(section(page, "memory-by-rank")).to_contain_text("0–1")
    expect(section(page, "programs")).to_contain_text("f32[5, 6]")
    expect(page.locator(".treerow >> text=0–2 ×3")).to_have_count(1)
    expect(page.locator(".picture")).to_have_attribute(
        "aria-label", "0.0.weight: [S(0)] f32[10, 6], 2 tiles")
    handle.train_once()
    expect(section(page, "loss")).to_contain_text("Loss of steps 1 to 6")


def test_a_lost_worker_shows(cluster, open_page):
    page = open_page(url(cluster))
    free = page.locator(".grid a.free").first.get_attribute("aria-label")
    cluster.process(free.split(",")[0]).kill()
    page.wait_for_selector(".grid a.bad, .grid a.idle")


def test_a_coordinator_that_ends_is_noticed(open_page):
    with sp.LocalCluster(workers=0) as short:
        page = open_page(url(short))
        page.complaints.expected = ("Failed to load", "503")
        short.close()
        page.wait_for_selector("#live.stale")
