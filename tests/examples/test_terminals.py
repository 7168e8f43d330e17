"""The programs for terminals, driven by key and pointer at 80 by 24 against a graph that runs in three processes."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Select, Static, Switch, TabbedContent

from examples.profiling_tui import ProfilingApp
from examples.settings_tui import SettingsApp
from examples.topology_tui import TopologyApp
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.net.address import Address
from ezmsg.core.processclient import ProcessControlClient
from ezmsg.tui.app import GraphApp
from ezmsg.tui.edgedetail import EdgeDetail
from ezmsg.tui.edges import CulpritLine
from ezmsg.tui.livetable import LiveTable
from ezmsg.tui.session import LOST
from ezmsg.tui.settingsform import FieldRow, SettingsForm
from ezmsg.tui.top import TopApp
from ezmsg.tui.traces import TraceTree
from tests.core.mortalserver import Successors

ROOT = Path(__file__).parents[2]
SIZE = (80, 24)
DEADLINE_S = 40
# Seconds over which figures are taken: some messages.
LOOK_S = 0.1


async def until(is_so: Callable[[], Any]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not is_so():
            await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def servers() -> Iterator[Successors]:
    """A server that can be replaced, with `examples.live_graph`."""
    servers = Successors()
    program = subprocess.Popen(
        [sys.executable, "-m", "examples.live_graph", "--address", str(servers.address)],
        cwd=ROOT, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        asyncio.run(_begun(servers))
        yield servers
    finally:
        program.terminate()
        program.wait(DEADLINE_S)
        servers.close()


async def _begun(servers: Successors) -> None:
    async with GraphContext(servers.address) as context, asyncio.timeout(DEADLINE_S):
        while not any(session.metadata for session in (await context.snapshot()).sessions.values()):
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def shown(app: GraphApp) -> AsyncIterator[Pilot[None]]:
    async with app.run_test(size=SIZE) as pilot:
        await until(lambda: app.trouble is None)
        yield pilot


def rows(app: GraphApp, table: str) -> list[str]:
    return app.query_one(table, LiveTable).lines()[1:]


def text(app: GraphApp, widget: Any) -> str:
    return str(app.query_one(widget).render())


def fits(app: GraphApp) -> bool:
    """Whether no table is wider than what is seen of it."""
    return all(table.virtual_size.width <= table.size.width for table in app.query(LiveTable) if table.size.width)


# -- ezmsg top --------------------------------------------------------------------------------------------------------


async def test_top_shows_every_edge_and_who_is_to_blame(servers: Successors) -> None:
    app = TopApp(servers.address, LOOK_S)
    async with shown(app):
        await until(lambda: "SLOW/INPUT causes" in text(app, CulpritLine))
        names = [row.split("  ")[0] for row in rows(app, "#edges")]
        assert names == ["FILTER → SLOW", "SOURCE → FILTER", "SOURCE → MONITOR"]
        (slow, _, local) = rows(app, "#edges")
        assert " ms" in slow
        assert slow.endswith("%")
        assert " local " in local
        assert fits(app)


# -- settings ---------------------------------------------------------------------------------------------------------


async def component(app: SettingsApp, pilot: Pilot[None], name: str) -> SettingsForm:
    """Go to a component, and to its first field."""
    await until(lambda: len(rows(app, "#components")) == 4)
    table, form = app.query_one("#components", LiveTable), app.query_one(SettingsForm)
    table.focus()
    while table.selected != name:
        await pilot.press("down" if (table.selected or "") < name else "up")
    await until(lambda: form.component == name and len(form.query(FieldRow)))
    await pilot.press("enter")
    return form


def editor(form: SettingsForm, path: str, kind: type[Any]) -> Any:
    return form.row(path).query_one(kind)


async def test_a_value_is_sent_refused_with_a_reason_mended_and_seen_by_others(servers: Successors) -> None:
    app, other = SettingsApp(servers.address), GraphContext(servers.address)
    async with shown(app) as pilot, other:
        form = await component(app, pilot, "FILTER")
        gain = editor(form, "gain", Input)
        assert app.focused is gain
        await pilot.press("end", *["backspace"] * 3, "q", "enter")  # a letter is a letter here
        assert "'q' is not a number" in str(form.row("gain").query_one(".error", Static).render())
        await pilot.press("backspace", "1", "2", "enter")
        error = form.row("gain").query_one(".error", Static)
        await until(lambda: "expected ≤ 10" in str(error.render()))
        assert form.row("gain").has_class("wrong")
        await pilot.press("backspace", "enter")
        await until(lambda: not form.row("gain").has_class("wrong"))
        assert (await other.settings_snapshot())["FILTER"].structured_value["gain"] == 1.0  # type: ignore[index]
        await until(lambda: any("gain 2.0 → 1.0" in event for event in app.events))
        # What others change is shown, but not over what is being typed.
        await pilot.press("7")
        await other.update_setting("FILTER", "gain", 3.0)
        await other.update_setting("FILTER", "taps", 9)
        await until(lambda: editor(form, "taps", Input).value == "9")
        assert gain.value.endswith("7")
        await pilot.press("escape")
        assert gain.value == "3.0"


async def test_settings_are_drawn_from_their_schema_and_sent_as_they_are_chosen(servers: Successors) -> None:
    app = SettingsApp(servers.address)
    async with shown(app) as pilot, GraphContext(servers.address) as other:
        form = await component(app, pilot, "SOURCE")
        assert {row.field.path: row.field.kind for row in form.query(FieldRow)} == {
            "rate_hz": "number", "shape": "choice", "amplitude": "number", "muted": "switch"
        }  # fmt: skip
        assert form.row("rate_hz").field.hint == "1 to 500, blocks per second"
        assert [row.split()[-1] for row in rows(app, "#components")] == ["yes", "-", "yes", "yes"]
        assert fits(app)
        editor(form, "muted", Switch).focus()
        await pilot.press("space")
        editor(form, "shape", Select).focus()
        await pilot.press("enter", "down", "enter")
        await until(lambda: app.settings["SOURCE"].structured_value["shape"] == "square")  # type: ignore[index]
        settings = (await other.settings_snapshot())["SOURCE"].structured_value
        assert settings is not None
        assert (settings["muted"], settings["shape"]) == (True, "square")
        await other.update_setting("SOURCE", "muted", False)
        await until(lambda: editor(form, "muted", Switch).value is False)


# -- profiling --------------------------------------------------------------------------------------------------------


async def test_profiling_shows_stages_processes_endpoints_and_traces(servers: Successors) -> None:
    app = ProfilingApp(servers.address, LOOK_S)
    async with shown(app) as pilot:
        await until(lambda: "backpressure  " in text(app, EdgeDetail) and "█" in text(app, EdgeDetail))
        assert "FILTER/OUTPUT → SLOW/INPUT" in text(app, EdgeDetail)
        assert fits(app)
        await pilot.press("2")
        await until(lambda: len(rows(app, "#process-table")) == 3)
        assert any(row.startswith("MONITOR, SOURCE") for row in rows(app, "#process-table"))
        await pilot.press("3")
        await until(lambda: len(rows(app, "#receiver-table")) == 3)
        assert [row.split()[0] for row in rows(app, "#sender-table")] == ["FILTER/OUTPUT", "SOURCE/OUTPUT"]
        assert fits(app)
        await pilot.press("5")
        tree = app.query_one(TraceTree)
        await until(lambda: any("        process SLOW/INPUT" in line for line in tree.lines()))
        assert any(line.startswith("  publish SOURCE/OUTPUT") for line in tree.lines())


async def test_a_trace_is_filtered_thinned_ends_by_itself_and_is_stopped(servers: Successors) -> None:
    app = ProfilingApp(servers.address, LOOK_S)

    def state() -> str:
        return text(app, "#trace-state")

    async with shown(app) as pilot:
        await pilot.press("4")
        assert app.query_one(TabbedContent).active == "samples"
        app.query_one("#subscribers", Input).value = "SLOW/INPUT"
        app.query_one("#metric", Select).value = "queue_wait_ns"
        app.query_one("#mod", Input).value = "none"
        await pilot.click("#start")
        assert "“one in” takes a whole number above 0, not 'none'" in state()
        app.query_one("#mod", Input).value = "4"
        app.query_one("#ttl", Input).value = "0.4"
        await pilot.click("#start")
        await until(lambda: "one in 4" in state())
        await until(lambda: "expired after 0.4 s" in state())
        await until(lambda: rows(app, "#sample-table"))
        (row,) = rows(app, "#sample-table")
        assert row.startswith("SLOW/INPUT")
        assert "queue wait" in row
        app.query_one("#ttl", Input).value = "60"
        app.query_one("#ttl", Input).focus()
        await pilot.press("enter")
        await until(lambda: "on for another" in state())
        await pilot.click("#stop")
        await until(lambda: state().startswith("stopped"))
        assert fits(app)


# -- topology ---------------------------------------------------------------------------------------------------------


async def test_topology_draws_the_graph_and_tells_what_changed(servers: Successors) -> None:
    app = TopologyApp(servers.address, LOOK_S)
    async with shown(app), GraphContext(servers.address) as other:
        await until(lambda: any(" shm " in row for row in rows(app, "#graph")))
        assert [row.split("  ")[0] for row in rows(app, "#graph")][:2] == ["SOURCE", "├─▶ FILTER"]
        await other.connect("SLOW/OUTPUT", "DISK")
        await until(lambda: "+ SLOW/OUTPUT → DISK" in text(app, "#changes"))
        await until(lambda: any("DISK" in row for row in rows(app, "#graph")))
        await other.disconnect("SLOW/OUTPUT", "DISK")
        await until(lambda: "- SLOW/OUTPUT → DISK" in text(app, "#changes"))
        assert fits(app)


# -- all of them ------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def small_graph(address: Address) -> AsyncIterator[None]:
    """A publisher and a subscriber of a process that owns a unit: this one."""
    process = ProcessControlClient(address)
    await process.register(["U"])
    await process.report_settings_update("U", {"gain": 1})
    async with GraphContext(address) as context:
        await context.connect("A", "B")
        subscriber, publisher = await context.subscriber("B"), await context.publisher("A")

        async def flow() -> None:
            while True:
                await publisher.broadcast(0)
                await subscriber.recv()
                await asyncio.sleep(0.01)

        flowing = asyncio.create_task(flow())
        try:
            yield
        finally:
            flowing.cancel()
            await asyncio.wait([flowing])
    await process.close()


async def test_all_survive_the_loss_of_the_server_and_its_orderly_end() -> None:
    servers = Successors()
    address = servers.address
    settings, topology = SettingsApp(address), TopologyApp(address, LOOK_S)
    profiling, top = ProfilingApp(address, LOOK_S), TopApp(address, LOOK_S)
    apps: list[Any] = [settings, topology, profiling, top]
    measuring = [topology, profiling, top]
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(servers.close)
        await stack.enter_async_context(small_graph(address))
        for app in apps:
            await stack.enter_async_context(shown(app))
        await until(lambda: topology.graph and all(app.measures.edges for app in measuring))
        await asyncio.to_thread(servers.server.die)
        # At once, and what was measured before fades.
        await until(lambda: all(app.trouble == LOST and app.screen.has_class("lost") for app in apps))
        await asyncio.to_thread(servers.start)
        await until(lambda: any("was lost" in change for _, change in topology.changes))
        await until(lambda: any("was lost" in event for event in settings.events))
        for app in measuring:
            app.measures.edges.clear()
        await until(lambda: all(app.measures.edges for app in measuring))
        await until(lambda: all(app.trouble is None for app in apps))
        # After an orderly end the graph does not come back, those who watch do.
        await asyncio.to_thread(servers.server.stop)
        await until(lambda: all(app.trouble for app in apps))
        await asyncio.to_thread(servers.start)
        await until(lambda: all(app.trouble is None for app in apps))


async def test_the_screen_is_drawn_at_most_four_times_a_second_whatever_happens(servers: Successors) -> None:
    drawn: list[float] = []

    class Counting(TopologyApp):
        def draw(self) -> None:
            drawn.append(time.monotonic())

    app = Counting(servers.address, LOOK_S)
    async with shown(app), GraphContext(servers.address) as other:
        begin, before = time.monotonic(), len(drawn)
        for _ in range(50):
            await other.connect("X", "Y")
            await other.disconnect("X", "Y")
        await until(lambda: len(drawn) > before)
        elapsed = time.monotonic() - begin
    # A timer that was late makes up for it; nothing is drawn for an event.
    assert len([when for when in drawn if begin <= when <= begin + elapsed]) <= elapsed / 0.25 + 2
