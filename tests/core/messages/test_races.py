"""What happens at once: joining, leaving, breaking and waiting while messages are on their way."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ezmsg.core import channelmanager, graphcontext, subclient
from ezmsg.core.control.asking import ask
from ezmsg.core.errors import ConfigError, ConnectionFailed, EzmsgError, MessageNotReadable
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphserver import GraphServer, GraphService
from ezmsg.core.net.address import boot_id
from ezmsg.core.profiling import PROFILES
from ezmsg.core.pubclient import Publisher
from ezmsg.core.subclient import Subscriber
from ezmsg.core.transport import local
from ezmsg.core.wire.records import PublisherRoute, RevertSession, Routing

REMOTE: list[dict[str, Any]] = [{"allow_local": False}, {"force_tcp": True}]


@pytest.fixture(params=REMOTE, ids=["door", "tcp"])
def remote(request: pytest.FixtureRequest) -> dict[str, Any]:
    """How a publisher is made so that a subscriber of this process gets its messages over a socket."""
    return request.param


async def turns(count: int = 20) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(is_true: Any) -> None:
    """Wait until something has happened that nobody announces."""
    async with asyncio.timeout(40):
        while not is_true():
            await asyncio.sleep(0.001)


async def drained(publisher: Publisher) -> None:
    """Wait until everything that was sent is released, then go on."""
    await asyncio.wait_for(publisher.sync(), 40)
    publisher.resume()


async def receive(subscriber: Subscriber, count: int) -> list[Any]:
    return [await subscriber.recv() for _ in range(count)]


class Gate:
    """Holds the opening of channels up until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()
        connect = channelmanager.connect_channel

        async def connect_slowly(*args: Any, **kwargs: Any) -> Any:
            self.reached.set()
            await self.opened.wait()
            return await connect(*args, **kwargs)

        monkeypatch.setattr(channelmanager, "connect_channel", connect_slowly)


# -- joining and leaving ----------------------------------------------------------------------------------------------


async def test_a_message_on_the_heels_of_the_answer_to_the_opening_is_released(
    context: GraphContext, remote: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = await context.publisher("A", num_buffers=4, **remote)
    await publisher.broadcast("nobody listens")
    attached = asyncio.Event()
    attach = publisher.attach

    def attach_and_tell(outlet: Any) -> tuple[int, int]:
        attached.set()
        return attach(outlet)

    async def publish_at_once() -> None:
        await attached.wait()
        await publisher.broadcast("early")

    monkeypatch.setattr(publisher, "attach", attach_and_tell)
    publishing = asyncio.create_task(publish_at_once())
    await context.subscriber("A")
    await publishing
    await drained(publisher)


async def test_subscribers_that_come_and_go_never_hold_a_slot_for_ever(
    context: GraphContext, remote: dict[str, Any]
) -> None:
    publisher = await context.publisher("A", num_buffers=2, **remote)
    number = 0

    async def publish() -> None:
        nonlocal number
        while True:
            await publisher.broadcast(number)
            number += 1
            await asyncio.sleep(0.0002)  # the server's thread needs the interpreter, too

    publishing = asyncio.create_task(publish())
    for _ in range(30):
        subscriber = await context.subscriber("A")
        async with asyncio.timeout(40):
            first = await subscriber.recv()
            assert [await subscriber.recv() for _ in range(5)] == list(range(first + 1, first + 6))
        subscriber.close()
        await subscriber.wait_closed()
    publishing.cancel()
    await asyncio.wait([publishing])
    await drained(publisher)


async def test_a_subscriber_that_was_cancelled_while_it_joined_leaves_no_channel_behind(
    server: GraphServer, context: GraphContext, remote: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = await context.publisher("A", **remote)
    gate = Gate(monkeypatch)
    joining = asyncio.create_task(Subscriber.create("A", server.address))
    await gate.reached.wait()
    joining.cancel()
    await asyncio.wait([joining])
    gate.opened.set()
    await turns()
    await until(lambda: "channels=0" in repr(publisher))
    other = await context.subscriber("A")
    await publisher.broadcast(1)
    assert await asyncio.wait_for(other.recv(), 40) == 1


async def test_one_of_two_that_join_the_same_channel_may_be_cancelled(
    server: GraphServer, context: GraphContext, remote: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = await context.publisher("A", **remote)
    gate = Gate(monkeypatch)
    cancelled = asyncio.create_task(Subscriber.create("A", server.address))
    joining = asyncio.create_task(context.subscriber("A"))
    await gate.reached.wait()
    await turns(200)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    gate.opened.set()
    subscriber = await asyncio.wait_for(joining, 40)
    await publisher.broadcast(1)
    assert await asyncio.wait_for(subscriber.recv(), 40) == 1
    assert "channels=1" in repr(publisher)


async def test_a_publisher_that_could_not_be_reached_at_first_is_tried_again(
    context: GraphContext, remote: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = await context.publisher("A", **remote)
    connect = channelmanager.connect_channel
    failures = 2

    async def fail_at_first(*args: Any, **kwargs: Any) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise ConnectionFailed("not now")
        return await connect(*args, **kwargs)

    monkeypatch.setattr(channelmanager, "connect_channel", fail_at_first)
    subscriber = await context.subscriber("A")
    await until(lambda: "channels=1" in repr(publisher))
    await until(lambda: "publishers=1" in repr(subscriber))
    await publisher.broadcast(1)
    assert await asyncio.wait_for(subscriber.recv(), 40) == 1


async def test_what_an_ended_publisher_sent_arrives_although_the_routing_changes_meanwhile(
    context: GraphContext, remote: dict[str, Any]
) -> None:
    publisher = await context.publisher("A", **remote)
    subscriber = await context.subscriber("A")
    await publisher.broadcast("last words")
    await until(lambda: "queued=1" in repr(subscriber))
    # As the server says it: the publisher ended; then something else changed, and its end is old news.
    await subscriber._apply(Routing([], ["A"]))
    await subscriber._apply(Routing([], ["A"]))
    assert await asyncio.wait_for(subscriber.recv(), 40) == "last words"
    assert publisher.running


async def test_an_edge_that_another_session_is_just_making_carries_when_connect_returns(
    server: GraphServer, context: GraphContext, remote: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = await context.publisher("A", **remote)
    subscriber = await context.subscriber("C")
    gate = Gate(monkeypatch)
    async with GraphContext(server.address) as other:
        await other.connect("B", "C")
        first = asyncio.create_task(context.connect("A", "B"))
        await gate.reached.wait()
        second = asyncio.create_task(other.connect("A", "B"))
        await other.snapshot()
        await other.snapshot()
        assert not second.done()
        gate.opened.set()
        await second
        await publisher.broadcast(1)
        assert await asyncio.wait_for(subscriber.recv(), 40) == 1
        await first


# -- connections that break -------------------------------------------------------------------------------------------


async def test_a_connection_that_breaks_between_living_ends_is_made_again(
    context: GraphContext, remote: dict[str, Any]
) -> None:
    publisher = await context.publisher("A", num_buffers=2, **remote)
    subscribers = [await context.subscriber("A") for _ in range(2)]
    for number in range(3):
        await publisher.broadcast(number)
        for subscriber in subscribers:
            assert await subscriber.recv() == number
        [outlet] = publisher._outlets
        outlet.abort()  # pyright: ignore[reportAttributeAccessIssue]
        await until(lambda: "channels=0" in repr(publisher))
        await until(lambda: "channels=1" in repr(publisher))
        await until(lambda: all("publishers=1" in repr(subscriber) for subscriber in subscribers))
    await publisher.broadcast("again")
    for subscriber in subscribers:
        assert await subscriber.recv() == "again"


async def test_a_subscriber_that_is_trying_again_can_be_closed(
    context: GraphContext, remote: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = await context.publisher("A", **remote)
    tried = asyncio.Event()

    async def fail(*args: Any, **kwargs: Any) -> Any:
        tried.set()
        raise ConnectionFailed("never")

    subscriber = await context.subscriber("A")
    monkeypatch.setattr(channelmanager, "connect_channel", fail)
    [outlet] = publisher._outlets
    outlet.abort()  # pyright: ignore[reportAttributeAccessIssue]
    await tried.wait()
    subscriber.close()
    await asyncio.wait_for(subscriber.wait_closed(), 40)


async def test_an_edge_that_is_cut_ends_the_attempts_to_reach_its_publisher(
    context: GraphContext, remote: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await context.connect("A", "B")
    publisher = await context.publisher("A", **remote)
    subscriber = await context.subscriber("B")
    gate = Gate(monkeypatch)
    [outlet] = publisher._outlets
    outlet.abort()  # pyright: ignore[reportAttributeAccessIssue]
    await gate.reached.wait()
    await context.disconnect("A", "B")
    gate.opened.set()
    await until(lambda: "channels=0" in repr(publisher))
    await publisher.broadcast("cut")
    await turns()
    assert "queued=0 publishers=0" in repr(subscriber)


async def test_without_a_server_a_publisher_that_is_gone_is_given_up(
    server: GraphServer, context: GraphContext, remote: dict[str, Any]
) -> None:
    publisher = await context.publisher("A", **remote)
    subscriber = await context.subscriber("A")
    await asyncio.to_thread(server.stop)
    publisher.close()
    await publisher.wait_closed()
    await until(lambda: "publishers=0" in repr(subscriber))
    await until(lambda: not any("rejoin" in task.get_name() for task in asyncio.all_tasks()))


# -- several loops ----------------------------------------------------------------------------------------------------


@pytest.fixture
def other_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs only when it is told to."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


async def test_a_publisher_whose_loop_stands_still_holds_nobody_up_and_is_joined_when_it_runs(
    server: GraphServer,
    context: GraphContext,
    other_loop: asyncio.AbstractEventLoop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local, "JOIN_TIMEOUT_S", 0.05)

    async def make() -> Publisher:
        return await Publisher.create("A", server.address)

    async def publish() -> None:
        await until(lambda: "publishers=1" in repr(subscriber))
        await publisher.broadcast("now")
        publisher.close()
        await publisher.wait_closed()

    publisher = await asyncio.to_thread(other_loop.run_until_complete, make())
    subscriber = await asyncio.wait_for(context.subscriber("A"), 40)
    await asyncio.to_thread(other_loop.run_until_complete, publish())
    assert await asyncio.wait_for(subscriber.recv(), 40) == "now"


# -- waiting ----------------------------------------------------------------------------------------------------------


async def test_a_broadcast_does_not_overtake_those_that_wait_for_a_slot(context: GraphContext) -> None:
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A", num_buffers=3)
    for text in "abc":
        await publisher.broadcast(text)
    waiting = [asyncio.create_task(publisher.broadcast(text)) for text in "de"]
    await turns()
    for text in "ab":
        async with subscriber.recv_zero_copy() as message:
            assert message == text
    # Nothing ran since the slots became free.
    receiving = asyncio.create_task(receive(subscriber, 4))
    await publisher.broadcast("f")
    await asyncio.gather(*waiting)
    assert await asyncio.wait_for(receiving, 40) == list("cdef")


async def test_of_broadcasts_of_several_tasks_none_overtakes_another(context: GraphContext) -> None:
    publisher, subscriber = await context.publisher("A"), await context.subscriber("A")
    called: list[str] = []

    async def send(name: str, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        called.append(name)
        await publisher.broadcast(name)

    # The first two let the loop turn; the third comes when the first has sent and the second has not.
    await asyncio.gather(send("first", 0), send("third", 1), send("second", 0))
    assert called == ["first", "second", "third"]
    assert [await subscriber.recv() for _ in called] == called


async def test_a_broadcast_does_not_overtake_those_that_waited_while_paused(context: GraphContext) -> None:
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A")
    await publisher.broadcast("a")
    publisher.pause()
    waiting = [asyncio.create_task(publisher.broadcast(text)) for text in "bc"]
    await turns()
    publisher.resume()
    await publisher.broadcast("d")
    await asyncio.gather(*waiting)
    assert [await subscriber.recv() for _ in range(4)] == ["a", "b", "c", "d"]


async def test_sync_with_broadcasts_waiting_holds_them_until_resume(context: GraphContext) -> None:
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A", num_buffers=1)
    await publisher.broadcast(0)
    waiting = [asyncio.create_task(publisher.broadcast(number)) for number in (1, 2)]
    syncing = asyncio.create_task(publisher.sync())
    await turns()
    assert await subscriber.recv() == 0
    await asyncio.wait_for(syncing, 40)
    await turns()
    assert "queued=0" in repr(subscriber)
    publisher.resume()
    assert [await asyncio.wait_for(subscriber.recv(), 40) for _ in range(2)] == [1, 2]
    await asyncio.gather(*waiting)


# -- leases -----------------------------------------------------------------------------------------------------------


class Stubborn:
    """Cannot be unpickled."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return _raise, (self.error,)


def _raise(error: type[BaseException]) -> None:
    raise error("on purpose")


async def test_a_message_that_cannot_be_read_is_released_for_every_subscriber(
    context: GraphContext, remote: dict[str, Any]
) -> None:
    subscribers = [await context.subscriber("A") for _ in range(2)]
    publisher = await context.publisher("A", num_buffers=1, **remote)
    await publisher.broadcast(Stubborn(ImportError))
    for subscriber in subscribers:
        with pytest.raises(MessageNotReadable, match="ImportError: on purpose"):
            await subscriber.recv()
    await asyncio.wait_for(publisher.broadcast("next"), 40)
    for subscriber in subscribers:
        assert await subscriber.recv() == "next"


async def test_a_message_is_released_although_reading_it_is_interrupted(
    context: GraphContext, remote: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupt(BaseException):
        pass

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise Interrupt

    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A", num_buffers=1, **remote)
    await publisher.broadcast(["first"])
    await until(lambda: "queued=1" in repr(subscriber))
    with monkeypatch.context() as patched:
        patched.setattr(pickle, "loads", interrupted)
        with pytest.raises(Interrupt):
            await subscriber.recv()
    await drained(publisher)


async def test_a_user_span_belongs_to_the_message_of_its_own_task(
    context: GraphContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EZMSG_TRACE_RATIO", "1")
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A")
    recorded: dict[str, int] = {}
    both = asyncio.Barrier(2)

    async def work() -> None:
        async with subscriber.recv_zero_copy() as message:
            await both.wait()
            held = subscriber._held()
            assert held is not None
            recorded[message] = held.message.message_id
            await both.wait()

    for text in "ab":
        await publisher.broadcast(text)
    await asyncio.gather(work(), work())
    assert recorded == {"a": 0, "b": 1}


# -- where a publisher is ---------------------------------------------------------------------------------------------


async def test_a_publisher_on_every_interface_is_reached_at_an_address_of_its_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EZMSG_AUTHKEY", "a secret of this test")
    dialled: list[PublisherRoute] = []
    connect = channelmanager.connect_channel

    async def noted(route: PublisherRoute, *args: Any, **kwargs: Any) -> Any:
        dialled.append(route)
        return await connect(route, *args, **kwargs)

    monkeypatch.setattr(channelmanager, "connect_channel", noted)
    server = GraphServer()
    server.start("127.0.0.1:0")
    async with GraphContext(server.address) as context:
        subscriber = await context.subscriber("A")
        publisher = await context.publisher("A", host="0.0.0.0", force_tcp=True)
        await publisher.broadcast(1)
        assert await subscriber.recv() == 1
    await asyncio.to_thread(server.stop)
    assert [route.host for route in dialled] == ["127.0.0.1"]


def test_a_publisher_beside_a_distant_server_is_looked_for_where_the_server_is() -> None:
    route = PublisherRoute("id", "T", 1, "another boot", "0.0.0.0", 4711)
    assert subclient.located(route, "graph.lan").host == "graph.lan"
    here = PublisherRoute("id", "T", 1, boot_id(), "0.0.0.0", 4711)
    assert subclient.located(here, "graph.lan").host == "127.0.0.1"
    named = PublisherRoute("id", "T", 1, "another boot", "10.0.0.7", 4711)
    assert subclient.located(named, "graph.lan") is named


# -- a server that does not answer ------------------------------------------------------------------------------------


async def test_leaving_goes_on_quietly_when_the_server_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphcontext, "CLOSE_TIMEOUT_S", 0.5)
    server = GraphServer()
    server.start("127.0.0.1:0")
    thaw = threading.Event()
    try:
        async with GraphContext(server.address) as context:
            await context.connect("A", "B")
            await context.subscriber("B")
            await context.publisher("A")
            assert server._loop is not None
            server._loop.call_soon_threadsafe(thaw.wait)
            leaving = asyncio.timeout(40)
            await leaving.__aenter__()
        await leaving.__aexit__(None, None, None)
    finally:
        thaw.set()
        await asyncio.to_thread(server.stop)


async def test_leaving_that_is_cancelled_while_the_server_is_frozen_leaves_no_connection_behind() -> None:
    server = GraphServer()
    server.start("127.0.0.1:0")
    thaw = threading.Event()
    try:
        context = await GraphContext(server.address).__aenter__()
        session = context._session
        assert session is not None
        assert server._loop is not None
        server._loop.call_soon_threadsafe(thaw.wait)
        leaving = asyncio.create_task(context.__aexit__(None, None, None))
        while context.is_connected:
            await asyncio.sleep(0)
        leaving.cancel()  # it waits for the server to confirm
        await asyncio.wait([leaving])
        assert leaving.cancelled()
        assert session.is_gone
    finally:
        thaw.set()
        await asyncio.to_thread(server.stop)


# -- creation that fails half-way -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["publisher", "subscriber"])
async def test_an_endpoint_that_cannot_be_measured_leaves_no_connection_behind(
    context: GraphContext, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise ConfigError("EZMSG_TRACE_RATE", "often", "a number")

    monkeypatch.setattr(PROFILES, f"register_{kind}", refuse)
    with pytest.raises(ConfigError):  # the leak guard looks for the rest
        await getattr(context, kind)("A")


async def test_only_a_session_can_be_reverted(server: GraphServer, context: GraphContext) -> None:
    service = GraphService(server.address)
    await service.connect("A", "B")
    with pytest.raises(EzmsgError, match="OpenSession"):
        await ask(server.address, RevertSession())
    assert (await service.dag()).nodes == {"A", "B"}
