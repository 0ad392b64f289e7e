"""A real Chromium, and pages that fail their test if they complain."""

import contextlib
import shutil
import urllib.parse

import pytest
from playwright.sync_api import sync_playwright

from tests.status_page import examples
from tests.status_page.fake import FakeCoordinator

PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="session")
def browser():
    chromium = shutil.which("chromium")
    assert chromium, "chromium is not installed: see packages-test.debian"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=chromium, headless=True,
            args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield running
        running.close()


class Complaints:
    """What a page must not do: console errors, requests to elsewhere."""

    def __init__(self, page, url):
        self.origin = urllib.parse.urlsplit(url)[:2]
        self.found = []
        self.expected = ()
        page.on("console", self.console)
        page.on("pageerror", lambda error: self.found.append(str(error)))
        page.on("request", self.request)

    def console(self, message):
        if message.type in ("error", "warning"):
            self.found.append(f"{message.type}: {message.text}")

    def request(self, request):
        url = urllib.parse.urlsplit(request.url)
        if url.scheme != "data" and url[:2] != self.origin:
            self.found.append(f"asks elsewhere: {request.url}")

    def unexpected(self):
        return [text for text in self.found
                if not any(known in text for known in self.expected)]


@pytest.fixture
def open_page(browser):
    """open_page(url, path="", **context): a page that has become live."""
    with contextlib.ExitStack() as stack:
        pages = []

        def open_(url, path="", live=True, **options):
            context = browser.new_context(**options)
            stack.callback(context.close)
            context.set_default_timeout(10_000)
            page = context.new_page()
            page.complaints = Complaints(page, url)
            page.goto(url + path)
            if live:
                page.wait_for_selector("#live.ok")
            pages.append(page)
            return page

        yield open_
        for page in pages:
            assert page.complaints.unexpected() == []


@pytest.fixture
def fake():
    with FakeCoordinator() as running:
        yield running


@pytest.fixture
def small(fake):
    """A fake coordinator with a small cluster."""
    examples.fill(fake)
    return fake
