"""The coordinator's pages in a real browser: a job's report follows the job, in every theme and width."""

import re

import pytest
from support.browser import Browser, find

STEP_TILE = "[...document.querySelectorAll('.tile')].find(t => t.innerText.startsWith('Steps')).querySelector('b').innerText"


@pytest.fixture
def browser(tmp_path):
    """A headless Chromium."""
    if find() is None:
        pytest.skip("no Chromium is installed: tools/setup.sh --tests installs one")
    page = Browser(tmp_path / "profile")
    yield page
    page.close()


def step(browser):
    return int(browser.evaluate(STEP_TILE).replace(",", ""))


def test_the_page_follows_the_job_and_keeps_what_the_reader_opened(cluster, browser, tiny, tmp_path):
    url = f"http://127.0.0.1:{cluster.metrics_port}"
    browser.look(1280)
    browser.open(url + "/")
    assert "No jobs yet" in browser.evaluate("document.querySelector('main').innerText")

    job = cluster.create(tiny.spec(tmp_path / "output", steps=20000, interval=0))
    browser.wait_for("document.querySelector('main').innerText.includes('RUNNING')")  # without loading it again
    browser.evaluate("document.querySelector('.jobs td.name a').click()")
    browser.wait_for("location.pathname === '/jobs/default/tiny' && document.readyState === 'complete'")

    browser.wait_for("[...document.querySelectorAll('.tile')].some(t => t.innerText.includes('ends in'))")
    browser.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    opened = browser.evaluate("[...document.querySelectorAll('details')].filter(d => d.open).length")
    browser.evaluate("window.sameDocument = true")
    first = step(browser)
    browser.wait_for(f"+({STEP_TILE}).replace(',', '') > {first}")
    assert browser.evaluate("window.sameDocument") is True
    assert browser.evaluate("[...document.querySelectorAll('details')].filter(d => d.open).length") == opened > 0
    assert browser.evaluate("document.querySelector('.live-state').innerText") == "live"

    # The value under the pointer.
    box = browser.evaluate("(r => [r.x + r.width / 2, r.y + r.height / 2])(document.querySelector('svg.chart').getBoundingClientRect())")
    browser.command("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])
    assert re.match(r"step \d+: ", browser.evaluate("document.querySelector('.tip').innerText"))

    cluster.api.call("switchyard.v1.JobService", "CancelJob", name=job["name"])
    browser.wait_for("document.querySelector('h1 .badge').innerText === 'CANCELLED'")

    # Every theme and width: nothing wider than the window, text apart from its ground.
    for path in ("/", "/jobs/default/tiny", "/jobs/default/none"):
        grounds = set()
        for width in (390, 1280):
            for dark in (False, True):
                browser.look(width, dark=dark)
                browser.open(url + path)
                assert browser.evaluate("document.documentElement.scrollWidth") == width
                colours = browser.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
                light = [sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 for colour in colours]
                assert abs(light[0] - light[1]) > 150, colours
                grounds.add((dark, light[1] > 128))
        assert grounds == {(False, True), (True, False)}

    # The coordinator goes away and comes back.
    browser.open(url + "/")
    cluster.coordinator.kill()
    browser.wait_for("document.querySelector('.live-state').innerText.startsWith('no answer since')")
    cluster.start_coordinator()
    browser.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # as when the reader comes back to it
    browser.wait_for("document.querySelector('.live-state').innerText === 'live'", timeout=40)

    # Neither an error of a script nor something that the policy forbids; a missing page and a dead server are ours.
    unexpected = [line for line in browser.log if "404" not in line and "ERR_CONNECTION_REFUSED" not in line]
    assert unexpected == []
