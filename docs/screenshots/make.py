"""Makes the pictures of docs/status_page.md:

    ./shardplane python -m docs.screenshots.make

Of a made-up cluster, the one that the tests use: 1,000 workers, a deployment of
126 layers on 16 of them.
"""

import io
import pathlib
import shutil

from PIL import Image
from playwright.sync_api import sync_playwright

from shardplane.v1 import coordinator_pb2 as pb
from tests.status_page import examples
from tests.status_page.fake import FakeCoordinator

FOLDER = pathlib.Path(__file__).resolve().parent
WIDE = {"width": 1200, "height": 900}
PHONE = {"width": 360, "height": 780}
DEPLOYMENT = "#/deployments/llm"
# File, theme, size, view, element that is scrolled to the top.
PICTURES = (("overview-light", "light", WIDE, "", None),
            ("overview-dark", "dark", WIDE, "", None),
            ("deployment-light", "light", WIDE, DEPLOYMENT, None),
            ("deployment-dark", "dark", WIDE, DEPLOYMENT, None),
            ("tiles-light", "light", WIDE, DEPLOYMENT, "#h-modules"),
            ("tiles-dark", "dark", WIDE, DEPLOYMENT, "#h-modules"),
            ("phone-light", "light", PHONE, "", None),
            ("phone-dark", "dark", PHONE, DEPLOYMENT, "#h-modules"))
COLORS = 128  # a page has few; so a picture stays small


def cluster(fake):
    large = examples.fill(fake, layers=126, steps=800)
    fake.put("workers", *examples.workers(1000, large.name, serving=16))
    small = pb.Deployment(name="deployments/mlp", uid="mlp", last_step=42,
                          state=pb.Deployment.STATE_MATERIALIZING)
    small.mesh.dims.add(name="tp", size=4)
    small.labels["team"] = "vision"
    small.create_time.seconds = examples.START
    fake.deploy(small)


def shoot(browser, url, name, theme, size, view, top):
    context = browser.new_context(viewport=size, color_scheme=theme,
                                  reduced_motion="reduce",
                                  timezone_id="UTC")
    page = context.new_page()
    page.goto(url + view)
    page.wait_for_selector(".picture" if view else ".grid a")
    if view:
        page.focus("[role=tree]")
        for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight",
                    "ArrowRight", "*", "ArrowDown", "ArrowRight",
                    "ArrowRight"):
            page.keyboard.press(key)
        page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    if top:
        page.locator(top).evaluate(
            "(one) => scrollTo(0, one.getBoundingClientRect().top - 24)")
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    path = FOLDER / f"{name}.png"
    picture.quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)
    context.close()
    print(f"{path.name}: {path.stat().st_size // 1000} kB")


def main():
    with FakeCoordinator() as fake, sync_playwright() as playwright:
        cluster(fake)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-dev-shm-usage"])
        for picture in PICTURES:
            shoot(browser, fake.url, *picture)
        browser.close()


if __name__ == "__main__":
    main()
