"""One deployment: what is drawn is what the messages say."""

import math

from playwright.sync_api import expect

from shardplane.v1 import coordinator_pb2 as pb
from shardplane.v1 import types_pb2 as types
from tests.status_page import examples

PATH = "#/deployments/llm"


def opened(fake, open_page, path=PATH):
    page = open_page(fake.url, path)
    page.wait_for_selector(".treerow")
    return page


def section(page, name):
    return page.locator(f"section:has(#h-{name})")


def rows(page):
    return [" ".join(text.split()) for text in
            page.locator(".treerow").all_inner_texts()]


def test_shows_what_it_is(small, open_page):
    page = opened(small, open_page)
    words = section(page, "deployment").inner_text()
    for word in ("READY", "[dp=2, tp=8], 16 ranks", "120", "w15"):
        assert word in words
    plan = section(page, "report-and-plan").inner_text()
    assert "28 assignments, 1 warning, 0 notes." in plan
    assert "did you mean" in plan and "layers.*.mlp.down" in plan
    assert "f32[8, 128]" in section(page, "programs").inner_text()
    assert "DEPLOYMENT_READY" in section(page, "events").inner_text()


def test_the_loss_curve_reads(small, open_page):
    page = opened(small, open_page)
    chart = page.locator("section:has(#h-loss) svg.chart")
    label = chart.get_attribute("aria-label")
    assert label.startswith("Loss of steps 1 to 120: first 3.98")
    chart.focus()
    page.keyboard.press("End")
    last = 4 / (1 + 120 / 40) + .1 * math.sin(120)
    expect(section(page, "loss")).to_contain_text(
        f"step 120: loss {last:.3f}"[:-1])
    page.keyboard.press("Home")
    expect(section(page, "loss")).to_contain_text("step 1: loss 3.98")


def test_new_steps_come_live(small, open_page):
    page = opened(small, open_page)
    small.train("deployments/llm", examples.step("deployments/llm", 121, 9.5))
    expect(section(page, "loss")).to_contain_text("Loss of steps 1 to 121")
    expect(section(page, "loss")).to_contain_text("greatest 9.5")
    asked = [r for r in small.requests if "/steps" in r]
    assert "after=120" in asked[-1]
    small.train("deployments/llm",
                examples.step("deployments/llm", 122, math.nan))
    expect(section(page, "loss")).to_contain_text(
        "Steps without a finite loss: 1.")


def test_the_step_split_adds_up(small, open_page):
    page = opened(small, open_page)
    words = section(page, "step-split").inner_text()
    for part in ("18.00 ms", "12.00 ms", "6.00 ms"):
        assert part in words
    assert page.locator("section:has(#h-step-split) rect").count() == 4 * 60


def test_collectives_are_folded_by_layer(small, open_page):
    page = opened(small, open_page)
    words = section(page, "collectives-by-layer").inner_text()
    assert "layers.0–3.attention.wo ×4" in words
    assert "256 KiB" in words  # 4 layers, 64 KiB each
    assert "512 KiB" in words  # all forward, all backward
    assert "sum of a rowwise linear" in words


def test_memory_is_folded_by_rank(small, open_page):
    words = section(opened(small, open_page), "memory-by-rank").inner_text()
    assert "0, 8" in words and "1–7, 9–15" in words and "16.0 MiB" in words


def test_equal_layers_fold_and_unfold(small, open_page):
    page = opened(small, open_page)
    assert "▾ 0–3 ×4 Block" in rows(page)
    page.click("text=Fold equal layers")
    for row in ("▸ 0 Block", "▸ 3 Block"):
        assert row in rows(page)
    page.fill("[aria-label='Filter modules by name']", "layers.2.mlp.down")
    assert rows(page)[-3:] == [
        "▾ mlp Block", "▾ down Linear, RowwiseParallel",
        "weight [R, S(1)] f32[64, 172], 8 tiles"]


def test_layers_that_differ_are_not_folded(fake, open_page):
    deployment = examples.deployment(layers=4, tp=2, dp=0)
    for one in deployment.report.parameters:
        if one.name == "layers.2.mlp.up.weight":
            one.type.shape[0] = 100
    fake.deploy(deployment)
    page = opened(fake, open_page)
    assert [row for row in rows(page) if "Block" in row][:1] == [
        "▾ 0–1 ×2 Block"]
    assert "▸ 2 Block" in rows(page) and "▸ 3 Block" in rows(page)


def test_tiles_of_a_parameter(small, open_page):
    page = opened(small, open_page)
    panel = page.locator("svg.picture")
    assert panel.get_attribute("aria-label") == (
        "embedding.weight: [R, S(0)] f32[1000, 64], 8 tiles")
    tiles = page.locator(".picture rect")
    assert tiles.count() == 8
    assert tiles.nth(2).get_attribute("aria-label") == (
        "ranks 2, 10: dim 0: 250–374, dim 1: 0–63, 125 × 64, 31.3 KiB")
    tiles.nth(0).focus()
    page.keyboard.press("ArrowRight")
    expect(section(page, "modules")).to_contain_text("ranks 1, 9: dim 0: 125")
    page.hover(".picture rect >> nth=4")
    expect(section(page, "modules")).to_contain_text("ranks 4, 12: dim 0: 500")
    assert "125–249 × 0–63" in section(page, "modules").inner_text()


def test_partial_and_scalar_tensors_have_tiles(fake, open_page):
    deployment = examples.deployment(layers=1, tp=2, dp=0)
    del deployment.report.parameters[:]
    deployment.report.parameters.append(
        examples.parameter("scale", (), [examples.replicate()]))
    deployment.report.parameters.append(examples.parameter(
        "sum", (4,), [types.Placement(partial=types.Partial(
            op=types.REDUCE_OP_SUM))]))
    fake.deploy(deployment)
    page = opened(fake, open_page)
    page.click(".treerow >> text=sum")
    expect(page.locator(".picture rect")).to_have_attribute(
        "aria-label", "ranks 0–1: dim 0: 0–3, 4, 16 B, to be reduced")
    page.click(".treerow >> text=scale")
    expect(page.locator(".picture rect")).to_have_attribute(
        "aria-label", "ranks 0–1: all, one element, 4 B")


def test_a_deployment_made_anew_starts_anew(small, open_page):
    page = opened(small, open_page)
    other = examples.deployment(layers=2, tp=4, dp=0)
    other.uid = "another"
    small.deploy(other, [], [])
    expect(section(page, "deployment")).to_contain_text("[tp=4], 4 ranks")
    expect(section(page, "loss")).to_contain_text("No step with a loss yet.")
    expect(section(page, "programs")).to_contain_text("None yet.")


def test_failures_are_said_where_they_are(small, open_page):
    page = open_page(small.url)
    page.complaints.expected = ("404",)
    lost = pb.Deployment(name="deployments/lost", uid="x",
                         state=pb.Deployment.STATE_FAILED,
                         state_reason="rank 2 is lost")
    small.put("deployments", lost)
    page.click("main a:text-is('lost')")
    expect(section(page, "deployment")).to_contain_text("rank 2 is lost")
    for name in ("loss", "report-and-plan"):
        expect(section(page, name)).to_contain_text(
            "The coordinator says: no such thing")
    page.goto(small.url + "#/deployments/never")
    expect(section(page, "deployment")).to_contain_text(
        "There is no such deployment.")
