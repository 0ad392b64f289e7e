"""Names come from users: they are text, whatever they say."""

from playwright.sync_api import expect

from tests.status_page import examples

BAD = ("<img src=x onerror=window.hit=1><script>window.hit=1</script>"
       "\"'onmouseover=window.hit=1 javascript:window.hit=1 \u202e&amp;")
# A segment of a resource's name has no slash.
NAME = BAD.replace("/", "|")


def hostile(fake):
    deployment = examples.deployment(layers=2, tp=2, dp=0,
                                     name=f"deployments/{NAME}")
    deployment.labels[BAD] = BAD
    deployment.state_reason = BAD
    deployment.module.modules[1].type = BAD
    deployment.report.parameters[0].name = f"{BAD}.weight"
    deployment.report.parameters[0].text = BAD
    deployment.report.diagnostics[0].message = BAD
    deployment.report.diagnostics[0].reason = BAD
    deployment.plan.entries[0].pattern = BAD
    deployment.plan.entries[0].value.style.unknown = BAD
    deployment.report.module_collectives[0].why = BAD
    deployment.report.module_collectives[0].fqn = BAD
    fake.deploy(deployment, [examples.program(deployment.name)],
                [examples.step(deployment.name, 1)])
    worker = examples.worker(0, deployment=deployment.name, name=NAME)
    worker.state_reason = BAD
    worker.device = BAD
    worker.address = BAD
    fake.put("workers", worker)
    fake.put("events", examples.event(1, BAD, worker.name, BAD))
    operation = examples.operation(1, deployment.name, 10)
    operation.phase = BAD
    fake.put("operations", operation)
    return deployment, worker


def harmless(page):
    assert page.evaluate("window.hit") is None
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1
    assert page.evaluate("""() => [...document.querySelectorAll("*")].filter(
        (one) => [...one.attributes].some((a) => a.name.startsWith("on") ||
            a.value.trim().toLowerCase().startsWith("javascript:")))
        .length""") == 0


def test_nothing_of_it_runs(fake, open_page):
    deployment, worker = hostile(fake)
    page = open_page(fake.url)
    assert BAD.split("\u202e")[0] in page.locator("main").text_content()
    harmless(page)
    page.click("section:has(#h-deployments) a")
    expect(page.locator("h1")).to_have_text(deployment.name)
    page.wait_for_selector(".picture")
    harmless(page)
    for row in page.locator(".treerow").all():
        row.hover()
    page.focus("[role=tree]")
    page.keyboard.press("End")
    harmless(page)
    page.click("#crumbs a")
    page.click(".grid a")
    expect(page.locator("h1")).to_have_text(worker.name)
    harmless(page)


def test_a_hostile_address_shows_as_text(fake, open_page):
    page = open_page(fake.url, "#/workers/%3Cimg%20src=x%20onerror=a()%3E")
    expect(page.locator("h1")).to_have_text("workers/<img src=x onerror=a()>")
    harmless(page)
    page.goto(fake.url + "#/workers/%")  # not what encodeURIComponent writes
    expect(page.locator("h1")).to_have_text("workers/%")
    harmless(page)


def test_the_policy_stops_what_would_run(fake, open_page):
    page = open_page(fake.url)
    page.complaints.expected = ("Trusted", "Content Security Policy",
                                "requires")
    refused = page.evaluate("""() => {
        const link = document.createElement("a");
        return [() => { document.body.innerHTML = "<b>x</b>"; },
                () => link.setAttribute("onclick", "window.hit = 1"),
                () => setTimeout("window.hit = 1", 0)].map((attack) => {
                    try { attack(); } catch (error) { return error.name; }
                    return "";
                });
    }""")
    assert "" not in refused
    assert page.evaluate("window.hit") is None
    assert page.complaints.found
