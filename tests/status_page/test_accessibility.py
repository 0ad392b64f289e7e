"""Names, roles, contrast in both themes, phone width, motion."""

import pathlib

import pytest
from playwright.sync_api import expect

from tests.status_page.conftest import PHONE

CHECK = pathlib.Path(__file__).with_name("accessibility.js").read_text(
    encoding="utf-8")
VIEWS = ("", "#/deployments/llm", "#/workers/w3")
RED_ON_RED = """() => {
    const style = document.querySelector("h1").style;
    style.setProperty("color", "rgb(200, 40, 40)");
    style.setProperty("background-color", "rgb(180, 40, 40)");
    document.querySelector("button").setAttribute("aria-label", "");
    document.querySelector("button").textContent = "";
}"""


def opened(small, open_page, view, **options):
    page = open_page(small.url, view, **options)
    if "deployments" in view:
        page.wait_for_selector(".curve")
        page.wait_for_selector("rect[role=img]")
    return page


@pytest.mark.parametrize("scheme", ("light", "dark"))
@pytest.mark.parametrize("view", VIEWS)
def test_has_no_faults(small, open_page, view, scheme):
    page = opened(small, open_page, view, color_scheme=scheme)
    assert page.evaluate(CHECK) == []
    assert page.evaluate(
        "document.documentElement.dataset.theme") == scheme


def test_the_check_sees_faults(small, open_page):
    page = opened(small, open_page, "")
    page.evaluate(RED_ON_RED)
    faults = "\n".join(page.evaluate(CHECK))
    assert "text contrast" in faults and "no name" in faults


@pytest.mark.parametrize("view", VIEWS)
def test_fits_a_phone(small, open_page, view):
    page = opened(small, open_page, view, viewport=PHONE, is_mobile=True,
                  has_touch=True)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE["width"]
    beyond = page.evaluate("""() => [...document.querySelectorAll(
        "h1, h2, button, input, a, section")].filter((one) => {
            const box = one.getBoundingClientRect();
            return box.width && box.right > innerWidth + 1 &&
                !one.closest(".scroll") && !one.closest(".tree");
        }).map((one) => one.outerHTML.slice(0, 80))""")
    assert beyond == []


def test_motion_is_left_out_where_asked(small, open_page):
    for motion, moves in (("reduce", False), ("no-preference", True)):
        page = opened(small, open_page, "#/deployments/llm",
                      reduced_motion=motion)
        assert page.evaluate("""() => getComputedStyle(
            document.querySelector(".bar")).transitionDuration !== "0s"
            """) == moves


def test_the_theme_is_chosen_and_kept(small, open_page):
    page = open_page(small.url, color_scheme="light")
    light, dark = "rgb(255, 255, 255)", "rgb(13, 17, 23)"
    body, theme = page.locator("body"), page.locator("#theme")
    expect(theme).to_have_text("Theme: auto")
    expect(body).to_have_css("background-color", light)
    page.click("#theme")
    page.click("#theme")
    expect(theme).to_have_text("Theme: dark")
    expect(body).to_have_css("background-color", dark)
    page.reload()
    expect(theme).to_have_text("Theme: dark")
    expect(body).to_have_css("background-color", dark)
    page.click("#theme")
    expect(body).to_have_css("background-color", light)
    page.emulate_media(color_scheme="dark")
    expect(body).to_have_css("background-color", dark)
