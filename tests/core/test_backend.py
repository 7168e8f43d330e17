"""`run` and GraphRunner: what runs where, what travels, and what is left."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import ezmsg.core as ez
from ezmsg.core import backend
from ezmsg.core.backend import ExecutionContext
from ezmsg.core.control import ControlClient
from ezmsg.core.dag import CyclicException
from ezmsg.core.errors import (
    BackendProcessFailed,
    BackendProcessLost,
    ConfigError,
    NotSpawnable,
    SeveralMains,
    StateNotInitialized,
)
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.telemetry import pump
from ezmsg.core.wire.records import Done, OpenTelemetryReader, ProcessTelemetry, Record, StreamOpened
from tests import leaks
from tests.core.rununits import (
    Burst,
    Chain,
    Collector,
    Counter,
    CounterSettings,
    Dies,
    ElsewhereSettings,
    FailsInSetup,
    FailsOddly,
    Idle,
    PidOf,
    PublishesElsewhere,
    WaitsInSetup,
)
from tests.ports import KeptPort

DEADLINE_S = 40


@pytest.fixture
def unused_tcp_port() -> Iterator[int]:
    with KeptPort() as port:
        yield port.address.port


@pytest.fixture(params=["fork", "spawn"])
def method(request: pytest.FixtureRequest) -> Iterator[str]:
    """How processes are started."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


@pytest.fixture
def address(server: GraphServer) -> str:
    return str(server.address)


# -- one process ------------------------------------------------------------------------------------------------------


def test_run_returns_when_all_tasks_have_ended() -> None:
    chain = Chain()

    ez.run(CHAIN=chain)

    assert chain.SINK.received == [0, 1, 2]


def test_runs_one_after_the_other_in_one_interpreter() -> None:
    for count in (1, 2, 3):
        chain = Chain(count)
        ez.run(CHAIN=chain)
        assert chain.SINK.received == list(range(count))


def test_run_works_from_another_thread() -> None:
    chain = Chain()
    thread = threading.Thread(target=ez.run, kwargs={"CHAIN": chain}, daemon=True)
    thread.start()
    thread.join(DEADLINE_S)

    assert not thread.is_alive()
    assert chain.SINK.received == [0, 1, 2]


async def test_run_works_from_a_thread_of_an_event_loop() -> None:
    chain = Chain()

    await asyncio.to_thread(ez.run, CHAIN=chain)

    assert chain.SINK.received == [0, 1, 2]


def test_run_leaves_signal_handlers_as_they_were() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    ez.run(CHAIN=Chain())

    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_run_leaves_handlers_of_the_program_alone() -> None:
    heard: list[int] = []

    class Asks(ez.Unit):
        @ez.task
        async def ask(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            raise ez.Complete

    before = signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
    try:
        ez.run(A=Asks())
    finally:
        signal.signal(signal.SIGTERM, before)

    assert heard == [signal.SIGTERM]


def test_one_interrupt_ends_a_run_that_a_coroutine_began_and_the_coroutine_goes_on() -> None:
    class Asks(ez.Unit):
        @ez.task
        async def ask(self) -> None:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            await asyncio.Event().wait()

    async def program() -> str:
        ez.run(A=Asks())
        await asyncio.sleep(0)
        return "goes on"

    assert asyncio.run(program()) == "goes on"


@pytest.mark.parametrize("way", ["run_blocking", "start"])
def test_an_exception_of_a_signal_handler_before_the_run_has_begun_leaves_no_process_behind(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Run(backend.Run):
        """Begins when the processes are there already, and nobody else would see to their end."""

        def __init__(self, *arguments: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            super().__init__(*arguments)

    monkeypatch.setattr(backend, "Run", Run)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        runner = ez.GraphRunner(CHAIN=Chain(is_split=True))
        with pytest.raises(KeyboardInterrupt):
            getattr(runner, way)()
    finally:
        signal.signal(signal.SIGTERM, before)
    # The leak guard looks for processes.


def test_an_exception_of_a_signal_handler_ends_the_run_and_leaves_it() -> None:
    class Alarm(Exception):
        pass

    def handler(_number: int, _frame: object) -> None:
        raise Alarm

    class Asks(Idle):
        @ez.task
        async def ask(self) -> None:
            os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(Alarm):
            ez.run(A=Asks())
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_run_names_the_log_of_the_profiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EZMSG_PROFILER", raising=False)
    ez.run(CHAIN=Chain())
    assert os.environ["EZMSG_PROFILER"] == "ezprofiler.log"

    ez.run(CHAIN=Chain(), profiler_log_name="mine.log")
    assert os.environ["EZMSG_PROFILER"] == "mine.log"


def test_components_come_as_keywords_or_as_one_mapping(caplog: pytest.LogCaptureFixture) -> None:
    chain = Chain()
    ez.run({"CHAIN": chain})
    assert chain.address == "CHAIN"

    with pytest.raises(ValueError, match="both"):
        ez.run({"A": Chain()}, B=Chain())
    with pytest.raises(ValueError, match="list"):
        ez.run([Chain()])  # pyright: ignore[reportArgumentType]

    alone = Chain()
    ez.run(alone)  # pyright: ignore[reportArgumentType]
    assert alone.address == "SYSTEM"
    assert "deprecated" in caplog.text


@pytest.mark.parametrize(
    ("argument", "value"),
    [("backend_process", int), ("profiler_log_name", 5), ("graph_address", "nowhere"), ("root_name", 5)],
)
def test_an_argument_that_cannot_be_used_is_refused_with_what_is_expected(argument: str, value: Any) -> None:
    arguments: dict[str, Any] = {argument: value}
    with pytest.raises(ConfigError, match="cannot be used: expected") as caught:
        ez.run(UNIT=Idle(), **arguments)
    assert caught.value.value == str(value)


def test_without_components_there_is_nothing_to_run() -> None:
    ez.run()
    ez.run({})


def test_a_run_without_units_says_so_and_of_a_class_that_should_be_an_object(caplog: pytest.LogCaptureFixture) -> None:
    class Forgetful(ez.Collection):
        CHILD = Counter

    ez.run(A=ez.Collection(), B=Forgetful())

    assert [record.getMessage() for record in caplog.records] == [
        f"nothing runs: there is no unit in A, B ({Forgetful.__qualname__}.CHILD is a class: make one, Counter())"
    ]


def test_a_stream_that_cannot_be_opened_is_named() -> None:
    class Wrong(Counter):
        async def initialize(self) -> None:
            self.OUTPUT.num_buffers = 0

    with pytest.raises(ValueError, match="num_buffers") as caught:
        ez.run(WRONG=Wrong())

    assert "raised while WRONG/OUTPUT was opened" in caught.value.__notes__


@pytest.mark.parametrize("address", [5, ("127.0.0.1", 1 << 16), ("127.0.0.1",), "nowhere"])
def test_what_is_no_address_is_refused(address: Any) -> None:
    with pytest.raises(ValueError, match="address"):
        ez.run(COUNTER=Counter(), graph_address=address)


def test_run_system_runs_a_system() -> None:
    chain = Chain()

    ez.run_system(chain)

    assert chain.address == "SYSTEM"
    assert chain.SINK.received == [0, 1, 2]


def test_root_name_and_connections_are_those_of_the_run() -> None:
    source, sink = Counter(), Collector()

    ez.run(
        SOURCE=source, SINK=sink, root_name="ROOT", connections=[(source.OUTPUT, "between"), ("between", sink.INPUT)]
    )

    assert source.address == "ROOT/SOURCE"
    assert sink.received == [0, 1, 2]


# -- placement --------------------------------------------------------------------------------------------------------


class Pids(ez.Collection):
    """Three units that tell their process; A and B in processes of their own, C and SINK in the calling one."""

    A, B, C = PidOf(), PidOf(), PidOf()
    SINK = Collector()

    def configure(self) -> None:
        self.SINK.apply_settings(CounterSettings(3))

    def network(self) -> ez.NetworkDefinition:
        return [(unit.OUTPUT, self.SINK.INPUT) for unit in (self.A, self.B, self.C)]

    def process_components(self) -> tuple[ez.Component, ...]:
        return self.A, self.B


def test_units_run_in_the_processes_they_are_placed_in(method: str) -> None:
    pids = Pids()

    ez.run(PIDS=pids)

    found = dict(pids.SINK.received)
    assert found["C"] == os.getpid()
    assert len({*found.values()}) == 3


def sockets() -> set[str]:
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return {name for link in links if os.path.lexists(link) and (name := os.readlink(link)).startswith("socket:")}


def test_a_forked_process_keeps_no_socket_of_this_one() -> None:
    foreign = sockets()
    server = GraphServer()
    server.start("127.0.0.1:0")

    class Looks(PidOf):
        async def initialize(self) -> None:
            self.sockets = sockets() - foreign

        @ez.publisher(PidOf.OUTPUT)
        async def publish(self) -> AsyncIterator[Any]:
            yield self.OUTPUT, self.sockets
            raise ez.Complete

    first, second, sink = Looks(), Looks(), Collector(CounterSettings(2))
    ez.run(
        FIRST=first, SECOND=second, SINK=sink, graph_address=server.address, process_components=[first, second],
        connections=[(first.OUTPUT, sink.INPUT), (second.OUTPUT, sink.INPUT)],
    )  # fmt: skip

    # Its line to this process, what wakes its event loop, and the pair of asyncio that wakes the server's.
    assert [len(found) for found in sink.received] == [5, 5]
    server.stop()


def test_processes_are_called_in_telemetry_as_the_run_and_their_units() -> None:
    class Named(PidOf):
        @ez.publisher(PidOf.OUTPUT)
        async def publish(self) -> AsyncIterator[Any]:
            yield self.OUTPUT, (self.name, pump.process_name())
            raise ez.Complete

    before = pump.process_name()
    a, b, c, sink = Named(), Named(), Named(), Collector(CounterSettings(3))
    ez.run(
        {"A": a, "B": b, "C": c, "SINK": sink}, root_name="ROOT", process_components=[b],
        connections=[(unit.OUTPUT, sink.INPUT) for unit in (a, b, c)],
    )  # fmt: skip

    assert dict(sink.received) == {"A": "ROOT", "B": "ROOT/B", "C": "ROOT"}
    assert pump.process_name() == before


def test_force_single_process_runs_everything_here() -> None:
    pids = Pids()

    ez.run(PIDS=pids, force_single_process=True)

    assert {*dict(pids.SINK.received).values()} == {os.getpid()}


def test_process_components_of_the_run_get_processes_of_their_own() -> None:
    alone, sink = PidOf(), Collector(CounterSettings(1))

    ez.run(ALONE=alone, SINK=sink, connections=[(alone.OUTPUT, sink.INPUT)], process_components=[alone])

    assert sink.received[0][1] != os.getpid()


def test_messages_before_complete_all_arrive_in_other_processes(method: str) -> None:
    chain = Chain(200, is_split=True)

    ez.run(CHAIN=chain)

    assert chain.SINK.received == list(range(200))


def test_processes_run_from_another_thread(method: str) -> None:
    chain = Chain(is_split=True)
    thread = threading.Thread(target=ez.run, kwargs={"CHAIN": chain}, daemon=True)
    thread.start()
    thread.join(DEADLINE_S)

    assert not thread.is_alive()
    assert chain.SINK.received == [0, 1, 2]


def test_two_main_functions_in_one_process_are_refused() -> None:
    class HasMain(ez.Unit):
        @ez.main
        def main(self) -> None:
            pass

    with pytest.raises(SeveralMains, match="Process has more than one main-thread functions"):
        ez.run(A=HasMain(), B=HasMain())


# -- the server -------------------------------------------------------------------------------------------------------


def test_run_connects_to_the_server_that_is_there_and_leaves_nothing_on_it(server: GraphServer) -> None:
    runner = ez.GraphRunner(CHAIN=Chain(is_split=True), graph_address=server.address)

    runner.run_blocking()

    assert not runner.graph_server_spawned

    async def look() -> Any:
        async with ez.GraphContext(server.address) as context:
            return await context.snapshot(), await context.settings_snapshot()

    snapshot, settings = asyncio.run(look())
    assert snapshot.graph == {}
    assert snapshot.processes == {}
    assert len(snapshot.sessions) == 1
    assert settings == {}


def test_a_server_that_is_not_there_ends_the_run_and_its_processes(unused_tcp_port: int) -> None:
    with pytest.raises(OSError, match=str(unused_tcp_port)):
        ez.run(CHAIN=Chain(is_split=True), graph_address=("127.0.0.1", unused_tcp_port))


def test_a_cycle_ends_the_run_and_its_processes(address: str) -> None:
    with pytest.raises(CyclicException):
        ez.run(CHAIN=Chain(is_split=True), graph_address=address, connections=[("a", "b"), ("b", "a")])


def test_a_second_run_of_the_same_components_is_refused_and_the_first_goes_on(address: str) -> None:
    first = ez.GraphRunner(IDLE=Idle(), graph_address=address)
    first.start()
    try:
        with pytest.raises(RuntimeError, match="PROCESS_REGISTER"):
            ez.run(IDLE=Idle(), graph_address=address)
        assert first.running
    finally:
        first.stop()


def test_units_of_a_run_are_reached_by_clients_of_other_loops(server: GraphServer) -> None:
    sink = Collector(CounterSettings(3))

    async def publish() -> None:
        running = asyncio.create_task(asyncio.to_thread(ez.run, SINK=sink, graph_address=server.address))
        async with ez.GraphContext(server.address) as context:
            publisher = await context.publisher("OUTSIDE")
            await context.connect("OUTSIDE", "SINK/INPUT")
            number = 0
            while not running.done():
                await publisher.broadcast(number)
                number += 1
                await asyncio.sleep(0.01)
            await running

    asyncio.run(asyncio.wait_for(publish(), DEADLINE_S))
    assert len(sink.received) == 3


def test_who_is_in_the_graph_of_a_run_gets_what_was_published_last_though_its_server_ends_with_it() -> None:
    burst = Burst(CounterSettings(32))
    runner = ez.GraphRunner(IDLE=Idle(), BURST=burst, process_components=[burst])
    received: list[int] = []

    async def listen() -> None:
        run = asyncio.create_task(asyncio.to_thread(runner.run_blocking))
        while not runner.running:
            await asyncio.sleep(0.005)
        assert runner.graph_server_spawned
        async with ez.GraphContext(runner.graph_address) as context:
            # A process registers its units when their streams are open: before, they would miss what they are told.
            while not any("BURST" in process.units for process in (await context.snapshot()).processes.values()):
                await asyncio.sleep(0.005)
            subscriber = await context.subscriber("BURST/OUTPUT")
            publisher = await context.publisher("BURST/INPUT")
            await publisher.broadcast("go")
            while len(received) < 32:
                received.append(await subscriber.recv())
        await run

    asyncio.run(asyncio.wait_for(listen(), DEADLINE_S))
    assert received == list(range(32))


class Exporter:
    """Hears what processes tell a graph."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[Record] = asyncio.Queue()

    def on_request(self, connection: Any, record: Record) -> Record:
        return Done()

    def on_notice(self, connection: Any, record: Record) -> None:
        self.told.put_nowait(record)

    def on_closed(self, connection: Any, error: Exception | None) -> None: ...


def test_another_graph_is_told_all_that_units_did_there_though_the_run_ends_with_its_own_server(address: str) -> None:
    unit = PublishesElsewhere(ElsewhereSettings(address, 5))
    runner = ez.GraphRunner(UNIT=unit, IDLE=Idle(), process_components=[unit])
    sent: list[float] = []

    async def listen() -> None:
        exporter = Exporter()
        client = await ControlClient.connect(address, exporter, name="exporter")
        await client.request(OpenTelemetryReader("exporter", 1000), StreamOpened)
        await asyncio.to_thread(runner.run_blocking)
        assert runner.graph_server_spawned
        is_final = False
        while not is_final:
            record = await exporter.told.get()
            if isinstance(record, ProcessTelemetry):
                sent.extend(state.values["sent"] for state in record.batch.counters if "sent" in state.values)
                is_final = record.batch.final
        await client.close()

    asyncio.run(asyncio.wait_for(listen(), DEADLINE_S))
    assert sent[-1] == 5


# -- failures ---------------------------------------------------------------------------------------------------------


def test_an_exception_in_setup_leaves_run() -> None:
    with pytest.raises(ValueError, match="no such device") as caught:
        ez.run(A=FailsInSetup())
    assert "A was set up" in "".join(caught.value.__notes__)


def test_a_process_that_fails_in_setup_ends_the_others_with_its_error(method: str) -> None:
    bad, waiting = FailsInSetup(), WaitsInSetup()

    with pytest.raises(ValueError, match="no such device") as caught:
        ez.run(GOOD=Idle(), WAITING=waiting, BAD=bad, process_components=[bad, waiting])

    assert "with units BAD" in "".join(caught.value.__notes__)


def test_an_error_of_ours_in_another_process_arrives_with_its_fields() -> None:
    class Forgets(Idle):
        class STATE(ez.State):
            number: int

    forgets = Forgets()
    with pytest.raises(StateNotInitialized, match=r"FORGETS: STATE\.number was not initialized!") as caught:
        ez.run(GOOD=Idle(), FORGETS=forgets, process_components=[forgets])

    assert (caught.value.address, caught.value.field) == ("FORGETS", "number")


def test_an_error_that_cannot_travel_is_told_by_another() -> None:
    odd = FailsOddly()

    with pytest.raises(BackendProcessFailed, match="Unpicklable in backend process 1") as caught:
        ez.run(GOOD=Idle(), ODD=odd, process_components=[odd])

    assert "raise Unpicklable(1, 2)" in "".join(caught.value.__notes__)


def test_a_process_that_is_killed_ends_the_run_and_is_named(method: str) -> None:
    dies = Dies()

    with pytest.raises(
        BackendProcessLost, match=r"backend process 1 \(pid \d+\), with units DIES was killed by SIGKILL"
    ):
        ez.run(GOOD=Idle(), DIES=dies, process_components=[dies])


def test_a_unit_that_cannot_be_spawned_is_named() -> None:
    odd = Idle()
    odd.lock = threading.Lock()  # pyright: ignore[reportAttributeAccessIssue]
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        with pytest.raises(NotSpawnable, match=r"SYS/ODD cannot be sent .*lock"):
            ez.run(GOOD=PidOf(), FIRST=Idle(), ODD=odd, root_name="SYS", process_components=[odd])
    finally:
        multiprocessing.set_start_method(before, force=True)


def test_sys_exit_in_a_task_ends_the_run_and_leaves_it() -> None:
    class Exits(ez.Unit):
        @ez.task
        async def leave(self) -> None:
            raise SystemExit(7)

    exits = Exits()
    with pytest.raises(SystemExit) as caught:
        ez.run(IDLE=Idle(), EXITS=exits)
    assert caught.value.code == 7


def test_sys_exit_in_the_setup_of_another_process_leaves_run_and_is_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Exits(ez.Unit):
        async def initialize(self) -> None:
            raise SystemExit(7)

    exits = Exits()
    with pytest.raises(SystemExit) as caught:
        ez.run(IDLE=Idle(), EXITS=exits, process_components=[exits])
    assert caught.value.code == 7
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# -- GraphRunner ------------------------------------------------------------------------------------------------------


def test_start_returns_when_everything_runs_elsewhere_and_stop_ends_it(method: str, server: GraphServer) -> None:
    runner = ez.GraphRunner(CHAIN=Chain(is_split=True), graph_address=server.address)
    with pytest.raises(ValueError, match="before it was started"):
        _ = runner.processes
    assert runner.connections == []

    runner.start()

    assert runner.running
    assert runner.connections == [
        ("CHAIN/SOURCE/OUTPUT", "CHAIN/MIDDLE/INPUT"),
        ("CHAIN/MIDDLE/OUTPUT", "CHAIN/SINK/INPUT"),
    ]
    processes = runner.processes
    assert len({process.pid for process in processes} - {os.getpid(), None}) == 3
    runner.stop()
    assert not runner.running
    assert [process.exitcode for process in processes] == [0, 0, 0]


def test_a_runner_runs_once() -> None:
    runner = ez.GraphRunner(IDLE=Idle())
    with pytest.raises(RuntimeError, match="GraphRunner is not running"):
        runner.stop()
    runner.start()
    with pytest.raises(RuntimeError, match="GraphRunner is already running"):
        runner.start()
    with pytest.raises(RuntimeError, match="GraphRunner is already running"):
        runner.run_blocking()
    runner.stop()
    with pytest.raises(RuntimeError, match="GraphRunner is not running"):
        runner.stop()
    with pytest.raises(RuntimeError, match="GraphRunner cannot be restarted"):
        runner.start()


def test_start_needs_other_processes() -> None:
    with pytest.raises(ValueError, match="force_single_process"):
        ez.GraphRunner(IDLE=Idle(), force_single_process=True).start()


def test_start_tells_that_a_unit_could_not_be_set_up() -> None:
    runner = ez.GraphRunner(GOOD=Idle(), BAD=FailsInSetup())

    with pytest.raises(ez.GraphRunnerStartError, match="no such device") as caught:
        runner.start()

    assert isinstance(caught.value.__cause__, ValueError)
    assert not runner.running


def test_start_without_a_server_raises_what_a_connection_would(unused_tcp_port: int) -> None:
    with pytest.raises(OSError, match=str(unused_tcp_port)):
        ez.GraphRunner(IDLE=Idle(), graph_address=("127.0.0.1", unused_tcp_port)).start()


def test_a_runner_that_ended_by_itself_can_be_stopped() -> None:
    runner = ez.GraphRunner(COUNTER=Counter())
    runner.start()
    for process in runner.processes:
        process.join(DEADLINE_S)

    runner.stop()

    assert not runner.running


def test_a_process_that_somebody_closed_has_nothing_left_to_release() -> None:
    runner = ez.GraphRunner(CHAIN=Chain(is_split=True))
    runner.run_blocking()
    process = runner.processes[1]
    process.close()

    process.release()

    with pytest.raises(ValueError, match="closed"):
        _ = process.exitcode


def test_a_runner_that_ended_keeps_no_descriptors_and_tells_how_its_processes_ended() -> None:
    runner = ez.GraphRunner(CHAIN=Chain(is_split=True))
    before = dict(leaks.descriptors())

    runner.run_blocking()

    assert dict(leaks.descriptors()).keys() <= before.keys()
    assert [process.exitcode for process in runner.processes[1:]] == [0, 0]


def test_stop_ends_a_run_that_blocks_another_thread() -> None:
    runner = ez.GraphRunner(IDLE=Idle())
    thread = threading.Thread(target=runner.run_blocking, daemon=True)
    thread.start()
    wait_until(lambda: runner.running)

    assert runner.graph_server_spawned
    runner.stop()

    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def test_a_unit_may_stop_its_own_runner_and_is_shut_down_in_order() -> None:
    ended: list[str] = []

    class Stops(ez.Unit):
        @ez.task
        async def stop(self) -> None:
            runner.stop()
            await asyncio.Event().wait()

        async def shutdown(self) -> None:
            ended.append("in order")

    runner = ez.GraphRunner(STOPS=Stops())
    runner.run_blocking()

    assert ended == ["in order"]


def test_strict_shutdown_mirrors_the_environment_until_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = ez.GraphRunner(IDLE=Idle())
    assert not runner.strict_shutdown
    monkeypatch.setenv("EZMSG_STRICT_SHUTDOWN", "1")
    assert runner.strict_shutdown
    runner.strict_shutdown = False
    assert not runner.strict_shutdown


def test_a_context_says_what_would_run_where() -> None:
    context = ExecutionContext.setup({"CHAIN": Chain(is_split=True)}, root_name="ROOT")

    assert context is not None
    assert context.connections[0] == ("ROOT/CHAIN/SOURCE/OUTPUT", "ROOT/CHAIN/MIDDLE/INPUT")
    assert [[unit.name for unit in units] for units in context.units] == [["SINK"], ["SOURCE"], ["MIDDLE"]]
    assert ExecutionContext.setup({"EMPTY": ez.Collection()}) is None


def test_metadata_is_told_of_components_that_were_prepared() -> None:
    components = {"CHAIN": Chain()}
    ExecutionContext.setup(components)

    metadata = ez.GraphRunner(components)._component_metadata()  # pyright: ignore[reportPrivateUsage]

    assert sorted(metadata.components) == ["CHAIN", "CHAIN/MIDDLE", "CHAIN/SINK", "CHAIN/SOURCE"]


def wait_until(is_so: Any) -> None:
    """Poll, where there is no event."""
    done = threading.Event()
    for _ in range(DEADLINE_S * 100):
        if is_so():
            return
        done.wait(0.01)
    raise AssertionError("it did not come true in time")
