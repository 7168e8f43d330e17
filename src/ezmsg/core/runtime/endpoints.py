"""The publishers and subscribers of the units of one process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Generator, Iterable
from functools import partial
from typing import Any

from ezmsg.core.pubclient import Publisher
from ezmsg.core.runtime.publishing import Outlets
from ezmsg.core.runtime.together import in_turns
from ezmsg.core.stream import InputStream, OutputStream, Stream
from ezmsg.core.subclient import Subscriber
from ezmsg.core.unit import Function, Unit, published, subscribed, tasks_of

logger = logging.getLogger("ezmsg")

# For what was sent to reach those who do not belong to the run.
CLOSE_TIMEOUT_S = 2.0


class Endpoints:
    """One publisher for each output stream, and one subscriber for each input stream that a task receives from.

    Nobody receives from other input streams: a subscriber there would only hold publishers up.

    Attributes:
        subscribers: By stream.
        outlets: The publishers, for tasks.
        publisher_ids: Theirs.
    """

    def __init__(self) -> None:
        self.subscribers: dict[InputStream, Subscriber] = {}
        self.outlets = Outlets()
        self.publisher_ids: set[str] = set()
        self._publishers: list[Publisher] = []

    async def open(self, units: Iterable[Unit], address: str) -> None:
        """Open all of them, publishers paused; settings of streams count as they are now."""
        units = list(units)
        inputs = [(unit, *receiver) for unit in units for receiver in receivers(unit).items()]
        await in_turns([partial(self._subscribe, *it, address) for it in inputs])
        outputs = [(unit, it) for unit in units for it in unit.streams.values() if isinstance(it, OutputStream)]
        await in_turns([partial(self._publish, *it, address) for it in outputs])

    async def _subscribe(self, unit: Unit, stream: InputStream, tasks: Iterable[str], address: str) -> None:
        with _opening(stream):
            self.subscribers[stream] = await Subscriber.create(
                stream.address, address, leaky=stream.leaky, max_queue=stream.max_queue,
                unit=unit.address, task=", ".join(tasks),
            )  # fmt: skip

    async def _publish(self, unit: Unit, stream: OutputStream, address: str) -> None:
        with _opening(stream):
            publisher = await Publisher.create(
                stream.address, address, host=stream.host, port=stream.port, buf_size=stream.buf_size,
                num_buffers=stream.num_buffers, start_paused=True, force_tcp=stream.force_tcp,
                allow_local=stream.allow_local, unit=unit.address, task=", ".join(_senders(unit).get(stream, ())),
            )  # fmt: skip
        self._publishers.append(publisher)
        self.publisher_ids.add(publisher.publisher_id)
        self.outlets.add(stream, publisher.broadcast)

    def resume(self) -> None:
        """Let publishers publish."""
        for publisher in self._publishers:
            publisher.resume()

    def warn_no_more(self) -> None:
        """Have publishers not warn of backpressure: receivers are about to end."""
        for publisher in self._publishers:
            publisher.warn_no_more()

    def let_go(self) -> None:
        """Let publishers go on that are held up by who has ended the run: what is cancelled may have last words."""
        for subscriber in self.subscribers.values():
            if subscriber.is_stopped:
                subscriber.stop()

    @property
    def connections(self) -> int:
        """How many of them are connected to the GraphServer."""
        return sum(client.is_connected for client in self._clients)

    @property
    def _clients(self) -> list[Publisher | Subscriber]:
        return [*self._publishers, *self.subscribers.values()]

    async def close(self, *, graph_ends: bool = False) -> None:
        """Close all of them; what was sent still arrives. Where the graph ends, the GraphServer is not told."""
        clients = self._clients
        for client in clients:
            if graph_ends:
                client.forget_graph()
            client.close()
        closing = [asyncio.ensure_future(client.wait_closed()) for client in clients]
        if closing:
            _, late = await asyncio.wait(closing, timeout=CLOSE_TIMEOUT_S)
            for task in late:
                task.cancel()
                logger.warning("what was published last may not have arrived everywhere within %g s", CLOSE_TIMEOUT_S)


@contextlib.contextmanager
def _opening(stream: Stream) -> Generator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(f"raised while {stream.address} was opened")
        raise


def receivers(unit: Unit) -> dict[InputStream, dict[str, Function]]:
    """The tasks that receive from each input stream of a unit, by name."""
    found: dict[InputStream, dict[str, Function]] = {}
    for name, task in tasks_of(unit).items():
        stream = subscribed(unit, task)
        if stream is not None:
            found.setdefault(stream, {})[name] = task
    return found


def _senders(unit: Unit) -> dict[Any, list[str]]:
    found: dict[Any, list[str]] = {}
    for name, task in tasks_of(unit).items():
        for stream in published(unit, task):
            found.setdefault(stream, []).append(name)
    return found
