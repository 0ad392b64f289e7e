"""A thousand workers and 126 layers: quick, and few elements."""

import time

from playwright.sync_api import expect

from shardplane.v1 import coordinator_pb2 as pb
from tests.status_page import examples

ELEMENTS = "document.getElementsByTagName('*').length"


def timed(act):
    begin = time.monotonic()
    act()
    return time.monotonic() - begin


def open_seconds(url, open_page, path, selector, count):
    pages = []

    def act():
        pages.append(open_page(url, path))
        expect(pages[0].locator(selector)).to_have_count(count)
    return timed(act), pages[0]


def test_a_thousand_workers(fake, open_page):
    examples.fill(fake, count=24)
    few, _ = open_seconds(fake.url, open_page, "", ".grid a", 24)
    fake.put("workers", *examples.workers(1000))
    many, page = open_seconds(fake.url, open_page, "", ".grid a", 1000)
    # Forty times as many workers: most of the time is the browser's own.
    assert many < 10 * few + 2, (few, many)
    assert page.evaluate(ELEMENTS) < 2600
    grid = page.locator(".grid")
    assert grid.evaluate("(g) => g.clientHeight") <= 330
    # Each change draws again no more than what has changed.
    page.evaluate("""() => {
        window.changes = 0;
        new MutationObserver((list) => { window.changes += list.length; })
            .observe(document.querySelector(".grid"),
                     {subtree: true, childList: true, attributes: true,
                      characterData: true});
    }""")
    fake.put("workers", examples.worker(500, pb.WorkerNode.STATE_FENCED))
    expect(page.locator(".grid a.bad >> text=F")).to_have_count(1)
    assert 1 <= page.evaluate("window.changes") < 10
    page.fill("[data-filter]", "w99")
    expect(page.locator(".grid a")).to_have_count(11)


def test_many_workers_change_at_once(fake, open_page):
    fake.put("workers", *examples.workers(1000))
    page = open_page(fake.url)
    lost = [examples.worker(i, pb.WorkerNode.STATE_LOST) for i in range(1000)]
    seconds = timed(lambda: (
        fake.put("workers", *lost),
        expect(page.locator(".grid a.bad")).to_have_count(1000)))
    assert seconds < 10
    expect(page.locator("[aria-label='Workers by state'] button")
           ).to_have_text(["LOST 1,000"])


def test_126_layers(fake, open_page):
    examples.fill(fake, layers=4)
    few, _ = open_seconds(fake.url, open_page, "#/deployments/llm",
                          ".picture", 1)
    examples.fill(fake, layers=126, steps=4096)
    many, page = open_seconds(fake.url, open_page, "#/deployments/llm",
                              ".picture", 1)
    assert many < 10 * few + 3, (few, many)
    assert page.evaluate(ELEMENTS) < 2000
    expect(page.locator("section:has(#h-loss)")).to_contain_text(
        "Loss of steps 1 to 4096")
    assert len(page.get_attribute(".curve", "d")) < 12_000
    expect(page.locator("main")).to_contain_text(
        "layers.0–125.attention.wo ×126")


def test_the_unfolded_tree_scrolls(fake, open_page):
    examples.fill(fake, layers=126)
    page = open_page(fake.url, "#/deployments/llm")
    page.wait_for_selector(".treerow")
    page.click("text=Fold equal layers")
    page.focus("[role=tree]")
    for key in ("Home", "ArrowDown", "ArrowDown", "ArrowDown", "*"):
        page.keyboard.press(key)
    tree = page.locator("[role=tree]")
    assert tree.evaluate("(t) => t.scrollHeight") > 126 * 4 * 30
    seconds = timed(lambda: page.keyboard.press("End"))
    assert seconds < 2
    expect(page.locator(".treerow.active .label")).to_have_text("head")
    assert page.locator(".treerow").count() < 60
    # Each part of the way shows its own rows.
    middle = tree.evaluate("""async (t) => {
        t.scrollTop = t.scrollHeight / 2;
        await new Promise((done) => setTimeout(done, 100));
        const box = t.getBoundingClientRect();
        return [...t.querySelectorAll(".treerow")].filter((row) => {
            const at = row.getBoundingClientRect();
            return at.bottom > box.top && at.top < box.bottom;
        }).length;
    }""")
    assert middle >= tree.evaluate("(t) => Math.floor(t.clientHeight / 30)")
    assert page.locator(".treerow").count() < 60


def test_a_thousand_ranks(fake, open_page):
    deployment = examples.deployment(layers=2, tp=1000, dp=0)
    fake.deploy(deployment)
    page = open_page(fake.url, "#/deployments/llm")
    page.wait_for_selector(".picture")
    assert page.locator(".picture rect").count() == 512
    expect(page.locator("main")).to_contain_text(
        "488 further tiles are in the table alone.")
    assert page.evaluate(ELEMENTS) < 2000
    page.click("text=Show all 1000 ranks")
    expect(page.locator("caption:text('Part of each rank')")).to_be_visible()
    expect(page.locator("td:text-is('999–999 × 0–63')")).to_have_count(1)
