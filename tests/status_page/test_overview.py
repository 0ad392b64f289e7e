"""The first view, and that it follows what happens."""

from playwright.sync_api import expect

from shardplane.v1 import coordinator_pb2 as pb
from tests.status_page import examples


def text(page, selector):
    return page.inner_text(selector)


def test_shows_what_there_is(small, open_page):
    page = open_page(small.url)
    assert page.locator(".grid a").count() == 24
    assert page.locator(".grid a.free").count() == 8
    chips = page.locator("[aria-label='Workers by state'] button")
    assert chips.all_inner_texts() == ["READY 24"]
    deployments = text(page, "section:has(#h-deployments)")
    for word in ("llm", "READY", "[dp=2, tp=8]", "16", "120"):
        assert word in deployments
    operations = text(page, "section:has(#h-operations)")
    assert "40 %" in operations and "SUCCEEDED" in operations
    events = page.locator(".events li").all_inner_texts()
    assert "WORKER_LOST" in events[0] and "Its lease ran out." in events[0]
    assert "DEPLOYMENT_READY" in events[1]


def test_follows_changes(small, open_page):
    page = open_page(small.url)
    small.put("workers", examples.worker(3, pb.WorkerNode.STATE_LOST))
    page.wait_for_selector(".grid a.bad")
    link = page.locator(".grid a.bad")
    assert link.inner_text() == "L"
    assert link.get_attribute("aria-label") == "workers/w3, LOST, free"
    small.put("workers", examples.worker(3), kind="TYPE_DELETED")
    expect(page.locator(".grid a")).to_have_count(23)


def test_state_and_filter_narrow_the_grid(small, open_page):
    small.put("workers", examples.worker(40, pb.WorkerNode.STATE_DRAINING))
    page = open_page(small.url)
    page.click("text=DRAINING 1")
    expect(page.locator(".grid a")).to_have_count(1)
    page.click("text=DRAINING 1")
    page.fill("[data-filter]", "w2")
    expect(page.locator(".grid a")).to_have_count(5)  # w2, w20 to w23
    expect(page.locator("main")).to_contain_text("5 of 25 workers")


def test_goes_to_a_worker_and_a_deployment(small, open_page):
    page = open_page(small.url)
    page.click(".grid a >> nth=3")
    heading, main = page.locator("h1"), page.locator("main")
    expect(heading).to_have_text("workers/w3")
    expect(main).to_contain_text("rank 3")
    page.click("main >> text=deployments/llm")
    expect(heading).to_have_text("deployments/llm")
    page.click("#crumbs >> text=Cluster")
    expect(heading).to_have_text("Cluster")
    page.goto(small.url + "#/workers/nobody")
    expect(main).to_contain_text("There is no such worker.")


def test_progress_moves(small, open_page):
    page = open_page(small.url)
    small.put("operations", examples.operation(2, "deployments/next", 75))
    page.wait_for_selector("text=75 %")
    assert page.locator("progress[value='75']").count() == 1


def test_lost_coordinator_is_said_and_found_again(small, open_page):
    page = open_page(small.url)
    page.complaints.expected = ("503", "400")
    small.down = (503, {"code": 14, "message": "it is shutting down"})
    with small.changed:
        small.changed.notify_all()
    page.wait_for_selector("#live.stale")
    assert text(page, "#live").startswith("Stale since ")
    assert "it is shutting down" in text(page, "#live")
    assert page.locator(".grid a").count() == 24  # what was known stays
    # Another coordinator, which knows nothing of the old one's versions.
    del small.items["workers"]["workers/w5"]
    small.forget()
    small.down = None
    page.wait_for_selector("#live.ok")
    expect(page.locator(".grid a")).to_have_count(23)


def test_a_hidden_page_asks_nothing(small, open_page):
    page = open_page(small.url)
    page.evaluate("""() => {
        Object.defineProperty(document, "hidden",
                              {get: () => window.away !== false});
        document.dispatchEvent(new Event("visibilitychange"));
    }""")
    page.wait_for_selector("#live.stale")
    before = len(small.requests)
    small.put("workers", examples.worker(50))
    page.wait_for_timeout(600)
    assert len(small.requests) == before
    page.evaluate("""() => {
        window.away = false;
        document.dispatchEvent(new Event("visibilitychange"));
    }""")
    page.wait_for_selector("#live.ok")
    expect(page.locator(".grid a")).to_have_count(25)
