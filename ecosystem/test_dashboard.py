"""ezmsg-dashboard beside a GraphServer of this package, driven in a browser while a graph runs.

What the pages look like is left in ecosystem/screenshots.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright

import ezmsg.core as ez
from ecosystem.programs import TIMEOUT_S, Start

SCREENSHOTS = Path(__file__).parent / "screenshots"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LIMIT_MS = 90_000.0
PICTURE_MS = 2500.0
"""For the picture to have something in it; nothing is asserted of it."""
UNITS = ("PLAYER", "BAND_PASS", "ENERGY", "COLLECTOR", "TOTAL")


@dataclass
class Dashboard:
    """A page of it, and the graph that it shows."""

    page: Page
    graph_address: str
    errors: list[str]

    def shoot(self, name: str) -> None:
        """Keep what it looks like."""
        SCREENSHOTS.mkdir(exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")


@pytest.fixture(scope="session")
def browser_path() -> str:
    """Chromium of the system."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.fail("no Chromium: apt-get install chromium, or set CHROMIUM to its path", pytrace=False)
    return found


@pytest.fixture
def dashboard(start: Start, free_port: int, browser_path: str) -> Iterator[Dashboard]:
    """`ezmsg serve --dashboard`, the pipeline in real time, and a browser that looks at it."""
    address = f"127.0.0.1:{free_port}"
    serving = start("ezmsg.core", "serve", "--address", address, "--dashboard")
    serving.wait_for("Uvicorn running on")
    running = start("ecosystem.pipeline", "--live", address)
    running.wait_for("the player plays")
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(LIMIT_MS)
        expect.set_options(timeout=LIMIT_MS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(f"http://127.0.0.1:{free_port + 1}")
        yield Dashboard(page, address, errors)
        browser.close()
    assert errors == []
    # How a run ends is tested elsewhere, and depends on how busy the machine is.
    for program in (running, serving):
        program.end(signal.SIGINT)
        assert "Traceback" not in program.output


def test_its_pages_show_a_live_graph_and_change_it(dashboard: Dashboard) -> None:
    _topology(dashboard)
    _settings(dashboard)
    _profiling(dashboard)
    _data(dashboard)


def _topology(dashboard: Dashboard) -> None:
    page = dashboard.page
    for name in UNITS:
        expect(page.locator(".react-flow__node").get_by_text(name, exact=True).first).to_be_visible()
    # From the player to the filter, through the collection, to the collector, and on.
    expect(page.locator(".react-flow__edge")).not_to_have_count(0)
    dashboard.shoot("topology")
    page.get_by_label("Open ENERGY scope").dispatch_event("click")
    for name in ("WINDOW", "POWER"):
        expect(page.locator(".react-flow__node").get_by_text(name, exact=True).first).to_be_visible()
    dashboard.shoot("topology-collection")
    page.get_by_label("Go up from ENERGY").dispatch_event("click")


def _settings(dashboard: Dashboard) -> None:
    page = dashboard.page
    page.get_by_role("button", name="Expand").last.click()
    unit = page.locator(".settings-component-row", has=page.get_by_title("BAND_PASS", exact=True))
    unit.locator(".settings-component-row__toggle").click()
    expect(unit.locator(".settings-access")).to_have_text("patchable")
    cutoff = unit.locator(".settings-field-row", has=page.locator("label", has_text=re.compile("^cutoff$")))
    field = cutoff.locator("input")
    expect(field).to_have_value("15")
    field.fill("12.5")
    cutoff.get_by_role("button", name="Apply").click()
    expect(cutoff.get_by_text("Applied cutoff")).to_be_visible()
    cutoff.get_by_text("Applied cutoff").scroll_into_view_if_needed()
    dashboard.shoot("settings")
    with ThreadPoolExecutor(1) as thread:  # playwright runs a loop in this one
        assert thread.submit(asyncio.run, _cutoff_of(dashboard.graph_address)).result() == 12.5


async def _cutoff_of(address: str) -> float:
    async with ez.GraphContext(address, auto_start=False) as graph:
        value = (await graph.settings_snapshot())["BAND_PASS"]
        assert value.structured_value is not None
        return value.structured_value["cutoff"]


def _profiling(dashboard: Dashboard) -> None:
    page = dashboard.page
    publisher = _publisher(page, "PLAYER/OUTPUT_SIGNAL")
    # A block every 100 ms.
    expect(publisher.locator(".publisher-row__metrics")).to_contain_text(re.compile(r"(8|9|10)\.\d Hz"))
    expect(publisher.get_by_text("BAND_PASS/INPUT_SIGNAL").first).to_be_visible()
    publisher.get_by_role("button", name="Start Profiling Trace").click()
    canvas = page.locator(".timing-trace__canvas")
    expect(canvas).to_be_visible()
    expect(page.get_by_text("Waiting for trace samples")).to_have_count(0)
    page.wait_for_timeout(PICTURE_MS)
    dashboard.shoot("profiling")
    publisher.get_by_role("button", name="Stop Profiling Trace").click()
    expect(canvas).to_have_count(0)


def _data(dashboard: Dashboard) -> None:
    page = dashboard.page
    publisher = _publisher(page, "BAND_PASS/OUTPUT_SIGNAL")
    publisher.get_by_role("button", name="View Data").click()
    expect(page.get_by_label("Close stream viewer")).to_be_visible()
    page.wait_for_timeout(PICTURE_MS)
    dashboard.shoot("data")


def _publisher(page: Page, topic: str) -> Locator:
    """What is said of a publisher, with all details."""
    row = page.locator(".publisher-row", has=page.get_by_text(topic, exact=True))
    toggle = row.locator(".publisher-row__toggle")
    if toggle.get_attribute("aria-expanded") != "true":
        toggle.click()
    return row


def test_a_server_in_the_background_has_one_that_ends_with_it(start: Start, free_port: int) -> None:
    address, port = f"127.0.0.1:{free_port}", free_port + 1
    begun = start("ezmsg.core", "start", "--address", address, "--dashboard", str(port))
    assert begun.ended() == 0, begun.output
    try:
        health = _answer(f"http://127.0.0.1:{port}/api/health")
        assert health is not None
        assert (health["status"], health["graph_address"]) == ("ok", address)
    finally:
        assert start("ezmsg.core", "shutdown", "--address", address).ended() == 0
    assert _answer(f"http://127.0.0.1:{port}/api/health", is_wanted=False) is None


def test_one_started_alone_looks_at_the_graph_it_is_given(start: Start, free_port: int) -> None:
    address, port = f"127.0.0.1:{free_port}", free_port + 1
    start("ezmsg.core", "serve", "--address", address).wait_for("GraphServer at")
    alone = start("ezmsg.core", "dashboard", "--graph-address", address, "--port", str(port), "--log-level", "warning")
    health = _answer(f"http://127.0.0.1:{port}/api/health")
    assert health is not None
    assert health["graph_address"] == address
    assert alone.end(signal.SIGINT) == 0, alone.output


def _answer(url: str, is_wanted: bool = True) -> dict[str, Any] | None:
    """What somebody there answers, when somebody does, or None, when nobody does any more."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline_s:
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
                found = json.load(response)
        except OSError:
            found = None
        if (found is not None) == is_wanted:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{url} {'does not answer' if is_wanted else 'still answers'}")
