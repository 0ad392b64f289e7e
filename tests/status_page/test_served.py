"""The page as the coordinator's own binary serves it."""

from playwright.sync_api import expect

import shardplane as sp
from tests.status_page.fake import joined


def test_its_policy_lets_it_run(open_page):
    with sp.LocalCluster(workers=0) as cluster:
        page = open_page(f"http://{cluster.coordinator.http_address}/",
                         live=False, color_scheme="dark")
        page.complaints.expected = ("Failed to load resource",)
        expect(page.locator("h1")).to_have_text("Cluster")
        expect(page.locator("body")).to_have_css("background-color",
                                                 "rgb(13, 17, 23)")
        expect(page.locator("#live")).not_to_have_text("Connecting")
        answer = page.reload()
        assert answer.headers["content-security-policy"] == joined().policy()
        expect(page.locator("h1")).to_have_text("Cluster")
