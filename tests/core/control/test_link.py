"""A link and a server that comes and goes, at every moment."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable

import pytest

from ezmsg.core.control import ControlClient
from ezmsg.core.control.link import ServerLink
from ezmsg.core.errors import ConnectionLost, ProtocolError, ServerUnreachable
from ezmsg.core.net.authkey import AuthKey
from ezmsg.core.wire.records import CloseSession, Done, GetGraph, Goodbye, OpenSession, Record
from tests.core.control.scriptedserver import ScriptedServer, never

PATIENCE_S = 40.0


class Place:
    """Whose place it is: opens a session, and remembers."""

    def __init__(self) -> None:
        self.introduced = 0
        self.ends: list[str] = []
        self.ended = asyncio.Event()

    async def introduce(self, client: ControlClient) -> None:
        self.introduced += 1
        await client.request(OpenSession(), timeout_s=PATIENCE_S)

    def on_request(self, connection: object, record: Record) -> Record:
        return Done()

    def on_notice(self, connection: object, record: Record) -> None:
        raise AssertionError(record)

    def on_end(self, reason: str) -> None:
        self.ends.append(reason)
        self.ended.set()


@pytest.fixture
async def host() -> AsyncIterator[ScriptedServer]:
    host = ScriptedServer()
    yield host
    await host.close()


@pytest.fixture
def place() -> Place:
    return Place()


@pytest.fixture
async def link(host: ScriptedServer, place: Place) -> AsyncIterator[ServerLink]:
    """A link that has taken its place."""
    await host.up()
    link = await ServerLink.connect(host.address, place, name="test")
    await link.introduce()
    assert isinstance(await asked(host), OpenSession)
    yield link
    await link.close()


async def asked(host: ScriptedServer) -> Record:
    """What it is asked next."""
    return await asyncio.wait_for(host.asked.get(), PATIENCE_S)


async def until_lost(link: ServerLink) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while link.is_up:
            await asyncio.sleep(0.001)


async def test_a_server_that_is_lost_while_it_lets_in_for_the_first_time_is_an_error(
    host: ScriptedServer, place: Place
) -> None:
    await host.up()
    host.answer = never
    link = await ServerLink.connect(host.address, place, name="test")
    introducing = asyncio.create_task(link.introduce())
    await asked(host)
    await host.down()
    with pytest.raises(ConnectionLost):
        await introducing
    await link.close()
    assert place.introduced == 1
    assert place.ends == ["it was closed"]


async def test_one_that_is_lost_right_after_the_connection_was_made_is_an_error(
    host: ScriptedServer, place: Place
) -> None:
    await host.up()
    link = await ServerLink.connect(host.address, place, name="test")
    await host.down()
    await until_lost(link)
    with pytest.raises(ConnectionLost):
        await link.introduce()
    await link.abort()


async def test_one_that_is_lost_again_and_again_while_it_lets_in_is_taken_when_it_lets_in(
    host: ScriptedServer, place: Place, link: ServerLink
) -> None:
    host.answer = never
    for _ in range(3):
        await host.restart()
        assert isinstance(await asked(host), OpenSession)
        assert not link.is_up
    waiting = asyncio.create_task(link.request(GetGraph(), timeout_s=PATIENCE_S))
    host.answer = lambda record: Done()
    await host.restart()
    assert isinstance(await asked(host), OpenSession)
    assert isinstance(await asked(host), GetGraph)
    await waiting
    assert place.introduced == 5
    assert link.is_up
    assert place.ends == []


async def test_one_that_does_not_let_in_yet_is_asked_again(
    host: ScriptedServer, place: Place, link: ServerLink, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(record: Record) -> Record:
        raise ProtocolError("not yet")

    host.answer = refuse
    await host.restart()
    for _ in range(3):
        await asked(host)
    host.answer = lambda record: Done()
    await link.request(GetGraph(), timeout_s=PATIENCE_S)
    assert "cannot come back" in caplog.text
    assert "not yet" in caplog.text


async def test_a_request_that_waits_goes_on_waiting_when_the_server_is_lost_again(
    host: ScriptedServer, place: Place, link: ServerLink
) -> None:
    await host.down()
    await until_lost(link)
    waiting = asyncio.create_task(link.request(GetGraph(), timeout_s=PATIENCE_S))
    await asyncio.sleep(0)
    # It is back, and lost in the same turn of the loop: before who waits for it is told.
    took = link._stop_waiting

    def take_and_lose() -> None:
        took()
        link._stop_waiting = took  # type: ignore[method-assign]
        asyncio.get_running_loop().call_soon(link.on_closed, host.connections[-1], None)

    link._stop_waiting = take_and_lose  # type: ignore[method-assign]
    await host.up()
    await waiting


async def test_what_was_being_asked_fails_and_what_is_asked_while_it_is_lost_fails_in_time(
    host: ScriptedServer, link: ServerLink
) -> None:
    host.answer = never
    asking = asyncio.create_task(link.request(GetGraph()))
    await asked(host)
    await host.down()
    with pytest.raises(ConnectionLost):
        await asking
    with pytest.raises(ConnectionLost, match=r"is not back after 0\.01 s"):
        await link.request(GetGraph(), timeout_s=0.01)
    assert not link.notify(CloseSession())


async def test_a_goodbye_while_it_lets_us_in_again_ends_the_link_for_good(
    host: ScriptedServer, place: Place, link: ServerLink
) -> None:
    def part(record: Record) -> Awaitable[Record]:
        host.connections[-1].notify(Goodbye("enough"))
        return never(record)

    host.answer = part
    await host.restart()
    await asyncio.wait_for(place.ended.wait(), PATIENCE_S)
    await host.restart()
    with pytest.raises(ConnectionLost, match="enough"):
        await link.request(GetGraph())
    await link.close()
    assert place.ends == ["enough"]
    assert place.introduced == 2


@pytest.mark.parametrize("first", ["goodbye", "cut"])
async def test_a_goodbye_to_one_link_is_the_end_of_those_that_were_cut_off(
    host: ScriptedServer, place: Place, link: ServerLink, first: str
) -> None:
    cut_off = Place()
    other = await ServerLink.connect(host.address, cut_off, name="slow to read")
    await other.introduce()
    to_link, to_other = host.connections
    if first == "cut":
        to_other.abort()
        await until_lost(other)
    to_link.notify(Goodbye("enough"))
    await asyncio.wait_for(place.ended.wait(), PATIENCE_S)
    to_other.abort()
    await asyncio.wait_for(cut_off.ended.wait(), PATIENCE_S)
    assert place.ends == ["enough"]
    assert [end.startswith("enough, and did not wait") for end in cut_off.ends] == [True]
    # A successor is another server.
    await host.restart()
    late = await ServerLink.connect(host.address, Place(), name="late")
    await host.down()
    await until_lost(late)
    await host.up()
    await late.request(GetGraph(), timeout_s=PATIENCE_S)
    for done in (late, other):
        await done.close()


@pytest.mark.parametrize("way", ["close", "abort", "cancel"])
@pytest.mark.parametrize("moment", ["looking", "greeting", "introducing", "refused"])
async def test_it_can_be_closed_at_every_moment_of_its_return(
    host: ScriptedServer, place: Place, link: ServerLink, moment: str, way: str
) -> None:
    waiting = asyncio.create_task(link.request(GetGraph(), timeout_s=PATIENCE_S))
    await asyncio.wait_for(waiting, PATIENCE_S)
    await asked(host)
    await host.down()
    await until_lost(link)
    waiting = asyncio.create_task(link.request(GetGraph(), timeout_s=PATIENCE_S))
    if moment == "greeting":
        silent = host.stand_still()
        conn, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(silent), PATIENCE_S)
        conn.close()
    elif moment != "looking":
        host.answer = never if moment == "introducing" else lambda record: (_ for _ in ()).throw(ProtocolError("no"))
        await host.up()
        await asked(host)
    if way == "cancel":
        closing = asyncio.create_task(link.close())
        await asyncio.sleep(0)
        closing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await closing
        await link.wait_closed()
    else:
        await (link.close() if way == "close" else link.abort())
    with pytest.raises(ConnectionLost, match="it was closed"):
        await waiting
    assert place.ends == ["it was closed"]
    with pytest.raises(ConnectionLost, match="it was closed"):
        await link.request(GetGraph())


async def test_a_stranger_at_the_address_is_not_taken_for_the_server(
    host: ScriptedServer, place: Place, link: ServerLink, caplog: pytest.LogCaptureFixture
) -> None:
    await host.down()
    await host.up(AuthKey(b"s" * 32, explicit=True))
    async with asyncio.timeout(PATIENCE_S):
        while "no way back" not in caplog.text:
            await asyncio.sleep(0.001)
    assert place.introduced == 1
    await host.restart()
    await link.request(GetGraph(), timeout_s=PATIENCE_S)
    assert place.introduced == 2


async def test_a_server_that_stands_still_is_waited_for_and_taken_when_it_goes_on(
    host: ScriptedServer, place: Place, link: ServerLink
) -> None:
    await host.down()
    await until_lost(link)
    host.stand_still()
    with pytest.raises(ConnectionLost, match="is not back"):
        await link.request(GetGraph(), timeout_s=0.3)
    await host.up()
    await link.request(GetGraph(), timeout_s=PATIENCE_S)
    assert place.introduced == 2


async def test_of_many_links_one_looks_and_all_are_back(host: ScriptedServer) -> None:
    await host.up()
    places = [Place() for _ in range(100)]
    links = [await ServerLink.connect(host.address, place, name=f"link {n}") for n, place in enumerate(places)]
    for link in links:
        await link.introduce()
    await host.down()
    silent = host.stand_still()
    loop = asyncio.get_running_loop()
    for number in range(5):
        found, _ = await asyncio.wait_for(loop.sock_accept(silent), PATIENCE_S)
        # Nobody else comes while it looks, nor when it was sent away.
        await links[number].close()
        with pytest.raises(BlockingIOError):
            silent.accept()
        found.close()
    await host.up()
    await asyncio.gather(*(link.request(GetGraph(), timeout_s=PATIENCE_S) for link in links[5:]))
    for link in links:
        await link.close()


async def test_links_of_several_loops_come_back_each_on_its_own(host: ScriptedServer, link: ServerLink) -> None:
    ready, done = threading.Event(), threading.Event()

    async def live() -> None:
        other = Place()
        link = await ServerLink.connect(host.address, other, name="in a thread")
        await link.introduce()
        ready.set()
        async with asyncio.timeout(PATIENCE_S):
            while other.introduced < 4 or not link.is_up:
                await asyncio.sleep(0.001)
        await link.close()
        done.set()

    thread = threading.Thread(target=asyncio.run, args=(live(),))
    thread.start()
    await asyncio.to_thread(ready.wait, PATIENCE_S)
    await asked(host)
    for _ in range(3):
        await host.down()
        await until_lost(link)
        await host.up()
        await link.request(GetGraph(), timeout_s=PATIENCE_S)
        for _ in range(3):  # two introductions, one request
            await asked(host)
    await asyncio.to_thread(thread.join, PATIENCE_S)
    assert done.is_set()


def test_a_loop_that_ends_with_a_link_that_looks_leaves_nothing_behind() -> None:
    async def leave() -> ServerLink:
        host = ScriptedServer()
        await host.up()
        link = await ServerLink.connect(host.address, Place(), name="left")
        await link.introduce()
        await host.down()
        silent = host.stand_still()
        found, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(silent), PATIENCE_S)
        found.close()
        await host.close()
        asyncio.get_running_loop().call_soon(asyncio.ensure_future, asyncio.sleep(0))
        return link

    loop = asyncio.new_event_loop()
    link = loop.run_until_complete(leave())
    for task in asyncio.all_tasks(loop):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
    loop.close()
    assert not link.is_up


async def test_an_address_without_a_server_is_an_error_and_not_waited_for(host: ScriptedServer, place: Place) -> None:
    with pytest.raises(ServerUnreachable):
        await ServerLink.connect(host.address, place, name="test")
