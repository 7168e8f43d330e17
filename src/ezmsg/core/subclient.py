"""A subscriber: receives from every publisher that reaches its topic."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Container, Mapping
from ipaddress import ip_address
from typing import Any
from uuid import UUID, uuid4

from msgspec.structs import replace

from ezmsg.core.channelmanager import CHANNELS, ChannelManager
from ezmsg.core.config import DEFAULT_HOST
from ezmsg.core.control import ControlClient
from ezmsg.core.control.link import WAIT_S, ServerLink
from ezmsg.core.control.search import LOG
from ezmsg.core.currentmessage import current_message
from ezmsg.core.errors import EzmsgError
from ezmsg.core.inbox import Inbox
from ezmsg.core.lease import Lease, UserSpan
from ezmsg.core.messagechannel import Channel, Subscription
from ezmsg.core.net.address import AddressType, boot_id
from ezmsg.core.profiling import PROFILE_TIME, PROFILES, ProfileRegistry, SubscriberMetrics
from ezmsg.core.recorder.edge import Value
from ezmsg.core.wire.records import Done, OpenSubscriber, PublisherRoute, Record, Routing
from ezmsg.core.wire.records.fields import queue_of, require_name

logger = logging.getLogger("ezmsg")

DEFAULT_LEAKY_QUEUE = 1
# Between attempts to reach a publisher that the server says is there: doubled after each, up to the second.
REJOIN_FIRST_S = 0.1
REJOIN_MOST_S = 3.0


class Subscriber:
    """Receives the messages of every publisher that reaches a topic.

    Made by `Subscriber.create` (or `GraphContext.subscriber`), used on the event loop that made it.

    Attributes:
        id: Identifies this subscriber in the graph.
        topic: What it subscribes to.
        leaky: Whether it keeps only the newest messages.
        is_stopped: Nothing new comes any more.
    """

    _control: ServerLink
    _profiles: ProfileRegistry
    _metrics: SubscriberMetrics

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("use `await Subscriber.create(topic, ...)` or `await context.subscriber(topic)`")

    def _prepare(
        self, topic: str, leaky: bool, max_queue: int, channels: ChannelManager, profiles: ProfileRegistry
    ) -> None:
        self.id: UUID = uuid4()
        self.topic = topic
        self.leaky = leaky
        self.is_stopped = False
        self._max_queue = max_queue
        self._inbox = Inbox(topic, max_queue, profiles)
        self._subscriptions: dict[str, Subscription] = {}
        # Who reaches us, as the server said last; whom of them we try to reach again.
        self._routes: dict[str, PublisherRoute] = {}
        self._rejoining: dict[str, asyncio.Task[None]] = {}
        self._routing = asyncio.Lock()
        # Whether the server may not have known its whole graph when it told us last.
        self._is_unsettled = False
        self._channels = channels
        self._profiles = profiles

    @classmethod
    async def create(
        cls,
        topic: str,
        graph_address: AddressType | None = None,
        *,
        leaky: bool = False,
        max_queue: int | None = None,
        channels: ChannelManager = CHANNELS,
        profiles: ProfileRegistry = PROFILES,
        unit: str = "",
        task: str = "",
        **_ignored: Any,
    ) -> Subscriber:
        """Subscribe to a topic; when this returns, every publisher that reaches the topic is connected.

        Args:
            topic: Exact name; there are no wildcards.
            graph_address: Of the GraphServer; None for the default.
            leaky: Keep only the newest `max_queue` messages, drop the oldest.
            max_queue: Length of a leaky queue (default 1); ignored otherwise.
            channels: The channels of this process.
            profiles: The recorder of this process.
            unit: The address of the unit that receives, for telemetry.
            task: Its task.

        Raises:
            ServerUnreachable: No GraphServer answers at the address.
            ValueError: `max_queue` is not positive, or `topic` cannot be a name.
        """
        require_name("topic", topic)
        max_queue = queue_of(max_queue)
        self = object.__new__(cls)
        self._prepare(topic, leaky, (max_queue or DEFAULT_LEAKY_QUEUE) if leaky else 0, channels, profiles)
        self._control = await ServerLink.connect(graph_address, self, name=f"subscriber {topic}")
        try:
            self._metrics = profiles.register_subscriber(
                self.id, topic, graph_address=str(self._control.address), unit=unit, task=task
            )
            queue = self._inbox.queue
            self._metrics.queue_depth = lambda: len(queue)
            self._metrics.holding = self._inbox.holding
            await self._control.introduce()
        except BaseException:
            self.close()
            await self.wait_closed()
            raise
        return self

    def __repr__(self) -> str:
        state = "closed" if self._inbox.is_closed else f"queued={len(self._inbox.queue)}"
        return f"<Subscriber {self.topic} {state} publishers={len(self._subscriptions)}>"

    # -- receiving ----------------------------------------------------------------------------------------------------

    async def recv(self) -> Any:
        """The next message, as a copy of the caller's own.

        What this task publishes until its next receive belongs to this message.

        Raises:
            SubscriberClosed: It is closed, or was while waiting.
            MessageNotReadable: The message cannot be decoded in this process.
        """
        lease = self.recv_zero_copy()
        async with lease as obj:
            own = lease.own(obj)
        lease.keep_context()
        return own

    def recv_zero_copy(self) -> Lease:
        """An async context manager that yields the next message itself and releases it when the block is left.

        Do not change the object, and do not keep views of it: what they show after the block is undefined.

        Raises:
            SubscriberClosed: It is closed, or was while waiting.
            MessageNotReadable: The message cannot be decoded in this process.
        """
        lease = Lease()
        lease.inbox = self._inbox
        return lease

    @property
    def has_message(self) -> bool:
        """Whether a message waits to be received; may be asked from any thread."""
        return bool(self._inbox.queue)

    @property
    def rests(self) -> int:
        """How often whoever receives found no message, and let the loop run."""
        return self._inbox.rests

    def watch(self, waiter: asyncio.Future[None]) -> None:
        """Set this future when the next message comes; one future may watch several subscribers.

        It gets SubscriberClosed when this one is closed. Whoever is done with it calls `unwatch`.
        """
        self._inbox.watch(waiter)

    def unwatch(self, waiter: asyncio.Future[None]) -> None:
        """Watch no more; if messages wait all the same, who waits next is told."""
        self._inbox.unwatch(waiter)

    def begin_profile(self) -> int:
        """Begin a user span within the message this task holds: its start in ns, or 0 when it is not sampled."""
        held = self._held()
        return PROFILE_TIME() if held is not None and held.is_sampled else 0

    def end_profile(self, start_ns: int, label: str | None = None) -> None:
        """End a user span that `begin_profile` began; does nothing when that returned 0."""
        held = self._held()
        if start_ns and held is not None:
            held.record_user_span(start_ns, PROFILE_TIME(), label)

    def profile(self, label: str, attributes: Mapping[str, Value] | None = None) -> UserSpan:
        """As `ezmsg.core.profile`, within messages of this subscriber alone."""
        return UserSpan(label, attributes, self._inbox)

    def _held(self) -> Lease | None:
        """The message of this subscriber that the running task handles."""
        held = current_message.get()
        if not isinstance(held, Lease) or held.measured is None or not held.is_of(self._inbox):
            return None
        return held

    # -- routing ------------------------------------------------------------------------------------------------------

    async def introduce(self, client: ControlClient) -> None:
        """Ask a server for the topic; when this returns, every publisher that it knows to reach it is connected."""
        self._is_unsettled = True
        opening = OpenSubscriber(str(self.id), self.topic, os.getpid(), boot_id(), self._control.token)
        await self._apply(await client.request(opening, Routing, WAIT_S))

    def on_request(self, _connection: object, record: Record) -> Any:
        """The server sends the publishers that now reach this topic; the answer says that they are connected."""
        if isinstance(record, Routing):
            return self._apply(record)
        raise EzmsgError(f"a subscriber has no answer to {type(record).__name__}")

    def on_notice(self, _connection: object, record: Record) -> None:
        """Nothing else is told to a subscriber."""

    def on_end(self, reason: str) -> None:
        """The server has ended: messages go on arriving from the publishers that are connected."""

    async def _apply(self, routing: Routing) -> Record:
        async with self._routing:
            if self.is_stopped:
                return Done()
            told = {route.publisher_id: route for route in routing.publishers}
            # A server that knows only part of the graph adds to those we know.
            kept = self._routes if routing.is_partial else {}
            self._routes = {known: r for known, r in kept.items() if _reaches(routing, r.topic)} | told
            for publisher_id, subscription in list(self._subscriptions.items()):
                # One that is not told, but could reach us, ends its channel itself, after its last message.
                topic = subscription.channel.topic
                if publisher_id not in told and not _reaches(routing, topic):
                    self._cut(self._subscriptions.pop(publisher_id))
                    if self._is_unsettled and not routing.is_partial:
                        LOG.warning(
                            f"no way to {self.topic} at {self._control.address}",
                            f"{self!r} lost {topic}: nobody told the GraphServer that is there now of a way from it",
                        )
            self._is_unsettled = routing.is_partial
            for publisher_id in self._rejoining.keys() - self._routes.keys():
                self._rejoining.pop(publisher_id).cancel()
            added = [route for known, route in told.items() if known not in self._subscriptions]
            joined = await asyncio.gather(*(self._join(route) for route in added))
            for route, is_joined in zip(added, joined, strict=True):
                if not is_joined:
                    self._rejoin_soon(route.publisher_id)
            return Done()

    async def _join(self, route: PublisherRoute) -> bool:
        """Hear a publisher; False when it cannot be reached."""
        publisher_id = route.publisher_id
        try:
            channel = await self._channels.open(located(route, self._control.address.host))
        except (OSError, EzmsgError) as error:
            logger.debug("%r could not reach publisher %s on %s: %s", self, publisher_id, route.topic, error)
            return False
        is_needed = publisher_id in self._routes and publisher_id not in self._subscriptions
        if channel.is_ended or not is_needed:
            self._channels.close(channel)
            return not is_needed
        if self.leaky and self._max_queue >= channel.num_buffers:
            logger.warning(
                "Leaky Subscriber on %s may cause backpressure on %s: max_queue=%d, num_buffers=%d",
                self.topic, route.topic, self._max_queue, channel.num_buffers,
            )  # fmt: skip
        metrics = self._metrics.edge(route.publisher_id, route.topic, channel.kind, foreign=route.boot_id != boot_id())
        metrics.ids = channel.trace_ids
        subscription = Subscription(channel, self.topic, metrics, self._channel_ended)
        self._subscriptions[route.publisher_id] = subscription
        self._inbox.accept(subscription)
        channel.subscribe(subscription)
        return True

    def _channel_ended(self, subscription: Subscription) -> None:
        """A publisher is gone, or the connection to it; what it sent stays in the inbox."""
        publisher_id = subscription.channel.publisher_id
        if self._subscriptions.get(publisher_id) is subscription:
            del self._subscriptions[publisher_id]
            self._leave(subscription.channel, subscription)
            self._inbox.retire(subscription)
            self._rejoin_soon(publisher_id)

    def _rejoin_soon(self, publisher_id: str) -> None:
        known = self._rejoining.get(publisher_id)
        if publisher_id in self._routes and (known is None or known.done()):
            self._rejoining[publisher_id] = asyncio.create_task(
                self._rejoin(publisher_id), name=f"rejoin publisher {publisher_id}"
            )

    async def _rejoin(self, publisher_id: str) -> None:
        """Reach a publisher again, until it is heard or the server says that it is gone."""
        delay_s = REJOIN_FIRST_S
        while True:
            await asyncio.sleep(delay_s)
            route = self._routes.get(publisher_id)
            if route is None or publisher_id in self._subscriptions:
                return
            if await self._join(route):
                logger.warning(
                    "%r reaches publisher %s on %s again; what it sent meanwhile is missing",
                    self, publisher_id, route.topic,
                )  # fmt: skip
                return
            if not self._control.is_up:
                return  # nobody will say that it is gone; probably it is. A server that is back tells whom to reach
            if delay_s == REJOIN_FIRST_S:
                logger.warning("%r cannot reach publisher %s on %s; trying again", self, publisher_id, route.topic)
            delay_s = min(2 * delay_s, REJOIN_MOST_S)

    def _cut(self, subscription: Subscription) -> None:
        """Stop hearing a publisher at once: queued messages of it are dropped and released."""
        self._inbox.drop(subscription)
        self._leave(subscription.channel, subscription)
        self._inbox.retire(subscription)

    def _leave(self, channel: Channel, subscription: Subscription) -> None:
        channel.unsubscribe(subscription)
        self._channels.close(channel)

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop receiving; whatever is queued is released. Waiting receives raise SubscriberClosed."""
        if self._inbox.is_closed:
            return
        self._inbox.close()
        self.stop()
        # What is still held will be recorded when it is let go of.
        self._inbox.when_left(lambda: self._profiles.unregister_subscriber(self.id))
        self._control.close_soon()

    def stop(self, but: Container[str] = ()) -> None:
        """Hold publishers up no longer: whatever is queued is released, and nothing more comes. `close` is to follow.

        The GraphServer is not told before that.

        Args:
            but: Publishers, by id, that are held up until this is called again.
        """
        self.is_stopped = True
        self._routes = {}
        for rejoining in self._rejoining.values():
            rejoining.cancel()
        for publisher_id in [known for known in self._subscriptions if known not in but]:
            self._cut(self._subscriptions.pop(publisher_id))

    @property
    def is_connected(self) -> bool:
        """Whether it has a connection to the GraphServer."""
        return self._control.is_up

    def forget_graph(self) -> None:
        """The graph ends: tell the GraphServer nothing any more, not even that this is closed."""
        self._control.abort_soon()

    @property
    def is_gone(self) -> bool:
        """Whether it was closed, and `wait_closed` has nothing to wait for."""
        is_left = self._control.is_gone and all(rejoining.done() for rejoining in self._rejoining.values())
        return self._inbox.is_closed and is_left and self._channels.is_settled

    async def wait_closed(self) -> None:
        """Wait until nothing of this subscriber is left."""
        if self._rejoining:
            await asyncio.wait(self._rejoining.values())
        await self._control.wait_closed()
        await self._channels.wait_closed()


def profile(label: str, attributes: Mapping[str, Value] | None = None) -> UserSpan:
    """Measure a block within the message that the running task handles, whatever subscriber it came from.

        with ez.profile("fft", {"window": "hann"}) as span:
            spectrum = np.fft.rfft(message.data)
            span.set("bins", len(spectrum))

    It becomes a span of the message's trace, with the type of an exception that leaves the block, and a sample
    `user_span_ns`. Where the message is not sampled, or there is none, nothing is recorded.

    Args:
        label: What the span is called. A few texts, not one for each message.
        attributes: What else is told of it: 16 texts of up to 256 characters, numbers or booleans. Of texts, a process
            keeps 4096 different ones; numbers may be any.
    """
    return UserSpan(label, attributes, None)


def _reaches(routing: Routing, topic: str) -> bool:
    """Whether messages on a topic may reach a subscriber, as far as the server knows."""
    return topic not in routing.cut if routing.is_partial else topic in routing.topics


def located(route: PublisherRoute, server_host: str) -> PublisherRoute:
    """Where to connect to, for a publisher that listens on every interface.

    Args:
        route: As the server tells it. Its host is unspecified only if the publisher and the server share a host.
        server_host: Where we reach the server.
    """
    try:
        is_everywhere = ip_address(route.host).is_unspecified
    except ValueError:
        return route  # a name
    if not is_everywhere:
        return route
    return replace(route, host=DEFAULT_HOST if route.boot_id == boot_id() else server_host)
