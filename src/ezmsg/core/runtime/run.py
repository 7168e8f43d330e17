"""A run that goes on in the background: its coordinator, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import GraphMetadata
from ezmsg.core.net.address import AddressType
from ezmsg.core.runtime.coordinator import Coordinator, Outcome
from ezmsg.core.runtime.loopthread import LoopThread
from ezmsg.core.runtime.members import Member
from ezmsg.core.runtime.network import Pair

# For the coordinator's own event loop, which nobody blocks.
LOOP_S = 5.0


class Run:
    """Begins when it is made.

    Args:
        members: Its processes, launched.
        graph_address: Of the GraphServer; None for the default, which is started if it is not there.
        connections: Its edges.
        metadata: What it tells the graph about itself.
        on_end: Called, in another thread, when all is over.
        strict: Whether to wait for everybody at the end.

    Attributes:
        graph_address: Of the GraphServer, as far as it is known.
        has_started_server: Whether the run started the server.
    """

    def __init__(
        self,
        members: Sequence[Member],
        graph_address: AddressType | None,
        connections: Iterable[Pair],
        metadata: Callable[[], GraphMetadata],
        on_end: Callable[[], object],
        strict: bool,
    ) -> None:
        self.graph_address: AddressType | None = graph_address
        self.has_started_server = False
        self._context = GraphContext(graph_address)
        self._is_up = self._has_begun = False
        self._started = threading.Event()
        self._thread = LoopThread("ezmsg run")
        self._coordinator = Coordinator(
            members, self._context, connections, metadata, self._is_running, self._have_begun, strict
        )
        self._thread.start()
        self._outcome: Future[Outcome] = self._thread.submit(self._coordinator.run())
        self._outcome.add_done_callback(lambda _: self._over(on_end))

    def _is_running(self) -> None:
        self.has_started_server = self._context.has_started_server
        self.graph_address = self._context.graph_address
        self._is_up = True

    def _have_begun(self) -> None:
        self._has_begun = True
        self._started.set()

    def _over(self, on_end: Callable[[], object]) -> None:
        self._started.set()
        self._thread.end()  # before somebody who waits for all this takes the interpreter
        on_end()

    @property
    def is_running(self) -> bool:
        """Whether server, session and processes are up, and not all is over yet."""
        return self._is_up and not self._outcome.done()

    def wait_started(self) -> bool:
        """Wait until the tasks have begun; False if it ended before they did."""
        self._started.wait()
        return self._has_begun

    def wait_over(self) -> None:
        """Wait for its end, which somebody else sees to."""
        wait([self._outcome])

    def interrupt(self, count: int = 1, number: int | None = None) -> None:
        """Have it end in order or, with a `count` above one, at once; from any thread, or a signal handler.

        Args:
            count: How often it was interrupted.
            number: The signal, if it was one.
        """
        self._thread.call(self._coordinator.interrupt, count, number)

    def finish(self) -> Outcome:
        """Wait for its end; call it once."""
        outcome = self._outcome.result()
        self._thread.stop(LOOP_S)
        return outcome
