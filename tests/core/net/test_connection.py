"""Requests, notices and the end of a connection."""

import asyncio
import contextlib
import gc
import logging
import socket

import pytest

from ezmsg.core.dag import CyclicException
from ezmsg.core.errors import (
    BacklogFull,
    ConnectionLost,
    FrameTooLarge,
    ProtocolError,
    Refused,
    RequestTimeout,
    TooManyRequests,
    UnitAlreadyOwned,
)
from ezmsg.core.net import connection as connection_module
from ezmsg.core.net import framestream
from ezmsg.core.net.connection import Connection
from ezmsg.core.net.dial import connect
from ezmsg.core.net.latereply import LateReply
from ezmsg.core.wire.frames import HEADER, REPLY, REQUEST, encode_frame
from ezmsg.core.wire.handshake import PeerInfo
from ezmsg.core.wire.records import (
    Connect,
    Done,
    Goodbye,
    Pause,
    ProcessRequest,
    ProcessResponse,
    Record,
    Resume,
    Sync,
    encode_record,
)
from tests import hostile
from tests.core.net.serving import KEY, Recorder, Serving


class Gate:
    """A handler whose answers to Sync wait until it is opened; Pause is answered at once."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.waiting = 0
        self.cancelled = 0

    def __call__(self, record: Record):
        return self.wait() if isinstance(record, Sync) else Done()

    async def wait(self) -> Record:
        self.waiting += 1
        try:
            await self.is_open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return Done()

    async def until_waiting(self, count: int) -> None:
        while self.waiting < count:
            await asyncio.sleep(0)


@pytest.fixture
def gate(serving: Serving) -> Gate:
    gate = Gate()
    serving.handler = lambda: Recorder(gate)
    return gate


async def test_a_request_is_answered_in_both_directions(serving) -> None:
    handler = Recorder(lambda record: ProcessResponse(True, b"from the client"))
    async with serving.both(handler) as (client, server):
        assert await client.request(Connect("A", "B")) == Done()
        assert await server.request(ProcessRequest("U", "op")) == ProcessResponse(True, b"from the client")
        assert handler.requests == [ProcessRequest("U", "op")]
        assert client.peer.boot_id == server.peer.boot_id


async def test_a_notice_is_noticed(serving) -> None:
    async with serving.both() as (client, server):
        handler = server._handler
        client.notify(Goodbye("so long"))
        await handler.noticed.wait()
        assert handler.notices == [Goodbye("so long")]
        assert handler.requests == []


@pytest.mark.parametrize("is_slow", [False, True])
@pytest.mark.parametrize(
    "error", [CyclicException("A", "B"), UnitAlreadyOwned("OP", {"U": "p"}), Refused("no", "WHY", {"x": 1})]
)
async def test_a_refusal_raises_what_was_raised(serving, error, is_slow, caplog) -> None:
    async def later(record: Record) -> Record:
        raise error

    def now(record: Record) -> Record:
        raise error

    serving.handler = lambda: Recorder(later if is_slow else now)
    async with serving.both() as (client, _):
        with pytest.raises(type(error)) as refused:
            await client.request(Pause())
    assert str(refused.value) == str(error)
    assert refused.value.fields() == error.fields()
    assert not caplog.records


@pytest.mark.parametrize("is_slow", [False, True])
async def test_a_handler_that_fails_is_logged_once_and_refuses(serving, is_slow, caplog) -> None:
    async def later(record: Record) -> Record:
        raise ZeroDivisionError("oops")

    def now(record: Record) -> Record:
        raise ZeroDivisionError("oops")

    serving.handler = lambda: Recorder(later if is_slow else now)
    async with serving.both() as (client, _):
        with pytest.raises(Refused, match="ZeroDivisionError: oops") as refused:
            await client.request(Pause())
        assert refused.value.refusal_code == "INTERNAL"
        assert len(caplog.records) == 1
        assert caplog.records[0].levelno == logging.ERROR
        assert caplog.records[0].exc_info


async def test_a_handler_without_an_answer_refuses(serving) -> None:
    serving.handler = lambda: Recorder(lambda record: None)  # type: ignore[arg-type,return-value]
    async with serving.both() as (client, _):
        with pytest.raises(Refused, match="TypeError"):
            await client.request(Pause())


async def test_an_answer_may_be_a_future(serving) -> None:
    future = asyncio.get_running_loop().create_future()
    serving.handler = lambda: Recorder(lambda record: future)
    async with serving.both() as (client, _):
        request = client.request_nowait(Pause())
        await asyncio.sleep(0)
        future.set_result(Done())
        assert await request == Done()


class Late:
    """Answers each request later, when told."""

    def __init__(self) -> None:
        self.replies: list[LateReply] = []
        self.revoked: list[LateReply] = []

    def __call__(self, record: Record) -> LateReply:
        reply = LateReply(lambda: self.revoked.append(reply))
        self.replies.append(reply)
        return reply


@pytest.fixture
def late(serving: Serving) -> Late:
    late = Late()
    serving.handler = lambda: Recorder(late)  # type: ignore[arg-type]
    return late


async def test_a_late_reply_answers_once_and_in_any_order(serving: Serving, late: Late) -> None:
    async with serving.both() as (client, server):
        first, second = client.request_nowait(Pause()), client.request_nowait(Pause())
        while len(late.replies) < 2:
            await asyncio.sleep(0)
        late.replies[1].give(Goodbye("second"))
        late.replies[1].give(Goodbye("again"))
        late.replies[1].cancel()
        assert await second == Goodbye("second")
        late.replies[0].give(Done())
        assert await first == Done()
        assert not server._answering
        assert not late.revoked


async def test_a_late_reply_that_nobody_waits_for_is_revoked_once(serving: Serving, late: Late) -> None:
    async with serving.both() as (client, server):
        taken_back = client.request_nowait(Pause(), revocable=True)
        left = client.request_nowait(Pause())
        while len(late.replies) < 2:
            await asyncio.sleep(0)
        taken_back.cancel()
        while not late.revoked:
            await asyncio.sleep(0)
        late.replies[0].give(Done())
        assert late.revoked == [late.replies[0]]
    with pytest.raises(ConnectionLost):
        await left
    await server.wait_closed()
    late.replies[1].give(Done())
    assert late.revoked == late.replies


async def test_a_late_reply_counts_among_the_requests_at_once(
    serving: Serving, late: Late, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "REQUESTS_AT_ONCE", 1)
    async with serving.both() as (client, _):
        first = client.request_nowait(Pause())
        with pytest.raises(TooManyRequests):
            await client.request(Pause())
        late.replies[0].give(Done())
        assert await first == Done()


async def test_asking_without_a_future_tells_the_answer_the_refusal_and_the_end(serving: Serving, late: Late) -> None:
    heard: list[Record | Exception] = []
    async with serving.both() as (client, server):
        client.ask(Pause(), heard.append)
        ignored = client.ask(Pause(), heard.append)
        client.ask(Pause(), heard.append)
        while len(late.replies) < 3:
            await asyncio.sleep(0)
        late.replies[0].give(Done())
        client.take_back(ignored)
        while not heard or not late.revoked:
            await asyncio.sleep(0)
        assert heard == [Done()]
        server.abort()
        await client.wait_closed()
    assert [type(answer) for answer in heard] == [Done, ConnectionLost]


async def test_an_answer_that_is_cancelled_refuses(serving, gate) -> None:
    async with serving.both() as (client, server):
        request = client.request_nowait(Sync())
        await gate.until_waiting(1)
        for task in list(server._answering):
            task.cancel()
        with pytest.raises(Refused, match="Sync was cancelled"):
            await request


# -- many at once ---------------------------------------------------------------------------------------------------


async def test_slow_requests_do_not_hold_up_others(serving, gate) -> None:
    async with serving.both() as (client, _):
        slow = [client.request_nowait(Sync()) for _ in range(100)]
        await gate.until_waiting(100)
        for _ in range(10):
            assert await client.request(Pause()) == Done()
        assert not any(request.done() for request in slow)
        gate.is_open.set()
        assert await asyncio.gather(*slow) == [Done()] * 100


async def test_more_requests_than_the_limit_are_refused_and_others_go_on(serving, gate, monkeypatch) -> None:
    monkeypatch.setattr(connection_module, "REQUESTS_AT_ONCE", 10)
    async with serving.both() as (client, _):
        slow = [client.request_nowait(Sync()) for _ in range(12)]
        results = await asyncio.wait(slow, return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(TooManyRequests, match="10 requests"):
            raise next(iter(results[0])).exception()
        gate.is_open.set()
        done = await asyncio.gather(*slow, return_exceptions=True)
        assert done[:10] == [Done()] * 10
        assert [type(error) for error in done[10:]] == [TooManyRequests] * 2
        assert await client.request(Sync()) == Done()


async def test_the_peer_is_told_of_revocable_requests_that_are_cancelled_and_of_no_others(serving, gate) -> None:
    async with serving.both() as (client, _):
        kept, revoked, other = (client.request_nowait(Sync(), revocable=flag) for flag in (False, True, True))
        await gate.until_waiting(3)
        kept.cancel()
        revoked.cancel()
        assert await client.request(Pause()) == Done()
        while gate.cancelled < 1:
            await asyncio.sleep(0)
        assert gate.cancelled == 1
        gate.is_open.set()
        assert await client.request(Sync()) == Done()
        assert await other == Done()


async def test_a_revocable_request_does_not_end_the_connection_to_a_slow_peer(serving) -> None:
    serving.options["write_limit"] = 1 << 20
    sock, _ = await connect(serving.address, KEY)
    with sock:
        server, _ = await serving.peers.get()
        while server.write_buffer_size < 1 << 19:
            server.notify(Goodbye("x" * 100_000))
            await asyncio.sleep(0)
        with pytest.raises(BacklogFull, match="do not fit behind"):
            server.request_nowait(ProcessRequest("U", "op", bytes(1 << 20)), revocable=True)
        assert not server._is_closing
        assert server._waiting == {}
        server.abort()
        await server.wait_closed()


async def test_request_ids_start_again_and_skip_those_in_use(serving, gate) -> None:
    async with serving.both() as (client, _):
        first = client.request_nowait(Sync())
        client._last_id = 0xFFFFFFFF - 1
        ids = []
        for _ in range(3):
            await client.request(Pause())
            ids.append(client._last_id)
        assert ids == [0xFFFFFFFF, 2, 3]
        gate.is_open.set()
        assert await first == Done()


async def test_an_answer_in_time_leaves_no_timer_behind(serving) -> None:
    async with serving.both() as (client, _):
        await client.request(Pause(), 1000.0)
        await asyncio.sleep(0)
        timers = asyncio.get_running_loop()._scheduled
        assert not [timer for timer in timers if timer._callback == client._expire and not timer.cancelled()]


# -- time -----------------------------------------------------------------------------------------------------------


async def test_a_request_times_out_and_its_late_answer_is_ignored(serving, gate) -> None:
    async with serving.both() as (client, server):
        with pytest.raises(RequestTimeout, match=r"the server did not answer Sync within 0\.01 s"):
            await client.request(Sync(), 0.01)
        gate.is_open.set()
        assert await client.request(Pause(), 5.0) == Done()
        assert not client._waiting
        assert not server._answering


async def test_a_timeout_of_the_peers_own_is_not_taken_for_ours(serving) -> None:
    async def time_out(record: Record) -> Record:
        raise RequestTimeout("Routing", "somebody else", 1.0)

    serving.handler = lambda: Recorder(time_out)
    async with serving.both() as (client, _):
        with pytest.raises(RequestTimeout, match="somebody else did not answer Routing"):
            await client.request(Sync(), 10.0)


async def test_a_waiting_request_can_be_cancelled(serving, gate) -> None:
    async with serving.both() as (client, _):
        task = asyncio.create_task(client.request(Sync(), 10.0))
        await gate.until_waiting(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not client._waiting
        gate.is_open.set()
        assert await client.request(Pause()) == Done()


# -- the end --------------------------------------------------------------------------------------------------------


async def test_what_waits_fails_at_once_when_the_peer_goes(serving, gate) -> None:
    handler = Recorder()
    async with serving.both(handler) as (client, server):
        requests = [client.request_nowait(Sync()) for _ in range(3)]
        await gate.until_waiting(3)
        server.abort()
        for result in await asyncio.gather(*requests, return_exceptions=True):
            assert isinstance(result, ConnectionLost)
            assert "connection to the server lost" in str(result)
        await client.wait_closed()
        with pytest.raises(ConnectionLost):
            await client.request(Pause())
        client.notify(Goodbye())
    assert len(handler.ends) == 1
    assert gate.cancelled == 3


async def test_closing_tells_both_sides_once_and_in_order(serving) -> None:
    handler = Recorder()
    async with serving.both(handler) as (client, server):
        at_server = server._handler
        await asyncio.gather(client.close(), client.close(), server.close())
        assert client.closed
        assert server.closed
    await client.close()
    client.abort()
    assert handler.ends == [None]
    assert at_server.ends == [None]
    assert repr(client) == "<Connection the server closed>"


async def test_what_was_written_before_a_close_arrives(serving) -> None:
    async with serving.both() as (client, server):
        handler = server._handler
        for number in range(1000):
            client.notify(Goodbye(f"{number} {'x' * 1000}"))
        await client.close(5.0)
        await server.wait_closed()
        assert [int(notice.reason.split()[0]) for notice in handler.notices] == list(range(1000))


async def test_what_was_written_before_a_close_arrives_although_something_was_left_unread(serving) -> None:
    """Closing a socket with bytes unread throws away what the peer has not read yet."""
    sock, _ = await connect(serving.address, KEY)
    with sock:
        server, _ = await serving.peers.get()
        for number in range(200):
            server.notify(Goodbye(f"{number} {'x' * 50_000}"))
        # A notice that the server does not read any more, as it closes.
        closing = asyncio.create_task(server.close(40.0))
        await asyncio.sleep(0)
        await hostile.send(sock, encode_frame(*encode_record(Goodbye("me too"))))
        said = bytearray()
        while data := await asyncio.get_running_loop().sock_recv(sock, 1 << 20):
            said += data
    await closing
    assert said.count(b"x" * 50_000) == 200


async def test_what_arrives_while_closing_is_read_and_ignored(serving, caplog) -> None:
    sock, _ = await connect(serving.address, KEY)
    with sock:
        server, handler = await serving.peers.get()
        closing = asyncio.create_task(server.close(40.0))
        await asyncio.sleep(0)
        frame = encode_frame(*encode_record(Goodbye("x" * 1000)))
        await hostile.send(sock, frame * 1000 + frame[:100])
        sock.shutdown(socket.SHUT_WR)
        await closing
    assert handler.notices == []
    assert not caplog.records


async def test_a_peer_that_does_not_close_is_cut_off(serving) -> None:
    sock, _ = await connect(serving.address, KEY)
    with sock:
        server, handler = await serving.peers.get()
        await server.close(0.01)
        assert server.closed
        assert handler.ends == [None]


async def test_a_peer_that_says_goodbye_but_does_not_read_is_cut_off(serving, monkeypatch) -> None:
    monkeypatch.setattr(framestream, "CLOSE_TIMEOUT_S", 0.01)
    sock, _ = await connect(serving.address, KEY)
    with sock:
        server, handler = await serving.peers.get()
        while server.write_buffer_size < 1 << 20:
            server.notify(Goodbye("x" * 100_000))
            await asyncio.sleep(0)
        sock.shutdown(socket.SHUT_WR)
        await server.wait_closed()
    assert handler.ends == [None]


async def test_a_close_that_is_cancelled_cuts_the_connection(serving) -> None:
    sock, _ = await connect(serving.address, KEY)
    with sock:
        server, _ = await serving.peers.get()
        closing = asyncio.create_task(server.close(60.0))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await server.wait_closed()


async def test_closing_waits_for_the_work_it_cancels(serving) -> None:
    ended = []

    async def work(record: Record) -> Record:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            ended.append(record)
        return Done()

    serving.handler = lambda: Recorder(work)
    async with serving.both() as (client, server):
        request = client.request_nowait(Pause())
        while not server._answering:
            await asyncio.sleep(0)
        await server.close()
        assert ended == [Pause()]
        with pytest.raises(ConnectionLost):
            await request


async def test_a_request_may_close_the_connection_it_came_on(serving) -> None:
    async def leave(record: Record) -> Record:
        server, _ = serving.peers.get_nowait()
        await server.close()
        return Done()

    serving.handler = lambda: Recorder(leave)
    client = await serving.dial()
    with pytest.raises(ConnectionLost):
        await client.request(Pause())
    await client.wait_closed()


async def test_a_request_that_was_not_started_yet_ends_with_its_connection(serving, gate) -> None:
    async with serving.both() as (client, server):
        request = client.request_nowait(Sync())
        while not server._answering:
            await asyncio.sleep(0)
        server.abort()
        with pytest.raises(ConnectionLost):
            await request
    gc.collect()  # a coroutine that was never awaited would warn now


async def test_a_failing_on_closed_is_logged(serving, caplog) -> None:
    class Failing(Recorder):
        def on_closed(self, connection: Connection, error: Exception | None) -> None:
            raise RuntimeError("oops")

        def on_notice(self, connection: Connection, record: Record) -> None:
            raise RuntimeError("oops")

    client = await serving.dial(Failing())
    server, _ = await serving.peers.get()
    server.notify(Goodbye())
    await server.request(Pause())
    await client.close()
    assert [record.message for record in caplog.records] == [
        "the server: a notice of Goodbye failed",
        "the server: on_closed failed",
    ]


async def test_the_socket_is_closed_if_the_connection_cannot_be_made() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        task = asyncio.create_task(Connection.over(ours, PeerInfo(1, "", ""), Recorder()))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            connection = await task
            connection.abort()
            await connection.wait_closed()
        assert await hostile.read_to_end(nonblocking(theirs)) == b""
        assert ours.fileno() == -1


def nonblocking(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    return sock


# -- peers that break the rules ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "error_type", "text"),
    [
        ("oversize_frame", FrameTooLarge, "announces 4611686018427387904 bytes"),
        ("hangup_mid_frame", ConnectionLost, "it hung up in the middle of a frame"),
        ("garbage_frame", ProtocolError, "Connect cannot be read"),
    ],
)
async def test_a_peer_that_breaks_the_rules_is_dropped_alone(serving, kind, error_type, text, caplog) -> None:
    async with serving.both() as (client, _):
        await hostile.attack(serving.address, kind, KEY)
        server, handler = await serving.peers.get()
        await server.wait_closed()
        (error,) = handler.ends
        assert isinstance(error, error_type)
        assert text in str(error)
        assert await client.request(Pause()) == Done()
    if kind != "hangup_mid_frame":
        (line,) = caplog.records
        assert line.message.startswith(f"dropping the connection to {server.name}: ")


async def test_many_peers_that_break_the_rules_make_one_line(serving, caplog) -> None:
    await asyncio.gather(*(hostile.attack(serving.address, "oversize_frame", KEY) for _ in range(20)))
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "frame",
    [
        HEADER.pack(0, 9999, 0, 0),
        HEADER.pack(0, 1, 0x10, 0),
        encode_frame(*encode_record(Done()), request_id=1, flags=REQUEST | REPLY),
    ],
    ids=["unknown opcode", "unknown flag", "request and reply"],
)
async def test_a_frame_that_makes_no_sense_ends_the_connection(serving, frame) -> None:
    sock, _ = await connect(serving.address, KEY)
    with sock:
        server, handler = await serving.peers.get()
        await hostile.send(sock, frame)
        await server.wait_closed()
        assert isinstance(handler.ends[0], ProtocolError)


async def test_an_answer_nobody_asked_for_is_ignored(serving) -> None:
    async with serving.both() as (client, server):
        client.write(encode_frame(*encode_record(Done()), request_id=77, flags=REPLY))
        assert await client.request(Pause()) == Done()
        assert not server.closed


async def test_a_record_too_large_to_send_is_refused_here(serving) -> None:
    async with serving.both(frame_limit=1000) as (client, _):
        with pytest.raises(FrameTooLarge, match="the limit is 1000"):
            await client.request(Connect("A" * 1000, "B"))
        with pytest.raises(FrameTooLarge):
            client.notify(Goodbye("x" * 1000))
        assert not client._waiting
        assert await client.request(Pause()) == Done()


async def test_an_answer_too_large_to_send_is_refused_there(serving) -> None:
    serving.options["frame_limit"] = 1000
    serving.handler = lambda: Recorder(lambda record: ProcessResponse(True, bytes(1000)))
    async with serving.both() as (client, _):
        with pytest.raises(FrameTooLarge, match="the limit is 1000"):
            await client.request(Pause())


async def test_an_answer_that_cannot_be_encoded_is_refused(serving) -> None:
    serving.handler = lambda: Recorder(lambda record: ProcessResponse(True, error="\udcff"))
    async with serving.both() as (client, _):
        with pytest.raises(Refused, match="UnicodeEncodeError"):
            await client.request(Pause())


async def test_a_peer_that_reads_too_slowly_is_dropped(serving, caplog) -> None:
    serving.options["write_limit"] = 1 << 20
    sock, _ = await connect(serving.address, KEY)
    with sock:
        server, handler = await serving.peers.get()
        while not server._is_closing:
            server.notify(Goodbye("x" * 100_000))
            assert server.write_buffer_size < 3 << 20
            await asyncio.sleep(0)
        await server.wait_closed()
    assert "it reads too slowly" in str(handler.ends[0])
    assert "it reads too slowly" in caplog.records[0].message


async def test_a_large_record_arrives(serving) -> None:
    payload = bytes(range(256)) * 40_000
    handler = Recorder(lambda record: ProcessResponse(True, record.payload))  # type: ignore[attr-defined]
    async with serving.both(handler) as (_, server):
        answer = await server.request(ProcessRequest("U", "op", payload))
        assert answer == ProcessResponse(True, payload)


async def test_requests_in_the_same_turn_arrive_in_order(serving) -> None:
    async with serving.both() as (client, server):
        sent = [record for number in range(500) for record in (Connect(str(number), "x"), Resume())]
        await asyncio.gather(*(client.request_nowait(record) for record in sent))
        assert server._handler.requests == sent
