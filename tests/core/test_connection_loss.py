"""A connection is lost while both ends live: the place is taken again, under the same name, by nobody else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from ezmsg.core.control import ControlClient
from ezmsg.core.control.link import ServerLink
from ezmsg.core.errors import IdentityTaken, ProtocolError
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.processclient import ProcessControlClient
from ezmsg.core.pubclient import Publisher
from ezmsg.core.subclient import Subscriber
from ezmsg.core.wire import records as r
from tests.core import metadatamaking
from tests.core.relaying import Relay
from tests.core.test_hostile_control import hostile

PATIENCE_S = 40.0


@pytest.fixture
async def relay(server: GraphServer) -> AsyncIterator[Relay]:
    relay = Relay(server.address)
    await relay.open()
    yield relay
    await relay.end()


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.001)


async def lose(link: ServerLink) -> None:
    """Break its connection, and wait until it has another one."""
    assert link._client is not None
    link._client.connection.abort()
    await until(lambda: not link.is_up)
    await until(lambda: link.is_up)


async def cut(relay: Relay, *links: ServerLink) -> None:
    """Lose the peers' side of their connections, and wait until they are back; the server sees no end of the old."""
    relay.cut()
    await until(lambda: not any(link.is_up for link in links))
    await until(lambda: all(link.is_up for link in links))


@contextlib.asynccontextmanager
async def load(publisher: Publisher, *subscribers: Subscriber) -> AsyncIterator[None]:
    """Messages flow all the time: none is lost, doubled or out of order."""
    is_over = False

    async def send() -> int:
        number = 0
        while not is_over:
            await publisher.broadcast(number)
            number += 1
            await asyncio.sleep(0)
        await publisher.broadcast(None)
        return number

    async def receive(subscriber: Subscriber) -> int:
        count = 0
        while (number := await subscriber.recv()) is not None:
            assert number == count
            count += 1
        return count

    async with asyncio.timeout(2 * PATIENCE_S), asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(send())
        receiving = [tasks.create_task(receive(subscriber)) for subscriber in subscribers]
        yield
        is_over = True
    sent = sending.result()
    assert sent > 1
    assert [task.result() for task in receiving] == [sent] * len(receiving)


@pytest.mark.parametrize("whose", ["publisher", "subscriber"])
async def test_an_endpoint_that_loses_its_connection_loses_no_message(context: GraphContext, whose: str) -> None:
    await context.connect("A", "B")
    publisher = await context.publisher("A", allow_local=False)
    subscriber = await context.subscriber("B")
    async with load(publisher, subscriber):
        for _ in range(3):
            await lose({"publisher": publisher, "subscriber": subscriber}[whose]._control)
        # It is where it was, as others see it.
        late = await context.subscriber("A")
        assert len(late._subscriptions) == 1
        late.close()


async def test_a_half_open_connection_is_replaced_without_telling_anybody(
    server: GraphServer, context: GraphContext, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    routings: list[r.Record] = []
    told = Subscriber.on_request

    def tell(subscriber: Subscriber, connection: object, record: r.Record) -> Any:
        routings.append(record)
        return told(subscriber, connection, record)

    monkeypatch.setattr(Subscriber, "on_request", tell)
    process = ProcessControlClient(relay.address)
    await process.register(["U"])
    await process.report_settings_update("U", 1)
    async with GraphContext(relay.address) as other:
        await other.connect("A", "B")
        await other.register_metadata(metadatamaking.graph("ROOT/U"))
        publisher = await other.publisher("A", allow_local=False)
        subscriber = await context.subscriber("B")
        relayed = await other.subscriber("B")
        before, settings = await context.snapshot(), await context.settings_snapshot()
        events = context.subscribe_topology_events()
        last = (await anext(events)).seq
        last = (await anext(events)).seq
        routings.clear()
        async with load(publisher, subscriber, relayed):
            for _ in range(3):
                assert process._control is not None
                assert other._session is not None
                await cut(relay, process._control, other._session, publisher._control, relayed._control)
                assert await context.snapshot() == before
        assert await context.settings_snapshot() == settings
        assert (await other.process_ping("U")).process_id == process.client_id
        assert routings == []
        await context.connect("X", "Y")
        assert (await anext(events)).seq == last + 1
        await events.aclose()
    await process.close()
    assert (await context.snapshot()).processes == {}


async def test_an_edge_that_was_taken_away_while_the_publisher_was_not_connected_is_gone(
    context: GraphContext,
) -> None:
    await context.connect("A", "B")
    publisher = await context.publisher("A", allow_local=False)
    subscriber = await context.subscriber("B")
    assert publisher._control._client is not None
    publisher._control._client.connection.abort()
    await until(lambda: not publisher._control.is_up)
    async with asyncio.timeout(PATIENCE_S):
        while (await context.snapshot()).graph:
            await context.disconnect("A", "B")
    assert not subscriber._subscriptions
    await until(lambda: publisher._control.is_up)
    await context.snapshot()
    assert not subscriber._subscriptions


OPENINGS: dict[str, Callable[[Any], r.Record]] = {
    "publisher": lambda owner: r.OpenPublisher(owner.publisher_id, "A", 1, "boot", "127.0.0.1", 1),
    "subscriber": lambda owner: r.OpenSubscriber(str(owner.id), "A", 1, "boot"),
    "process": lambda owner: r.OpenProcess(1, "host", str(owner.client_id)),
    "session": lambda owner: r.OpenSession(str(owner._session_id)),
}


class Nobody:
    """Handler of a connection that only asks."""

    def on_request(self, connection: object, record: r.Record) -> r.Record:
        raise AssertionError(record)

    def on_notice(self, connection: object, record: r.Record) -> None:
        raise AssertionError(record)

    def on_closed(self, connection: object, error: Exception | None) -> None:
        pass


@contextlib.asynccontextmanager
async def stranger(server: GraphServer) -> AsyncIterator[ControlClient]:
    client = await ControlClient.connect(server.address, Nobody(), name="stranger")
    yield client
    await client.close()


@pytest.mark.parametrize("token", ["", "wrong", "fälsch"])
@pytest.mark.parametrize("role", OPENINGS)
async def test_whoever_holds_the_key_but_not_the_token_gets_nothing_and_disturbs_nobody(
    server: GraphServer, context: GraphContext, role: str, token: str
) -> None:
    process = ProcessControlClient(server.address)
    await process.register(["U"])
    await context.connect("A", "B")
    publisher = await context.publisher("A", allow_local=False)
    subscriber = await context.subscriber("A")
    owner = {"publisher": publisher, "subscriber": subscriber, "process": process, "session": context}[role]
    before = await context.snapshot()
    opening = OPENINGS[role](owner)
    opening = type(opening)(**{**{f: getattr(opening, f) for f in opening.__struct_fields__}, "token": token})
    async with stranger(server) as client:
        with pytest.raises(IdentityTaken, match="is open already, over the connection of another peer"):
            await client.request(opening)
    assert await context.snapshot() == before
    await publisher.broadcast(1)
    assert await asyncio.wait_for(subscriber.recv(), PATIENCE_S) == 1
    assert (await context.process_ping("U")).process_id == process.client_id
    await process.close()


@pytest.mark.parametrize("identity", ["persistent", "one", "12345678", "\0" * 36])
async def test_an_id_that_is_no_uuid_is_refused(server: GraphServer, context: GraphContext, identity: str) -> None:
    async with stranger(server) as client:
        for opening in (r.OpenSession(identity, "token"), r.OpenProcess(1, "host", identity, "token")):
            with pytest.raises(ProtocolError, match="is no UUID"):
                await client.request(opening)
        # It may try again.
        await client.request(r.OpenSession())


async def test_a_telemetry_link_that_is_back_is_asked_over_its_new_connection(
    server: GraphServer, context: GraphContext
) -> None:
    hello = r.OpenTelemetry(1, "host", "boot", "process", 1, 1, 1, str(uuid4()))
    async with hostile(server, hello) as lost, hostile(server, hello) as back:
        assert lost.client is not None
        back.answer = lambda record: r.ProcessResponse(True, process_id=hello.link_id)
        await lost.client.close()
        answer = await context.process_request(None, "SWITCH", process_id=UUID(hello.link_id))
        assert (answer.ok, [type(record) for record in back.asked]) == (True, [r.ProcessRequest])
