"""Peers that hold the key and do everything wrong: refused by name, counted, survived, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import pickle
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import msgspec
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ezmsg.core.control import ControlClient
from ezmsg.core.errors import ConnectionLost, EzmsgError
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import ProcessControlRequest, ProcessControlResponse
from ezmsg.core.graphserver import GraphServer, GraphService
from ezmsg.core.net.authkey import load_key
from ezmsg.core.net.dial import connect
from ezmsg.core.processclient import ProcessControlClient
from ezmsg.core.server.peers import ACCEPTED, HANDLERS
from ezmsg.core.wire import records as r
from ezmsg.core.wire.frames import HEADER, REPLY, REQUEST, FrameDecoder, encode_frame
from ezmsg.core.wire.limits import GRAPH_BYTES, NAME_LENGTH, PEERS_BYTES, SETTINGS_BYTES
from ezmsg.core.wire.metadata import GraphRecord, SettingsValue, record_of
from ezmsg.core.wire.values import packed
from tests.core.metadatamaking import graph
from tests.core.wire.recordmaking import records_of

PATIENCE_S = 40.0
HELLO = r.OpenTelemetry(1, "host", "boot", "process", 1, 1, 1, str(uuid4()))
PUBLISHER = r.OpenPublisher("publisher", "TOPIC", 1, "boot", "127.0.0.1", 1)
SUBSCRIBER = r.OpenSubscriber("subscriber", "TOPIC", 1, "boot")
VALUE = SettingsValue(None, packed({"gain": 666}))


class Hostile:
    """A peer that sends any record."""

    def __init__(self, client: ControlClient | None = None) -> None:
        self.client = client
        self.asked: list[r.Record] = []
        self.noticed: list[r.Record] = []
        self.answer: Callable[[r.Record], Any] = lambda record: r.Done()

    def on_request(self, connection: object, record: r.Record) -> Any:
        self.asked.append(record)
        return self.answer(record)

    def on_notice(self, connection: object, record: r.Record) -> None:
        self.noticed.append(record)

    def on_closed(self, connection: object, error: Exception | None) -> None:
        pass

    async def ask(self, record: r.Record) -> str:
        """The code of the refusal; "" if it was answered."""
        assert self.client is not None
        try:
            await self.client.request(record, timeout_s=PATIENCE_S)
        except ConnectionLost:
            raise
        except EzmsgError as error:
            return error.code
        return ""

    def tell(self, record: r.Record) -> None:
        assert self.client is not None
        self.client.notify(record)


@contextlib.asynccontextmanager
async def hostile(server: GraphServer, *roles: r.Record) -> AsyncIterator[Hostile]:
    peer = Hostile()
    peer.client = await ControlClient.connect(server.address, peer, name="hostile")
    try:
        for role in roles:
            assert await peer.ask(role) == ""
        yield peer
    finally:
        await peer.client.close()


class Raw:
    """A peer that sends any bytes, and reads only when told."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()
        self._decoder = FrameDecoder()

    async def send(self, record: r.Record, request_id: int = 1, flags: int = REQUEST) -> None:
        opcode, body = r.encode_record(record)
        await self.send_bytes(encode_frame(opcode, body, request_id, flags))

    async def send_bytes(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.sock, data)

    async def replies(self, count: int) -> list[tuple[int, r.Record]]:
        found: list[tuple[int, r.Record]] = []
        async with asyncio.timeout(PATIENCE_S):
            while len(found) < count:
                data = await self._loop.sock_recv(self.sock, 1 << 16)
                if not data:
                    raise ConnectionAbortedError("the server hung up")
                found += [(f.request_id, r.decode_record(f.opcode, f.body)) for f in self._decoder.feed(data)]
        return found

    async def until_hung_up(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                while await self._loop.sock_recv(self.sock, 1 << 20):
                    pass


@contextlib.asynccontextmanager
async def raw(server: GraphServer) -> AsyncIterator[Raw]:
    sock, _ = await connect(server.address, load_key())
    with sock:
        yield Raw(sock)


@pytest.fixture
async def bystanders(server: GraphServer, context: GraphContext) -> AsyncIterator[GraphContext]:
    """A session and a process that behave, and ask each other all along."""
    process = ProcessControlClient(server.address)
    await process.register(["VICTIM"])
    await process.report_settings_update("VICTIM", {"gain": 1})
    await context.connect("A", "B")
    await context.register_metadata(graph("UNIT"))
    is_over = False
    answered = 0

    async def ask() -> None:
        nonlocal answered
        while not is_over:
            assert (await context.process_ping("VICTIM", timeout=PATIENCE_S)).process_id == process.client_id
            answered += 1
            await asyncio.sleep(0.001)

    asking = asyncio.create_task(ask())
    try:
        yield context
        is_over = True
        await asking
        assert answered > 0
        snapshot = await context.snapshot()
        assert snapshot.sessions[str(context._session_id)].edges == [("A", "B")]
        assert process.client_id is not None
        assert snapshot.processes[process.client_id].units == ["VICTIM"]
        settings = await context.settings_snapshot()
        assert (settings["VICTIM"].repr_value, settings["UNIT"].repr_value) == ({"gain": 1}, {"gain": 1})
    finally:
        asking.cancel()
        await process.close()


async def counts(server: GraphServer) -> dict[str, int]:
    return await GraphService(server.address).counts()


async def until_counted(server: GraphServer, what: str, least: int = 1) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await counts(server)).get(what, 0) < least:
            await asyncio.sleep(0.01)


# -- records that are not for the one who sends them ------------------------------------------------------------------

ROLES: dict[type[r.Record], tuple[r.Record, set[type[r.Record]]]] = {
    r.OpenSession: (r.OpenSession(), {r.RevertSession, r.RegisterMetadata, r.CloseSession}),
    r.OpenProcess: (
        r.OpenProcess(1, "host"),
        {r.ProcessRegister, r.ProcessUpdateOwnership, r.ReportSettings},
    ),
    r.OpenPublisher: (PUBLISHER, set()),
    r.OpenSubscriber: (SUBSCRIBER, set()),
    r.OpenEventStream: (r.OpenEventStream("topology", 0), set()),
    r.OpenTelemetry: (HELLO, set()),
    r.OpenTelemetryReader: (r.OpenTelemetryReader("exporter", 1), set()),
    r.OpenProfilingStream: (r.OpenProfilingStream(1.0, 1, None, False), set()),
    r.CreateShm: (r.CreateShm(1, 64), set()),
}
BELONGING: dict[type[r.Record], r.Record] = {
    r.RevertSession: r.RevertSession(),
    r.RegisterMetadata: r.RegisterMetadata(record_of(graph("MINE"), GraphRecord)),
    r.CloseSession: r.CloseSession(),
    r.ProcessRegister: r.ProcessRegister(1, "host", ["MINE"]),
    r.ProcessUpdateOwnership: r.ProcessUpdateOwnership(["MINE"], []),
    r.ReportSettings: r.ReportSettings("VICTIM", VALUE, 1.0),
}


@pytest.mark.parametrize("role", [None, *ROLES], ids=lambda role: "no role" if role is None else role.__name__)
async def test_what_needs_another_role_is_refused_by_name(
    server: GraphServer, bystanders: GraphContext, role: type[r.Record] | None
) -> None:
    opened, own = (None, set[type[r.Record]]()) if role is None else ROLES[role]
    async with hostile(server, *([opened] if opened else [])) as peer:
        for kind, record in BELONGING.items():
            if kind not in own:
                assert await peer.ask(record) == "WRONG_ROLE", kind
        for other, _ in ROLES.values():
            if opened is not None and type(other) is not r.OpenTelemetryReader:
                assert await peer.ask(other) in ("WRONG_ROLE", "IDENTITY_TAKEN"), other
        assert await peer.ask(r.GetGraph()) == ""
    assert (await counts(server))["refused:WRONG_ROLE"] >= 4


async def test_what_no_server_answers_is_not_even_read(server: GraphServer, bystanders: GraphContext) -> None:
    foreign = [record for record in r.OPCODES.values() if r.OPCODE_OF[record] not in ACCEPTED]
    assert {r.Snapshot, r.Goodbye, r.Refusal, r.Routing, r.ProcessResponse} <= set(foreign)
    async with raw(server) as peer:
        for record in foreign:
            await peer.send_bytes(HEADER.pack(3, r.OPCODE_OF[record], REQUEST, 7) + b"\xc1\xc1\xc1")
            await peer.send_bytes(HEADER.pack(3, r.OPCODE_OF[record], 0, 0) + b"\xc1\xc1\xc1")
        await peer.send_bytes(HEADER.pack(1, 9999, REQUEST, 7) + b"\x80")
        for _, refusal in await peer.replies(len(foreign) + 1):
            assert isinstance(refusal, r.Refusal)
            assert (refusal.code, "no request that is answered" in refusal.message) == ("UNANSWERABLE", True)
    found = await counts(server)
    assert (found["refused:UNANSWERABLE"], found["ignored:NOTICE"]) == (len(foreign) + 1, len(foreign))


async def test_notices_for_another_role_are_ignored_and_counted(server: GraphServer, bystanders: GraphContext) -> None:
    async with hostile(server, r.OpenSession()) as peer:
        for record in (r.EventAck(5), r.TelemetryAck(5), r.TelemetryBatch(1, "", 1), r.CancelRequest(5)):
            peer.tell(record)
        assert await peer.ask(r.GetGraph()) == ""
    assert (await counts(server))["ignored:NOTICE"] == 3


# -- ids --------------------------------------------------------------------------------------------------------------


async def test_replies_nobody_asked_for_are_ignored_and_counted(server: GraphServer, bystanders: GraphContext) -> None:
    async with raw(server) as peer:
        for request_id in range(100):
            await peer.send(r.Done(), request_id, REPLY)
        await peer.send_bytes(HEADER.pack(3, r.OPCODE_OF[r.Snapshot], REPLY, 7) + b"\xc1\xc1\xc1")
        await peer.send(r.GetGraph(), 5)
        assert [request_id for request_id, _ in await peer.replies(1)] == [5]
    assert (await counts(server))["ignored:REPLY"] == 101


async def test_subscribers_hear_of_what_a_peer_did_that_went_without_waiting_for_it(
    server: GraphServer, bystanders: GraphContext
) -> None:
    publisher, subscriber = await bystanders.publisher("T/FROM"), await bystanders.subscriber("T")
    async with raw(server) as peer:
        asked = encode_frame(*r.encode_record(r.Connect("T/FROM", "T")), 1, REQUEST)
        await peer.send_bytes(asked + b"\xff" * 100)
        await peer.until_hung_up()
    receiving = asyncio.create_task(subscriber.recv())
    async with asyncio.timeout(PATIENCE_S):
        while not receiving.done():
            await publisher.broadcast("there")
            await asyncio.sleep(0.001)
    assert await receiving == "there"
    await GraphService(server.address).disconnect("T/FROM", "T")


async def test_an_id_that_is_used_twice_is_answered_twice(server: GraphServer, bystanders: GraphContext) -> None:
    async with raw(server) as peer:
        await peer.send(r.OpenSession(), 3)
        for _ in range(10):
            await peer.send(r.Connect("X", "Y"), 3)
            await peer.send(r.ProcessRequest("VICTIM", "PING"), 3)
        assert [request_id for request_id, _ in await peer.replies(21)] == [3] * 21
        for _ in range(5):
            await peer.send(r.CancelRequest(3), flags=0)
        await peer.send(r.GetGraph(), 4)
        assert [request_id for request_id, _ in await peer.replies(1)] == [4]


async def test_nobody_takes_the_id_of_a_publisher_or_subscriber(server: GraphServer, bystanders: GraphContext) -> None:
    publisher, subscriber = await bystanders.publisher("A"), await bystanders.subscriber("B")
    stolen = msgspec.structs.replace(PUBLISHER, publisher_id=publisher.publisher_id)
    async with hostile(server) as peer:
        assert await peer.ask(stolen) == "IDENTITY_TAKEN"
        assert await peer.ask(r.OpenSubscriber(str(subscriber.id), "B", 1, "boot")) == "IDENTITY_TAKEN"
    await bystanders.disconnect("A", "B")
    await bystanders.connect("A", "B")
    await publisher.broadcast("still there")
    async with asyncio.timeout(PATIENCE_S):
        assert await subscriber.recv() == "still there"


# -- what belongs to others -------------------------------------------------------------------------------------------


async def test_units_and_settings_of_others_cannot_be_had(server: GraphServer, bystanders: GraphContext) -> None:
    async with hostile(server, r.OpenProcess(1, "host")) as peer:
        assert await peer.ask(r.ProcessRegister(1, "host", ["VICTIM"])) == "UNIT_ALREADY_OWNED"
        assert await peer.ask(r.ProcessUpdateOwnership(["MINE", "VICTIM"], [])) == "UNIT_ALREADY_OWNED"
        assert await peer.ask(r.ProcessUpdateOwnership([], ["VICTIM"])) == ""
        for address in ("VICTIM", "MINE", "UNIT"):
            assert await peer.ask(r.ReportSettings(address, VALUE, 1.0)) == "UNIT_NOT_OWNED"
    async with hostile(server, r.OpenSession()) as peer:
        theft = r.RegisterMetadata(record_of(graph("UNIT", gain=9), GraphRecord))
        assert await peer.ask(theft) == "COMPONENT_ADDRESS_COLLISION"


async def test_requests_to_others_cannot_be_answered(server: GraphServer, bystanders: GraphContext) -> None:
    owner = ProcessControlClient(server.address)
    asked, release = asyncio.Event(), asyncio.Event()

    async def handler(request: ProcessControlRequest) -> ProcessControlResponse:
        asked.set()
        await release.wait()
        return ProcessControlResponse(request.request_id, True, payload=b"mine")

    owner.set_request_handler(handler)
    await owner.register(["SLOW"])
    request = asyncio.create_task(bystanders.process_request("SLOW", "WAIT", timeout=PATIENCE_S))
    await asked.wait()
    async with raw(server) as peer:
        await peer.send(r.OpenProcess(1, "host"), 1)
        for request_id in range(200):
            await peer.send(r.ProcessResponse(True, b"forged"), request_id, REPLY)
        await peer.send(r.GetGraph(), 2)
        await peer.replies(2)
    release.set()
    assert (await request).payload == b"mine"
    await owner.close()


# -- numbers, names and sizes -----------------------------------------------------------------------------------------


async def test_absurd_acknowledgements_change_nothing(server: GraphServer, bystanders: GraphContext) -> None:
    async with hostile(server, r.OpenEventStream("topology", 0)) as peer:
        for count in (1 << 62, -(1 << 62), 0, -1, 1000):
            peer.tell(r.EventAck(count))
        await bystanders.connect("A", "MORE")
        await bystanders.disconnect("A", "MORE")
        async with asyncio.timeout(PATIENCE_S):
            while not any(
                isinstance(event, r.TopologyEvent) and "MORE" in event.changed_topics for event in peer.noticed
            ):
                await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (r.GetSettingsEvents(-(1 << 63)), ""),
        (r.GetSettingsEvents((1 << 63) - 1), ""),
        (r.OpenEventStream("settings", -(1 << 63)), ""),
        (r.OpenEventStream("settings", (1 << 63) - 1), ""),
        (r.OpenEventStream("nonsense", 0), "INVALID_RECORD"),  # type: ignore[arg-type]
        (r.Sync(math.nan), "INVALID_RECORD"),
        (r.Sync(-1.0), "INVALID_RECORD"),
        (r.Sync(math.inf), "INVALID_RECORD"),
        (r.ProcessRequest("VICTIM", "PING", timeout_s=math.nan), "CONFIG"),
        (r.ProcessRequest("VICTIM", "PING", timeout_s=-1.0), "CONFIG"),
        (r.ProcessRequest("VICTIM", "PING", timeout_s=math.inf), "CONFIG"),
        (r.CreateShm(-1, 1 << 40), "CONFIG"),
        (r.CreateShm(1 << 40, 1 << 20), "SHARED_MEMORY_LIMIT"),
        (r.CreateShm(1 << 20, 1 << 30), "SHARED_MEMORY_LIMIT"),
        (msgspec.structs.replace(PUBLISHER, port=70_000), "INVALID_RECORD"),
        (msgspec.structs.replace(PUBLISHER, port=-1), "INVALID_RECORD"),
        (msgspec.structs.replace(PUBLISHER, num_buffers=0), "INVALID_RECORD"),
        (r.OpenProcess(-5, "host"), ""),
        (r.OpenProfilingStream(math.nan, -5, None, True), ""),
        (r.OpenProfilingStream(-math.inf, 1 << 62, ["nobody"], True), ""),
        (r.OpenProfilingStream(1.0, 1, ["nobody"] * 10_001, True), "INVALID_RECORD"),
        (r.Connect("X", "x" * (NAME_LENGTH + 1)), "INVALID_RECORD"),
        (r.GetMetadata("nobody", -1), "STALE_SNAPSHOT"),
        (r.AttachShm("nothing"), "UNKNOWN_SHARED_MEMORY"),
    ],
    ids=lambda value: f"{value!r:.60}",
)
async def test_absurd_values_are_harmless_or_refused_by_name(
    server: GraphServer, bystanders: GraphContext, record: r.Record, code: str
) -> None:
    async with hostile(server) as peer:
        assert await peer.ask(record) == code
        assert await peer.ask(r.GetGraph()) == ""


@pytest.mark.parametrize("timestamp", [math.nan, math.inf, 1e300])
async def test_settings_of_no_time_are_refused(server: GraphServer, bystanders: GraphContext, timestamp: float) -> None:
    async with hostile(server, r.OpenProcess(1, "host"), r.ProcessRegister(1, "host", ["MINE"])) as peer:
        assert await peer.ask(r.ReportSettings("MINE", VALUE, timestamp)) == "INVALID_RECORD"


async def test_a_refusal_that_is_too_long_is_shortened(server: GraphServer, bystanders: GraphContext) -> None:
    units = [f"{number:05d}" + "x" * 50 for number in range(30_000)]
    async with (
        hostile(server, r.OpenProcess(1, "host"), r.ProcessRegister(1, "host", units)),
        hostile(server, r.OpenProcess(2, "host")) as peer,
    ):
        assert await peer.ask(r.ProcessRegister(2, "host", units)) == "UNIT_ALREADY_OWNED"


async def test_values_that_nobody_can_have_written_disturb_nobody(
    server: GraphServer, bystanders: GraphContext
) -> None:
    deep = b"\x91" * 300 + b"\xc0"
    for content in (b"\xc7\x01\x63\x00", deep, b"\xa2\xff\xff", b"\x81\x90\x01"):
        odd = SettingsValue(None, msgspec.Raw(content), msgspec.Raw(content))
        async with hostile(server, r.OpenProcess(1, "host"), r.ProcessRegister(1, "host", ["ODD"])) as peer:
            if await peer.ask(r.ReportSettings("ODD", odd, 1.0)) == "":
                assert (await bystanders.settings_snapshot())["ODD"].repr_value is not None
                assert await bystanders.settings_events()


async def test_records_larger_than_their_kind_may_be_end_the_connection(
    server: GraphServer, bystanders: GraphContext
) -> None:
    async with hostile(server) as peer:
        assert await peer.ask(r.Connect("X", "x" * (2 << 20))) == "FRAME_TOO_LARGE"
        assert await peer.ask(r.GetGraph()) == ""
    for kind, size in ((r.Connect, 2 << 20), (r.RegisterMetadata, 65 << 20), (r.EventAck, 1 << 62)):
        async with raw(server) as peer:
            await peer.send_bytes(HEADER.pack(size, r.OPCODE_OF[kind], REQUEST, 1) + b"x" * 1000)
            await peer.until_hung_up()
    assert (await counts(server))["dropped:FRAME_TOO_LARGE"] == 3


async def test_settings_too_large_to_be_told_are_refused(server: GraphServer, bystanders: GraphContext) -> None:
    huge = SettingsValue(bytes(SETTINGS_BYTES + 1), packed(None))
    async with hostile(server, r.OpenProcess(1, "host"), r.ProcessRegister(1, "host", ["MINE"])) as peer:
        assert await peer.ask(r.ReportSettings("MINE", huge, 1.0)) == "SETTINGS_TOO_LARGE"


async def test_a_graph_that_is_full_refuses_edges_until_there_is_room(
    server: GraphServer, bystanders: GraphContext
) -> None:
    name = "x" * (NAME_LENGTH - 10)
    async with hostile(server, r.OpenSession()) as peer:
        assert peer.client is not None
        made = 0
        while not (code := await peer.ask(r.Connect(f"{name}{made}", f"{name}{made + 1}"))):
            made += 1
        assert code == "SERVER_FULL"
        assert made > GRAPH_BYTES // (2 * NAME_LENGTH) // 2
        assert len((await bystanders.snapshot()).graph) == made + 3
        assert await peer.ask(r.CloseSession()) == ""
    await bystanders.connect("A", "C")
    await bystanders.disconnect("A", "C")


# -- floods -----------------------------------------------------------------------------------------------------------


async def test_requests_without_reading_the_answers_are_read_no_more(
    server: GraphServer, bystanders: GraphContext
) -> None:
    await bystanders.register_metadata(graph("UNIT", *(f"U{number}" for number in range(1000))))
    before = psutil.Process().memory_info().rss
    async with raw(server) as peer, raw(server) as other:

        async def flood(peer: Raw) -> None:
            while True:
                await peer.send(r.GetSnapshot())
                await asyncio.sleep(0)  # a socket that takes it does not wait

        flooding = [asyncio.create_task(flood(peer)) for peer in (peer, other)]
        await until_counted(server, "throttled", 2)
        for _ in range(20):
            await bystanders.snapshot()
        assert not any(task.done() for task in flooding)
        assert psutil.Process().memory_info().rss - before < 500 << 20
        for task in flooding:
            task.cancel()
        await asyncio.wait(flooding)
    # One that reads again is read again.
    async with raw(server) as peer:
        for number in range(100):
            await peer.send(r.GetSnapshot(), number)
        assert [number for number, _ in await peer.replies(100)] == list(range(100))


async def test_a_flood_of_large_events_and_readers_that_do_not_read_leave_memory_bounded(
    server: GraphServer, bystanders: GraphContext
) -> None:
    large = SettingsValue(bytes(4 << 20), packed({"gain": 1}))
    before = psutil.Process().memory_info().rss
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            reader = await stack.enter_async_context(raw(server))
            await reader.send(r.OpenEventStream("settings", 0))
        peer = await stack.enter_async_context(
            hostile(server, r.OpenProcess(1, "host"), r.ProcessRegister(1, "host", ["MINE"]))
        )
        for _ in range(60):
            assert await peer.ask(r.ReportSettings("MINE", large, 1.0)) == ""
        assert psutil.Process().memory_info().rss - before < 500 << 20
    assert (await counts(server))["evicted:settings"] > 0


async def test_frames_that_are_begun_and_never_ended_are_held_up_to_a_bound(
    server: GraphServer, bystanders: GraphContext
) -> None:
    size = 63 << 20
    fit = PEERS_BYTES // size
    async with contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(raw(server)) for _ in range(fit + 3)]
        for peer in peers:
            opcode = r.OPCODE_OF[r.ProcessRequest]
            await peer.send_bytes(HEADER.pack(size, opcode, REQUEST, 1) + bytes(100_000))
        await until_counted(server, "dropped:SERVER_FULL", 3)
        for _ in range(20):
            await bystanders.snapshot()
    assert (await counts(server))["dropped:SERVER_FULL"] == 3


async def test_a_flood_of_pings_refuses_some_and_starves_nobody(server: GraphServer, bystanders: GraphContext) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            peer = await stack.enter_async_context(raw(server))
            frame = encode_frame(*r.encode_record(r.ProcessRequest("VICTIM", "PING")), 1, REQUEST)
            for _ in range(10):
                await peer.send_bytes(frame * 500)
        for _ in range(20):
            await bystanders.process_ping("VICTIM", timeout=PATIENCE_S)


async def test_a_session_whose_edges_take_long_to_check_lets_others_have_their_turn(
    server: GraphServer, bystanders: GraphContext
) -> None:
    # From the end of one long chain to every topic of another: whether that closes a cycle is not seen at once.
    links = [(f"{chain}{n + 1:04}", f"{chain}{n:04}") for chain in "IO" for n in range(6000)]
    async with raw(server) as peer:
        await peer.send(r.OpenSession(edges=[*links, *(("I0000", to_topic) for from_topic, to_topic in links[6000:])]))
        async with asyncio.timeout(PATIENCE_S):
            while len((await bystanders.snapshot()).graph) == 2:
                await asyncio.sleep(0.001)
        for _ in range(5):
            await bystanders.connect("A", "C")
            await bystanders.disconnect("A", "C")
    async with asyncio.timeout(PATIENCE_S):
        while len((await bystanders.snapshot()).graph) > 2:
            await asyncio.sleep(0.01)


async def test_a_thousand_sessions_come_and_go(server: GraphServer, bystanders: GraphContext) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for number in range(1000):
            peer = await stack.enter_async_context(raw(server))
            await peer.send(r.OpenSession())
            await peer.send(r.Connect("A", f"B{number}"))
        async with asyncio.timeout(PATIENCE_S):
            while len((await bystanders.snapshot()).sessions) < 1001:
                await asyncio.sleep(0.05)
        await bystanders.connect("A", "C")
        await bystanders.disconnect("A", "C")
    async with asyncio.timeout(PATIENCE_S):
        while len((await bystanders.snapshot()).sessions) > 1:
            await asyncio.sleep(0.05)
    assert sorted((await bystanders.snapshot()).graph) == ["A", "B"]


# -- anything ---------------------------------------------------------------------------------------------------------

TYPES = [record for record in HANDLERS if record is not r.Shutdown]
RECORDS = st.sampled_from([*TYPES, r.TelemetryBatch, r.TelemetryAck, r.EventAck, r.CancelRequest, r.Snapshot]).flatmap(
    records_of
)
FLAGS = st.sampled_from([REQUEST, REQUEST, REQUEST, 0, REPLY])
OPENED = st.sampled_from([None, *(opened for opened, _ in ROLES.values())])


def test_no_record_of_any_peer_is_an_error_of_the_server(server: GraphServer, caplog: pytest.LogCaptureFixture) -> None:
    key = load_key()

    async def talk(opened: r.Record | None, said: list[tuple[r.Record, int]]) -> None:
        sock, _ = await connect(server.address, key)
        with sock, contextlib.suppress(ConnectionError):
            peer = Raw(sock)
            if opened is not None:
                await peer.send(opened, 1)
            for number, (record, flags) in enumerate(said):
                await peer.send(record, number, flags)
            await peer.send(r.GetGraph(), 1 << 20)
            async with asyncio.timeout(PATIENCE_S):
                while 1 << 20 not in [request_id for request_id, _ in await peer.replies(1)]:
                    pass

    with asyncio.Runner() as runner, caplog.at_level(logging.ERROR, "ezmsg"):

        @settings(max_examples=80, deadline=None)
        @given(OPENED, st.lists(st.tuples(RECORDS, FLAGS), max_size=8))
        def check(opened: r.Record | None, said: list[tuple[r.Record, int]]) -> None:
            runner.run(talk(opened, said))

        check()
        runner.run(until_idle(server))
    assert [record.message for record in caplog.records] == []


async def until_idle(server: GraphServer) -> None:
    """Every peer is gone, and so is what it held."""
    async with GraphContext(server.address) as context, asyncio.timeout(PATIENCE_S):
        while len((await context.snapshot()).sessions) > 1 or (await context.snapshot()).processes:
            await asyncio.sleep(0.01)


def test_bytes_of_any_kind_end_one_connection_at_most(server: GraphServer, caplog: pytest.LogCaptureFixture) -> None:
    key = load_key()
    headers = st.builds(
        lambda size, opcode, flags, number: struct.pack("<QHHI", size, opcode, flags, number),
        st.integers(0, 200) | st.integers(0, (1 << 64) - 1),
        st.sampled_from([*r.OPCODES, 0, 9999]),
        st.integers(0, 5),
        st.integers(0, 3),
    )

    async def talk(data: bytes) -> None:
        sock, _ = await connect(server.address, key)
        with sock, contextlib.suppress(ConnectionError):
            await Raw(sock).send_bytes(data)

    with asyncio.Runner() as runner, caplog.at_level(logging.ERROR, "ezmsg"):

        @settings(max_examples=80, deadline=None)
        @given(st.lists(headers | st.binary(max_size=200), max_size=10).map(b"".join))
        def check(data: bytes) -> None:
            runner.run(talk(data))

        check()
        runner.run(until_idle(server))
    assert [record.message for record in caplog.records] == []


async def test_nobody_takes_the_id_of_the_telemetry_link_or_of_the_client_of_another(
    server: GraphServer, context: GraphContext
) -> None:
    process = ProcessControlClient(server.address)
    try:
        await process.register(["VICTIM"])
        link = msgspec.structs.replace(HELLO, link_id=str(uuid4()))
        async with hostile(server, link) as victim, hostile(server) as peer:
            victim.answer = lambda record: r.ProcessResponse(True, pickle.dumps(7), process_id=link.link_id)
            assert await peer.ask(msgspec.structs.replace(link, started_unix_ns=2)) == "IDENTITY_TAKEN"
            assert await peer.ask(msgspec.structs.replace(link, link_id=str(process.client_id))) == "IDENTITY_TAKEN"
            assert await peer.ask(r.OpenProcess(1, "host", link.link_id)) == "IDENTITY_TAKEN"
            request = r.ProcessRequest("", "GET_PROFILING_SNAPSHOT", process_id=link.link_id, timeout_s=PATIENCE_S)
            assert await peer.ask(request) == ""
            assert [type(record) for record in victim.asked] == [r.ProcessRequest]
            # The process itself may be back before its old connection was seen to be lost.
            async with hostile(server, link):
                pass
    finally:
        await process.close()


async def test_a_role_that_is_refused_as_the_second_one_leaves_nothing_behind(server: GraphServer) -> None:
    link = msgspec.structs.replace(HELLO, link_id=str(uuid4()))
    reader = r.OpenTelemetryReader("agent", 1)
    async with hostile(server, r.OpenSession()) as peer:
        for second in (link, reader, r.OpenProfilingStream(0.05, 1, None, False)):
            assert await peer.ask(second) == "WRONG_ROLE"
        assert peer.client is not None
        assert (await peer.client.request(r.GetSnapshot())).links == []  # type: ignore[attr-defined]
    async with hostile(server, reader):
        pass
