"""A machine that does to a control plane whatever its users may do, in any order, and compares it with the model.

Two drivers are driven: a real server through the public API, and the server's books without any I/O.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.core.controlmodel import PERSISTENT, Model

TOPICS = st.sampled_from("ABCDE")
UNITS = st.sampled_from(["U", "V", "W"])
UNIT_SETS = st.sets(UNITS, max_size=2)
GAINS = st.integers(0, 9)
KINDS = st.sampled_from(["topology", "settings"])
MOST = 3
"""Sessions, processes and streams at a time."""

FUZZ = int(os.environ.get("FUZZ", "1"))
TIMEOUT_S = 600 * FUZZ
"""Of a machine: a failure that is made smaller takes its time."""

Events = list[tuple[Any, ...]]


def fuzzing(examples: int, steps: int) -> hypothesis.settings:
    """Settings of a machine; `FUZZ=100` in the environment makes a hundred times as many examples."""
    return hypothesis.settings(
        max_examples=examples * FUZZ,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


class Driver(Protocol):
    """What is tested. Ids are those that its users see."""

    first_session: str
    """The session through which it looks; it owns nothing."""

    def open_session(self) -> str: ...
    def end_session(self, session: str, how: str) -> None: ...
    def revert(self, session: str) -> None: ...
    def connect(self, owner: str, a: str, b: str) -> None: ...
    def disconnect(self, owner: str, a: str, b: str) -> None: ...
    def register_metadata(self, session: str, components: dict[str, int]) -> None: ...
    def input_topic(self, address: str) -> str: ...
    def open_process(self) -> str: ...
    def end_process(self, process: str, how: str) -> None: ...
    def register(self, process: str, units: set[str]) -> None: ...
    def update(self, process: str, added: set[str], removed: set[str]) -> None: ...
    def report(self, process: str, unit: str, gain: int) -> None: ...
    def ask(self, unit: str, process: str | None) -> str | None: ...
    def open_stream(self, kind: str, after_seq: int) -> Any: ...
    def read(self, stream: Any, count: int) -> Events: ...
    def close_stream(self, stream: Any) -> None: ...
    def snapshot(self) -> dict[str, Any]: ...
    def values(self) -> dict[str, int | None]: ...
    def settings_events(self, after_seq: int) -> Events: ...
    def close(self) -> None: ...


def chosen(name: str) -> st.SearchStrategy[Any]:
    """One of the sessions, processes or streams that there are."""
    return st.runner().flatmap(lambda machine: st.sampled_from(list(getattr(machine, name))))


def owners() -> st.SearchStrategy[str]:
    return st.runner().flatmap(lambda machine: st.sampled_from([PERSISTENT, *machine.sessions]))


def edges() -> st.SearchStrategy[tuple[str, str]]:
    """One of the edges that there are, or one that need not be there."""
    return st.runner().flatmap(lambda machine: st.sampled_from([("A", "B"), *sorted(machine.model.owners)]))


def claims() -> st.SearchStrategy[tuple[str, str]]:
    """A process and a unit, mostly one that it owns."""
    return st.runner().flatmap(
        lambda machine: st.sampled_from(
            [
                (process, unit)
                for process in machine.processes
                for unit in [*sorted(machine.model.processes[process]), "U"]
            ]
        )
    )


def there_are(name: str) -> Callable[[Any], Any]:
    return precondition(lambda machine: bool(getattr(machine, name)))


def there_is_room(name: str) -> Callable[[Any], Any]:
    return precondition(lambda machine: len(getattr(machine, name)) < MOST)


class ControlMachine(RuleBasedStateMachine):
    """Subclasses say what is driven."""

    def make(self) -> Driver:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.driver = self.make()
        self.model = Model()
        self.sessions: list[str] = []
        self.processes: list[str] = []
        # Each stream with its kind, and how many events it has had or skipped.
        self.streams: dict[int, tuple[Any, str, int]] = {}
        self._next_stream = 0
        self.model.sessions[self.driver.first_session] = None

    def both(self, what: str, *arguments: Any) -> None:
        """Do it to the driver and to the model: both refuse it, for the same reason, or none does."""
        assert self._outcome(self.driver, what, arguments) == self._outcome(self.model, what, arguments)

    def _outcome(self, whose: Any, what: str, arguments: tuple[Any, ...]) -> Any:
        try:
            return getattr(whose, what)(*arguments)
        except Exception as error:
            if not hasattr(error, "code"):
                raise
            return type(error)

    # -- sessions and edges -------------------------------------------------------------------------------------------

    @initialize(sessions=st.integers(0, 2), processes=st.integers(0, 2))
    def begin(self, sessions: int, processes: int) -> None:
        for _ in range(sessions):
            self.open_session()
        for _ in range(processes):
            self.open_process()

    @there_is_room("sessions")
    @rule()
    def open_session(self) -> None:
        session = self.driver.open_session()
        self.sessions.append(session)
        self.model.sessions[session] = None

    @there_are("sessions")
    @rule(session=chosen("sessions"), how=st.sampled_from(["exit", "close", "kill"]))
    def end_session(self, session: str, how: str) -> None:
        self.sessions.remove(session)
        self.driver.end_session(session, how)
        self.model.end_session(session)

    @there_are("sessions")
    @rule(session=chosen("sessions"))
    def revert(self, session: str) -> None:
        self.both("revert", session)

    @rule(owner=owners(), a=TOPICS, b=TOPICS)
    def connect(self, owner: str, a: str, b: str) -> None:
        self.both("connect", owner, a, b)

    @rule(owner=owners(), edge=edges())
    def disconnect(self, owner: str, edge: tuple[str, str]) -> None:
        self.both("disconnect", owner, *edge)

    # -- metadata -----------------------------------------------------------------------------------------------------

    @there_are("sessions")
    @rule(session=chosen("sessions"), components=st.dictionaries(UNITS, GAINS, max_size=2))
    def register_metadata(self, session: str, components: dict[str, int]) -> None:
        self.both("register_metadata", session, components)

    @precondition(lambda machine: any(machine.model.sessions.values()))
    @rule(address=UNITS)
    def input_topic(self, address: str) -> None:
        self.both("input_topic", address)

    # -- processes ----------------------------------------------------------------------------------------------------

    @there_is_room("processes")
    @rule()
    def open_process(self) -> None:
        process = self.driver.open_process()
        self.processes.append(process)
        self.model.processes[process] = set()

    @there_are("processes")
    @rule(process=chosen("processes"), how=st.sampled_from(["close", "kill"]))
    def end_process(self, process: str, how: str) -> None:
        self.processes.remove(process)
        self.driver.end_process(process, how)
        self.model.end_process(process)

    @there_are("processes")
    @rule(process=chosen("processes"), units=UNIT_SETS)
    def register(self, process: str, units: set[str]) -> None:
        self.both("register", process, units)

    @there_are("processes")
    @rule(process=chosen("processes"), added=UNIT_SETS, removed=UNIT_SETS)
    def update(self, process: str, added: set[str], removed: set[str]) -> None:
        self.both("update", process, added, removed)

    @there_are("processes")
    @rule(claim=claims(), gain=GAINS)
    def report(self, claim: tuple[str, str], gain: int) -> None:
        self.both("report", *claim, gain)

    @precondition(lambda machine: any(machine.model.processes.values()))
    @rule(claim=claims(), gain=GAINS)
    def report_again(self, claim: tuple[str, str], gain: int) -> None:
        self.both("report", *claim, gain)

    @there_are("processes")
    @rule(process=st.none() | chosen("processes"), unit=UNITS)
    def ask(self, process: str | None, unit: str) -> None:
        assert self.driver.ask(unit, process) == (process or self.model.owner(unit))

    # -- streams ------------------------------------------------------------------------------------------------------

    @there_is_room("streams")
    @rule(kind=KINDS, back=st.integers(0, 6))
    def open_stream(self, kind: str, back: int) -> None:
        after_seq = max(0, len(self.model.events[kind]) - back)
        self.streams[self._next_stream] = (self.driver.open_stream(kind, after_seq), kind, after_seq)
        self._next_stream += 1

    @there_are("streams")
    @rule(stream=chosen("streams"), most=st.integers(1, 8))
    def read(self, stream: int, most: int) -> None:
        handle, kind, seen = self.streams[stream]
        expected = self.model.events[kind][seen : seen + most]
        assert self.driver.read(handle, len(expected)) == expected
        self.streams[stream] = (handle, kind, seen + len(expected))

    @there_are("streams")
    @rule(stream=chosen("streams"))
    def close_stream(self, stream: int) -> None:
        self.driver.close_stream(self.streams.pop(stream)[0])

    # -- what is compared ---------------------------------------------------------------------------------------------

    @invariant()
    def everybody_sees_what_the_model_says(self) -> None:
        assert self.driver.snapshot() == self.model.snapshot()
        assert list(self.driver.values().items()) == list(self.model.values().items())

    @rule(after_seq=st.integers(-1, 40))
    def settings_events(self, after_seq: int) -> None:
        assert self.driver.settings_events(after_seq) == self.model.events["settings"][max(0, after_seq) :]

    def teardown(self) -> None:
        try:
            for stream in list(self.streams):
                self.read(stream, 1000)
        finally:
            self.driver.close()
