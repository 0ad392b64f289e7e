"""Everything by keyboard."""

from playwright.sync_api import expect

from tests.status_page import examples

FOCUSED = """() => {
    const one = document.activeElement;
    const style = getComputedStyle(one);
    return {what: one.id || one.getAttribute("aria-label") || one.textContent,
            seen: style.outlineStyle !== "none" && style.outlineWidth !== "0px"
                  || one.id === "main"};
}"""


def walk(page, most=80):
    """What Tab reaches, in order, until it begins again."""
    found = []
    for _ in range(most):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        if page.evaluate("document.activeElement === document.body"):
            return found
        if found and focused["what"] == found[0]["what"]:
            return found
        found.append(focused)
    raise AssertionError(f"no end after {most}: {found[-5:]}")


def test_tab_reaches_all_of_the_overview(small, open_page):
    found = walk(open_page(small.url))
    names = [one["what"] for one in found]
    for name in ("Skip to the content", "Shardplane", "theme", "help",
                 "READY 24", "Filter workers by name, deployment or device",
                 "llm", "Operations"):
        assert name in names, name
    # The grid is one stop, however many workers there are.
    assert len([name for name in names if name.startswith("workers/w")]) <= 2
    assert [one for one in found if not one["seen"]] == []


def test_tab_reaches_all_of_a_deployment(small, open_page):
    page = open_page(small.url, "#/deployments/llm")
    page.wait_for_selector(".picture")
    page.wait_for_selector(".curve")
    found = walk(page)
    names = [one["what"] for one in found]
    assert "Modules" in names and "Fold equal layers" in names
    assert any(name.startswith("Loss of steps") for name in names)
    assert any(name.startswith("ranks 0, 8: ") for name in names)
    assert [one for one in found if not one["seen"]] == []


def test_arrows_move_in_the_grid(small, open_page):
    page = open_page(small.url)
    page.focus(".grid a >> nth=0")
    for key, worker in (("ArrowRight", "w1"), ("ArrowDown", "w2"),
                        ("End", "w23"), ("ArrowLeft", "w22"), ("Home", "w0")):
        page.keyboard.press(key)
        assert page.evaluate(FOCUSED)["what"].startswith(f"workers/{worker},")
    # It stays where it is while workers come.
    small.put("workers", examples.worker(60))
    expect(page.locator(".grid a")).to_have_count(25)
    assert page.evaluate(FOCUSED)["what"].startswith("workers/w0,")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("workers/w0")


def test_keys_of_the_page(small, open_page):
    page = open_page(small.url)
    page.keyboard.press("?")
    dialog = page.locator("dialog")
    expect(dialog).to_be_visible()
    assert "Goes to the filter" in dialog.inner_text()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.keyboard.press("/")
    page.keyboard.type("w1?")
    assert page.input_value("[data-filter]") == "w1?"
    expect(dialog).to_be_hidden()
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    expect(page.locator("#theme")).to_have_text("Theme: light")
    page.goto(small.url + "#/workers/w1")
    page.keyboard.press("u")
    expect(page.locator("h1")).to_have_text("Cluster")
    page.keyboard.press("Control+u")  # the browser's own


def active(page):
    tree = page.locator("[role=tree]")
    row = page.locator(f"#{tree.get_attribute('aria-activedescendant')}")
    return (" ".join(row.inner_text().split()),
            row.get_attribute("aria-expanded"), row.get_attribute("aria-level"))


def test_the_tree_follows_its_pattern(small, open_page):
    page = open_page(small.url, "#/deployments/llm")
    page.wait_for_selector(".treerow")
    page.focus("[role=tree]")
    assert active(page) == ("▾ (root) Decoder", "true", "1")
    steps = (("ArrowDown", ("▸ embedding Embedding", "false", "2")),
             ("ArrowDown", ("▾ layers ModuleList", "true", "2")),
             ("ArrowRight", ("▾ 0–3 ×4 Block", "true", "3")),
             ("ArrowRight", ("▸ attention Block", "false", "4")),
             ("ArrowRight", ("▾ attention Block", "true", "4")),
             ("ArrowRight", ("▸ wq Linear, ColwiseParallel", "false", "5")),
             (" ", ("▾ wq Linear, ColwiseParallel", "true", "5")),
             ("ArrowDown", ("weight [R, S(0)] f32[64, 64], 8 tiles",
                            None, "6")),
             ("ArrowLeft", ("▾ wq Linear, ColwiseParallel", "true", "5")),
             ("Enter", ("▸ wq Linear, ColwiseParallel", "false", "5")),
             ("*", ("▾ wq Linear, ColwiseParallel", "true", "5")),
             ("ArrowLeft", ("▸ wq Linear, ColwiseParallel", "false", "5")),
             ("ArrowLeft", ("▾ attention Block", "true", "4")),
             ("Home", ("▾ (root) Decoder", "true", "1")),
             ("ArrowUp", ("▾ (root) Decoder", "true", "1")),
             ("End", ("▸ head Linear", "false", "2")),
             ("ArrowDown", ("▸ head Linear", "false", "2")))
    for key, expected in steps:
        page.keyboard.press(key)
        assert active(page) == expected, key
    expect(page.locator(".picture")).to_have_attribute(
        "aria-label", "layers.0.attention.wq.weight: [R, S(0)] f32[64, 64], "
        "8 tiles")
