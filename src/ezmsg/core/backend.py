"""Runs units: `run`, GraphRunner, and the ExecutionContext that says what would run where."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Collection as AbstractCollection
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Self, cast

from ezmsg.core import config
from ezmsg.core.backendprocess import BackendProcess, DefaultBackendProcess
from ezmsg.core.collection import Collection, NetworkDefinition
from ezmsg.core.component import Component, ComponentMeta
from ezmsg.core.declaration import attributes
from ezmsg.core.errors import ConfigError, GraphRunnerStartError, InvalidComponents, RunnerMisused
from ezmsg.core.graphmeta import GraphMetadata
from ezmsg.core.net.address import AddressType
from ezmsg.core.net.forking import put_off
from ezmsg.core.runtime.coordinator import Outcome
from ezmsg.core.runtime.launch import launch
from ezmsg.core.runtime.leaving import leave
from ezmsg.core.runtime.loopthread import LoopThread
from ezmsg.core.runtime.mainthread import MainThread
from ezmsg.core.runtime.members import BackendMember, LocalMember, Member
from ezmsg.core.runtime.metadata import graph_metadata
from ezmsg.core.runtime.preparation import prepare, walk
from ezmsg.core.runtime.run import Run
from ezmsg.core.runtime.signals import Interrupts
from ezmsg.core.telemetry import pump
from ezmsg.core.unit import Unit

__all__ = ["ExecutionContext", "GraphRunner", "GraphRunnerStartError", "run", "run_system"]

logger = logging.getLogger("ezmsg")

PROFILER_ENV = "EZMSG_PROFILER"
DEFAULT_PROFILER_LOG = "ezprofiler.log"
# For tasks that units began and left; a loop that is blocked is left behind.
LOOP_S = 2.0


@dataclass(frozen=True)
class ExecutionContext:
    """What a run consists of.

    Attributes:
        connections: All edges, as pairs of addresses.
        units: The units of each process; the first is the calling process.
    """

    connections: list[tuple[str, str]]
    units: list[list[Unit]]

    @classmethod
    def setup(
        cls,
        components: Mapping[str, Component],
        root_name: str | None = None,
        connections: NetworkDefinition | None = None,
        process_components: AbstractCollection[Component] | None = None,
        force_single_process: bool = False,
        start_participant: bool = False,
    ) -> Self | None:
        """Name, place, connect and configure components, once and for all; nothing is started.

        Args:
            components: By name.
            root_name: First part of all addresses.
            connections: Edges, besides those of the components.
            process_components: Which of the components get a process of their own.
            force_single_process: Whether all units share one process.
            start_participant: Ignored.

        Returns:
            What would run; None if there are no units.
        """
        del start_participant
        prepared = prepare(components, root_name, connections, process_components, force_single_process)
        return None if prepared is None else cls(prepared.connections, prepared.processes)


class _Phase(Enum):
    NEW = "was not started"
    RUNNING = "is running"
    OVER = "has ended"


class GraphRunner:
    """Runs a graph of components, once.

    Args:
        components: By name, or as keywords. One alone, without a name, is called SYSTEM (deprecated).
        root_name: First part of all addresses.
        connections: Edges, besides those of the components.
        process_components: Which of the components get a process of their own.
        backend_process: What the processes are made of.
        graph_address: Of a GraphServer that is there; None for the default, where one is started if there is none.
        force_single_process: Whether all units share the calling process.
        profiler_log_name: What EZMSG_PROFILER is set to.
        **components_kwargs: Components by name.

    Raises:
        InvalidComponents: Components are given in two ways, or in none of these (a ValueError).
    """

    def __init__(
        self,
        components: Mapping[str, Component] | None = None,
        root_name: str | None = None,
        connections: NetworkDefinition | None = None,
        process_components: AbstractCollection[Component] | None = None,
        backend_process: type[BackendProcess] = DefaultBackendProcess,
        graph_address: AddressType | None = None,
        force_single_process: bool = False,
        profiler_log_name: str | None = None,
        **components_kwargs: Component,
    ) -> None:
        self._components = _named(components, components_kwargs)
        self._root_name = root_name
        self._connections = connections
        self._process_components = process_components
        self._backend_process = backend_process
        self._graph_address = graph_address
        self._force_single_process = force_single_process
        self._profiler_log_name = profiler_log_name
        self._strict: bool | None = None
        self._phase = _Phase.NEW
        self._context: ExecutionContext | None = None
        self._processes: list[BackendProcess] | None = None
        self._run: Run | None = None
        # The thread of the units that run in this process; None if there is none.
        self._host: LoopThread | None = None
        self._interrupted: tuple[int, int] | None = None

    def __repr__(self) -> str:
        return f"<GraphRunner {', '.join(self._components)} {self._phase.value}>"

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether server, session and processes are all up, and the run has not ended; from any thread."""
        return self._run is not None and self._run.is_running

    @property
    def processes(self) -> list[BackendProcess]:
        """The processes; with `run_blocking` the first is the calling one.

        Raises:
            RunnerMisused: It was not started (a ValueError).
        """
        if self._processes is None:
            raise RunnerMisused("GraphRunner has no processes before it was started")
        return list(self._processes)

    @property
    def connections(self) -> list[tuple[str, str]]:
        """All edges as pairs of addresses; empty before it was started."""
        return [] if self._context is None else list(self._context.connections)

    @property
    def graph_address(self) -> AddressType | None:
        """Of the GraphServer: as given, and of the one that was started if that is so."""
        return self._graph_address if self._run is None else self._run.graph_address

    @property
    def graph_server_spawned(self) -> bool:
        """Whether this run started the GraphServer."""
        return self._run is not None and self._run.has_started_server

    @property
    def strict_shutdown(self) -> bool:
        """Whether nothing is suppressed and nobody left behind at the end: EZMSG_STRICT_SHUTDOWN, unless it was set."""
        return config.strict_shutdown() if self._strict is None else self._strict

    @strict_shutdown.setter
    def strict_shutdown(self, strict: bool) -> None:
        self._strict = strict

    def _component_metadata(self) -> GraphMetadata:
        return graph_metadata(self._root_name, self._components.values())

    # -- running ------------------------------------------------------------------------------------------------------

    def run_blocking(self) -> None:
        """Run the graph, and wait until all of it has ended; the first of its processes is this one.

        SIGINT and SIGTERM end it in order, and at once when they come twice; this process then dies of the signal if
        the end was not clean.

        Raises:
            RunnerMisused: It runs or ran before.
            ServerUnreachable: There is no GraphServer, and none may be started.
            CyclicException: The connections make a cycle.
            BackendProcessLost: A process died.
            Exception: What a unit raised while it was set up.
        """
        processes = self._begin()
        if not processes:
            return
        main_thread = MainThread()
        with Interrupts(main_thread, self._interrupt):
            outcome = self._run_here(processes, main_thread)
        leave(outcome)

    def start(self) -> None:
        """Run the graph in other processes; returns when its tasks have begun.

        Raises:
            ValueError: All units were to share the calling process.
            GraphRunnerStartError: A unit could not be set up.
            Exception: As `run_blocking`.
        """
        if self._force_single_process:
            raise RunnerMisused("GraphRunner.start() needs other processes: force_single_process is for run_blocking()")
        processes = self._begin()
        if not processes:
            return
        with contextlib.ExitStack() as signals:
            signals.enter_context(put_off())
            run = self._start_run(self._launch(processes), lambda: None)
            atexit.register(self._stop_at_exit)
            try:
                signals.close()
                has_started = run.wait_started()
            except BaseException:  # KeyboardInterrupt, or what a signal handler of the program raises
                self.stop()
                raise
        if has_started:
            # Again, to be called before what ends a server that began meanwhile.
            atexit.unregister(self._stop_at_exit)
            atexit.register(self._stop_at_exit)
        else:
            outcome = self._finish(run)
            error = outcome.error
            if error is not None and outcome.is_of_process:
                raise GraphRunnerStartError(type(error).__name__, str(error)) from error
            if error is not None:
                raise error

    def stop(self) -> None:
        """End the run in order, and wait for its end; a task of the run does not wait, for the run waits for it.

        Raises:
            RunnerMisused: It is not running.
        """
        run = self._run
        if self._phase is not _Phase.RUNNING or run is None:
            raise RunnerMisused("GraphRunner is not running")
        run.interrupt()
        if self._host is not None:
            if not self._host.is_current:
                run.wait_over()
        elif (error := self._finish(run).error) is not None:
            logger.error("the run had ended with an error", exc_info=error)

    # -- beneath ------------------------------------------------------------------------------------------------------

    def _begin(self) -> list[BackendProcess]:
        """Prepare everything; the processes, none of them started."""
        if self._phase is not _Phase.NEW:
            is_over = self._phase is _Phase.OVER
            raise RunnerMisused("GraphRunner cannot be restarted" if is_over else "GraphRunner is already running")
        self._phase = _Phase.RUNNING
        try:
            if not _is_backend(self._backend_process):
                expected = "a subclass of ezmsg.core.backendprocess.BackendProcess, such as DefaultBackendProcess"
                raise ConfigError("backend_process", self._backend_process, expected)
            profiler_log = _log_name(self._profiler_log_name)
            self._context = ExecutionContext.setup(
                self._components, self._root_name, self._connections,
                self._process_components, self._force_single_process,
            )  # fmt: skip
            self._processes = [] if self._context is None else self._make_processes(self._context.units)
        except BaseException:
            self._phase = _Phase.OVER
            raise
        if not self._processes:
            self._phase = _Phase.OVER
            if self._components:
                logger.warning("nothing runs: there is no unit in %s%s", ", ".join(self._components), self._forgotten())
        os.environ[PROFILER_ENV] = profiler_log
        return self._processes

    def _forgotten(self) -> str:
        """A hint at classes of components that are declared where an object of them is meant."""
        names = [
            f"{type(component).__qualname__}.{name} is a class: make one, {cls.__name__}()"
            for component in walk(self._components.values())
            for name, cls in attributes(type(component), lambda value: isinstance(value, ComponentMeta)).items()
        ]
        return f" ({'; '.join(names)})" if names else ""

    def _make_processes(self, groups: list[list[Unit]]) -> list[BackendProcess]:
        name = pump.process_name(self._root_name)
        names = [name, *(f"{name}/{_short(units)}" for units in groups[1:])]
        return [
            self._backend_process(units, name, self.strict_shutdown) for units, name in zip(groups, names, strict=True)
        ]

    def _launch(self, processes: list[BackendProcess]) -> list[BackendMember]:
        try:
            return launch(processes)
        except BaseException:
            self._phase = _Phase.OVER
            raise

    def _run_here(self, processes: list[BackendProcess], main_thread: MainThread) -> Outcome:
        """Run the first process in this one, and the others beside it."""
        first, *others = processes
        with contextlib.ExitStack() as signals:
            # Between the start of processes and a run that sees to their end no handler of the program may raise.
            signals.enter_context(put_off())
            backends = self._launch(others)
            host = self._host = LoopThread("ezmsg units", strict=first.strict)
            host.start()
            make = partial(first.participant, host=host, main_thread=main_thread)
            local = LocalMember(host, make, [unit.address for unit in first.units])
            try:
                with pump.named(first.name):
                    run = self._start_run([local, *backends], main_thread.end)
                    outcome = self._serve(main_thread, run, signals.close)
            except BaseException:
                host.stop(LOOP_S)
                raise
        if not outcome.is_forced:
            host.stop(0.0 if local.is_given_up else None if first.strict else LOOP_S)
        return outcome

    def _start_run(self, members: Sequence[Member], on_end: Callable[[], object]) -> Run:
        assert self._context is not None
        run = self._run = Run(
            members, self._graph_address, self._context.connections, self._component_metadata, on_end,
            self.strict_shutdown,
        )  # fmt: skip
        if self._interrupted is not None:
            run.interrupt(*self._interrupted)
        return run

    def _interrupt(self, count: int, number: int) -> None:
        self._interrupted = count, number
        if self._run is not None:
            self._run.interrupt(count, number)

    def _serve(self, main_thread: MainThread, run: Run, hear_signals: Callable[[], object]) -> Outcome:
        """Lend this thread to a `main` function, until the run has ended."""
        try:
            hear_signals()
            main_thread.serve()
        except BaseException:  # what a signal handler of the program raises
            run.interrupt()
            self._finish(run)
            raise
        return self._finish(run)

    def _finish(self, run: Run) -> Outcome:
        outcome = run.finish()
        self._phase = _Phase.OVER
        atexit.unregister(self._stop_at_exit)
        for process in self._processes or ():
            process.release()
        return outcome

    def _stop_at_exit(self) -> None:
        # Before multiprocessing waits for the processes, which end only when they are told to.
        if self._phase is _Phase.RUNNING:
            self.stop()


def _is_backend(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BackendProcess)


def _log_name(value: object) -> str:
    if value is None or value == "":
        return DEFAULT_PROFILER_LOG
    if not isinstance(value, str) or "\0" in value:
        raise ConfigError("profiler_log_name", value, "the name of a file")
    return value


def _named(components: object, keywords: dict[str, Component]) -> dict[str, Component]:
    if components is None:
        return keywords
    if keywords:
        raise InvalidComponents("components are given both as an argument and as keywords")
    if isinstance(components, Component):
        logger.warning("run(component) is deprecated: use run(SYSTEM=component)")
        return {"SYSTEM": components}
    if not isinstance(components, Mapping):
        raise InvalidComponents(f"components is a {type(components).__name__}")
    return dict(cast(Mapping[str, Component], components))


def _short(units: list[Unit]) -> str:
    return units[0].name if len(units) == 1 else f"{units[0].name}+{len(units) - 1}"


def run(
    components: Mapping[str, Component] | None = None,
    root_name: str | None = None,
    connections: NetworkDefinition | None = None,
    process_components: AbstractCollection[Component] | None = None,
    backend_process: type[BackendProcess] = DefaultBackendProcess,
    graph_address: AddressType | None = None,
    force_single_process: bool = False,
    profiler_log_name: str | None = None,
    **components_kwargs: Component,
) -> None:
    """Run a graph of components, and wait until all of it has ended. Takes and raises what GraphRunner does."""
    GraphRunner(
        components, root_name, connections, process_components, backend_process, graph_address,
        force_single_process, profiler_log_name, **components_kwargs,
    ).run_blocking()  # fmt: skip


def run_system(
    system: Collection,
    num_buffers: int = 32,
    init_buf_size: int = 65536,
    backend_process: type[BackendProcess] = DefaultBackendProcess,
) -> None:
    """Deprecated: `run(SYSTEM=system)`. The sizes of buffers are those of the streams."""
    del num_buffers, init_buf_size
    run(SYSTEM=system, backend_process=backend_process)
