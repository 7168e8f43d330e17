"""What a GraphServer should know, written down naively: for machines that compare it with what one does know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ezmsg.core.dag import CyclicException
from ezmsg.core.errors import ComponentAddressCollision, NoDynamicSettings, UnitAlreadyOwned, UnitNotOwned

PERSISTENT = "persistent"
Edge = tuple[str, str]


@dataclass
class Setting:
    session: str | None = None
    initial: int | None = None
    process: str | None = None
    reported: int | None = None

    @property
    def value(self) -> int | None:
        return self.initial if self.reported is None else self.reported


@dataclass
class Model:
    """Sessions, processes, edges and settings; settings are a number per component."""

    sessions: dict[str, dict[str, int] | None] = field(default_factory=dict)
    owners: dict[Edge, set[str]] = field(default_factory=dict)
    processes: dict[str, set[str]] = field(default_factory=dict)
    registered: set[str] = field(default_factory=set)
    settings: dict[str, Setting] = field(default_factory=dict)
    events: dict[str, list[tuple[Any, ...]]] = field(default_factory=lambda: {"topology": [], "settings": []})

    def tell_topology(self, kind: str, topics: list[str], session: str | None, process: str | None) -> None:
        self.events["topology"].append((len(self.events["topology"]) + 1, kind, topics, session, process))

    def tell_settings(self, kind: str, address: str, process: str | None = None) -> None:
        entry = self.settings[address]
        event = (len(self.events["settings"]) + 1, kind, address, entry.session, process, entry.value)
        self.events["settings"].append(event)

    # -- edges --------------------------------------------------------------------------------------------------------

    def reaches(self, start: str, goal: str) -> bool:
        return start == goal or any(a == start and self.reaches(b, goal) for a, b in self.owners)

    def connect(self, owner: str, a: str, b: str) -> None:
        if (a, b) not in self.owners:
            if self.reaches(b, a):
                raise CyclicException(a, b)
            self.tell_topology("GRAPH_CHANGED", [b], None if owner == PERSISTENT else owner, None)
        self.owners.setdefault((a, b), set()).add(owner)

    def disconnect(self, owner: str, a: str, b: str) -> None:
        if self._disown({(a, b)}, owner):
            self.tell_topology("GRAPH_CHANGED", [b], None if owner == PERSISTENT else owner, None)

    def _disown(self, edges: set[Edge], owner: str) -> list[str]:
        """The ends of the edges that are gone."""
        gone = {edge for edge in edges if self.owners.get(edge) == {owner}}
        for edge in edges & self.owners.keys():
            self.owners[edge].discard(owner)
        for edge in gone:
            del self.owners[edge]
        return sorted({b for _, b in gone})

    # -- sessions -----------------------------------------------------------------------------------------------------

    def revert(self, session: str) -> None:
        self.sessions[session] = None
        for address in [address for address, entry in self.settings.items() if entry.session == session]:
            self._orphan(address)
        if topics := self._disown(set(self.owners), session):
            self.tell_topology("GRAPH_CHANGED", topics, session, None)

    def end_session(self, session: str) -> None:
        self.revert(session)
        del self.sessions[session]

    def _orphan(self, address: str) -> None:
        entry = self.settings[address]
        entry.session = entry.initial = None
        if entry.reported is None:
            del self.settings[address]

    def register_metadata(self, session: str, components: dict[str, int]) -> None:
        others = [known for other, known in self.sessions.items() if other != session and known]
        if taken := sorted({address for known in others for address in known.keys() & components.keys()}):
            raise ComponentAddressCollision(taken)
        for address in (self.sessions[session] or {}).keys() - components.keys():
            self._orphan(address)
        self.sessions[session] = dict(components)
        for address, gain in sorted(components.items()):
            entry = self.settings.setdefault(address, Setting())
            entry.session, entry.initial = session, gain
            self.tell_settings("INITIAL_SETTINGS", address)

    def input_topic(self, address: str) -> str:
        if any(address in known for known in self.sessions.values() if known):
            return f"{address}/INPUT_SETTINGS"
        raise NoDynamicSettings(address)

    # -- processes ----------------------------------------------------------------------------------------------------

    def owner(self, unit: str) -> str | None:
        return next((process for process, units in self.processes.items() if unit in units), None)

    def own(self, process: str, units: set[str]) -> None:
        if conflicts := {unit: owner for unit in units if (owner := self.owner(unit)) not in (None, process)}:
            raise UnitAlreadyOwned("", conflicts)
        if units != self.processes[process]:
            self.processes[process] = units
            self.tell_topology("PROCESS_CHANGED", [], None, process)

    def register(self, process: str, units: set[str]) -> None:
        self.own(process, units)
        self.registered.add(process)

    def update(self, process: str, added: set[str], removed: set[str]) -> None:
        self.own(process, (self.processes[process] - removed) | added)

    def report(self, process: str, unit: str, gain: int) -> None:
        if unit not in self.processes[process]:
            raise UnitNotOwned(unit, process, None)
        entry = self.settings.setdefault(unit, Setting())
        entry.process, entry.reported = process, gain
        self.tell_settings("SETTINGS_UPDATED", unit, process)

    def end_process(self, process: str) -> None:
        del self.processes[process]
        self.registered.discard(process)
        for address, entry in sorted(self.settings.items()):
            if entry.process != process:
                continue
            entry.process = entry.reported = None
            if entry.session is None:
                del self.settings[address]
            else:
                self.tell_settings("SETTINGS_UPDATED", address)
        self.tell_topology("PROCESS_CHANGED", [], None, process)

    # -- what is to be seen -------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        nodes = {topic for edge in self.owners for topic in edge}
        return {
            "graph": {node: sorted(b for a, b in self.owners if a == node) for node in nodes},
            "owners": {
                edge: sorted(owners, key=lambda owner: (owner != PERSISTENT, owner))
                for edge, owners in self.owners.items()
            },
            "sessions": {
                session: (sorted(edge for edge, owners in self.owners.items() if session in owners), known)
                for session, known in self.sessions.items()
            },
            "processes": {
                process: (process in self.registered, sorted(units)) for process, units in self.processes.items()
            },
        }

    def values(self) -> dict[str, int | None]:
        return {address: entry.value for address, entry in sorted(self.settings.items())}
