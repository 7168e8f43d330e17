"""See and change the settings of a running graph.

ezmsg start
python -m examples.live_graph
python -m examples.settings_tui
"""

from __future__ import annotations

import sys
import time
from collections import deque

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import DataTable, Footer, Static

import ezmsg.core as ez
from ezmsg.core.graphmeta import GraphSnapshot, SettingsChangedEvent, SettingsEventType, SettingsSnapshotValue
from ezmsg.core.netprotocol import AddressType
from ezmsg.tui.app import GraphApp, main
from ezmsg.tui.fields import changes, fields_of
from ezmsg.tui.livetable import Head, LiveTable
from ezmsg.tui.session import each, repeatedly, together
from ezmsg.tui.settingsform import FieldRow, SettingsForm

# What no event tells (settings that went with their process) is seen so late.
POLL_S = 1.0
EVENTS = 100
HEADS = (Head("component", right=False, is_address=True), Head("live", 4))


class SettingsApp(GraphApp):
    """Components on the left, the settings of one on the right, what changed below."""

    NAME = "ezmsg settings"
    CSS = f"""
    {GraphApp.CSS}
    #above {{ height: 1fr; }}
    #components {{ width: 20; }}
    #right {{ width: 1fr; border-left: vkey $primary; padding: 0 0 0 1; }}
    #what {{ height: 1; text-style: bold; }}
    #events {{
        height: 6; padding: 0 1; background: $surface; text-wrap: nowrap; text-overflow: ellipsis;
    }}
    """

    def __init__(self, address: AddressType | None = None) -> None:
        super().__init__(address)
        self.settings: dict[str, SettingsSnapshotValue] = {}
        self.is_live: dict[str, bool] = {}
        self.events: deque[str] = deque(maxlen=EVENTS)
        self._known: dict[str, SettingsSnapshotValue] = {}
        self._session: ez.GraphContext | None = None

    def compose(self) -> ComposeResult:
        yield self.state_line()
        with Horizontal(id="above"):
            yield LiveTable(id="components")
            with Vertical(id="right"):
                yield Static("", id="what", markup=False)
                yield SettingsForm(id="form")
        yield Static("", id="events", markup=False)
        yield Static("Enter sends, Escape takes back, Tab goes on, Ctrl-C ends", classes="note", markup=False)
        yield Footer(compact=True)

    # -- following ----------------------------------------------------------------------------------------------------

    async def follow(self, context: ez.GraphContext) -> None:
        async def ask() -> None:
            settings, graph = await context.settings_snapshot(), await context.snapshot()
            self.settings, self.is_live = settings, live_components(graph)
            self.changed()

        self._session = context
        try:
            await together(repeatedly(ask, POLL_S, self.tell), each(context.subscribe_settings_events(), self._take))
        finally:
            self._session = None

    def _take(self, event: SettingsChangedEvent) -> None:
        address = event.component_address
        if event.gap:
            self.events.append(f"-- {event.gap}")
        if event.missed:
            self.events.append(f"-- {event.missed} events were missed")
        before = self._known.get(address)
        self._known[address] = self.settings[address] = event.value
        when = time.strftime("%H:%M:%S", time.localtime(event.timestamp))
        is_initial = event.event_type is SettingsEventType.INITIAL_SETTINGS
        self.events.append(f"{when} {address}: {'initial settings' if is_initial else changes(before, event.value)}")
        self.changed()

    # -- changing -----------------------------------------------------------------------------------------------------

    def on_field_row_changed(self, wanted: FieldRow.Changed) -> None:
        self.run_worker(self._change(wanted.row, wanted.value), exit_on_error=False)

    async def _change(self, row: FieldRow, value: object) -> None:
        component, session = self.query_one(SettingsForm).component, self._session
        if session is None or component is None:
            row.refused("there is no session with a GraphServer now")
            return
        try:
            self.settings[component] = await session.update_setting(component, row.field.path, value)
        except (RuntimeError, OSError, TypeError) as error:
            row.refused(reason(error))
        else:
            row.accepted()
        self.changed()

    # -- showing ------------------------------------------------------------------------------------------------------

    def draw(self) -> None:
        self.summary = f"{len(self.settings)} components"
        table = self.query_one("#components", LiveTable)
        live = {address: self.is_live.get(address, False) for address in self.settings}
        table.show(HEADS, {address: [address, "yes" if live[address] else "-"] for address in sorted(self.settings)})
        self.query_one("#events", Static).update("\n".join(list(self.events)[-6:]) or "no events yet")
        self.call_later(self._draw_form, table.selected)

    async def _draw_form(self, address: str | None) -> None:
        settings = None if address is None else self.settings.get(address)
        if address is None or settings is None:
            self.query_one("#what", Static).update("no component has told its settings" if not self.settings else "")
            return
        is_live, schema = self.is_live.get(address, False), settings.settings_schema
        what = schema.settings_type.rpartition(".")[2] if schema is not None else "settings"
        note = "" if is_live else "  (no INPUT_SETTINGS: only shown)"
        self.query_one("#what", Static).update(f"{address}: {what}{note}")
        await self.query_one(SettingsForm).show_fields(address, fields_of(settings), is_live=is_live)

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        self.changed()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Enter leads from the component to its first field."""
        self.screen.focus_next()

    def on_resize(self) -> None:
        self.changed()


def live_components(graph: GraphSnapshot) -> dict[str, bool]:
    """Which components take new settings, as the metadata of the sessions tells."""
    return {
        address: component.dynamic_settings.enabled
        for session in graph.sessions.values()
        if session.metadata is not None
        for address, component in session.metadata.components.items()
    }


def reason(error: Exception) -> str:
    """Why the process refused, in its own words."""
    text = str(error)
    if text.startswith("Process request failed ("):
        text = text.partition("): ")[2] or text
    return text.partition(" cannot take this: ")[2] or text  # which settings they are, one sees


if __name__ == "__main__":
    sys.exit(main(SettingsApp))
