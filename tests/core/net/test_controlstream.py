"""What a server does so that no peer costs it too much: turns are shared, and answers must be read."""

from __future__ import annotations

import asyncio

import pytest

from ezmsg.core.net import controlstream
from ezmsg.core.net.dial import connect
from ezmsg.core.net.guard import Guard
from ezmsg.core.wire.frames import REQUEST, encode_frame
from ezmsg.core.wire.records import OPCODE_OF, Done, Goodbye, Pause, Record, Resume, encode_record
from tests.core.net.serving import KEY, Recorder, Serving

pytestmark = pytest.mark.usefixtures("serving")
ACCEPTED = {OPCODE_OF[Pause], OPCODE_OF[Resume]}


async def test_a_peer_with_much_to_ask_leaves_others_their_turn(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controlstream, "SHARE_S", 0.0)
    serving.options["guard"] = Guard(ACCEPTED)
    order: list[Record] = []

    def answer(record: Record) -> Record:
        order.append(record)
        return Done()

    serving.handler = lambda: Recorder(answer)
    sock, _ = await connect(serving.address, KEY)
    with sock:
        busy, _ = await serving.peers.get()
        other = await serving.dial()
        await serving.peers.get()
        many = b"".join(encode_frame(*encode_record(Pause()), number, REQUEST) for number in range(100))
        await asyncio.get_running_loop().sock_sendall(sock, many)
        while not order:
            await asyncio.sleep(0)
        assert await other.request(Resume()) == Done()
        assert 0 < order.index(Resume()) < 100
        while len(order) < 101:
            await asyncio.sleep(0)
        assert not busy.closed
        await other.close()


async def test_a_peer_that_does_not_read_is_read_no_more_until_it_does(serving: Serving) -> None:
    guard = serving.options["guard"] = Guard(ACCEPTED, throttle_bytes=1 << 20)
    answered = 0

    def answer(record: Record) -> Record:
        nonlocal answered
        answered += 1
        return Goodbye("x" * 500_000)

    serving.handler = lambda: Recorder(answer)
    sock, _ = await connect(serving.address, KEY)
    loop = asyncio.get_running_loop()
    with sock:
        await serving.peers.get()
        many = b"".join(encode_frame(*encode_record(Pause()), number, REQUEST) for number in range(200))
        await loop.sock_sendall(sock, many)
        while not guard.counts["throttled"]:
            await asyncio.sleep(0)
        assert 0 < answered < 100
        size = 0
        async with asyncio.timeout(40):
            while size < 200 * 500_000:
                size += len(await loop.sock_recv(sock, 1 << 20))
        assert answered == 200


async def test_what_is_held_for_a_peer_is_known_and_given_back(serving: Serving) -> None:
    guard = serving.options["guard"] = Guard(ACCEPTED)
    sock, _ = await connect(serving.address, KEY)
    with sock:
        server, _ = await serving.peers.get()
        while guard.held_bytes < 2 << 20:
            server.notify(Goodbye("x" * 500_000))
            await asyncio.sleep(0)
        assert guard.held_bytes == server.write_buffer_size
        server.abort()
        await server.wait_closed()
        assert guard.held_bytes == 0
