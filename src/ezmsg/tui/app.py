"""The frame of all terminal programs: a line that tells the state of the session, a bounded refresh, a clean end."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
from collections.abc import Generator, Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App
from textual.binding import Binding, BindingType
from textual.widgets import Static

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphserver import GraphService
from ezmsg.core.net.address import Address, AddressType
from ezmsg.tui.session import watch

# The screen is drawn so often at most, whatever happens in the graph.
REFRESH_S = 0.25
# Of logging, what is worth a line at the top.
logger = logging.getLogger("ezmsg")


class GraphApp(App[None]):
    """A program that follows a graph and shows it.

    Subclasses say what they follow in `follow` and draw what changed in `draw`.

    Args:
        address: Of the GraphServer; None for the default.
    """

    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", "Quit", show=False, priority=True),
    ]
    CSS = """
    Screen { layout: vertical; }
    #state { height: auto; max-height: 3; background: $primary-darken-2; color: $text; padding: 0 1; }
    .note { height: auto; color: $text-muted; padding: 0 1; }
    Input > .input--placeholder { color: $text 60%; }
    .title { height: 1; text-style: bold; padding: 0 1; }
    Screen.lost > * { opacity: 55%; }
    Screen.lost > #state { opacity: 100%; }
    """
    NAME = "ezmsg"

    def __init__(self, address: AddressType | None = None) -> None:
        """Make one; nothing is connected before it runs."""
        super().__init__()
        self.animation_level = "none"
        self.title = self.NAME
        self.address = GraphService(address).address
        self.trouble: str | None = "connecting"
        self.summary = ""
        self._watching: asyncio.Task[None] | None = None
        self._is_changed = True

    # -- for subclasses -----------------------------------------------------------------------------------------------

    async def follow(self, context: GraphContext) -> None:
        """Follow the graph with this session until it is over; see `ezmsg.tui.session`."""
        raise NotImplementedError

    def draw(self) -> None:
        """Show what is known now. Called at most every `REFRESH_S`, and only after `changed`."""
        raise NotImplementedError

    def changed(self) -> None:
        """Something is to be drawn at the next refresh."""
        self._is_changed = True

    # -- the frame ----------------------------------------------------------------------------------------------------

    def state_line(self) -> Static:
        """What a subclass composes first."""
        return Static(id="state", markup=False)

    def tell(self, trouble: str) -> None:
        """What is wrong with the session; nothing when all is well."""
        trouble_now = trouble or None
        if trouble_now != self.trouble:
            self.trouble = trouble_now
            self.changed()

    def on_mount(self) -> None:
        """Begin to follow and to draw."""
        self._watching = asyncio.create_task(watch(self.address, self.follow, self.tell), name="watches the graph")
        self._watching.add_done_callback(self._stopped_watching)
        self.set_interval(REFRESH_S, self.refresh_changed)
        self.refresh_changed()

    async def on_unmount(self) -> None:
        """Leave the session."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])

    def refresh_changed(self) -> None:
        """Draw, if there is anything new."""
        if not self._is_changed or not self.query("#state"):  # which is gone when the program is about to end
            return
        self._is_changed = False
        self._draw_state()
        # What is shown then is what was: it fades.
        self.screen.set_class(self.trouble is not None, "lost")
        self.draw()

    def _draw_state(self) -> None:
        text = Text()
        text.append(self.NAME, style="bold")
        text.append(f"  {self.address}  ")
        if self.trouble is None:
            text.append("● connected", style="bold green")
            text.append(f"  {self.summary}")
        else:
            text.append(f"○ {self.trouble}", style="bold yellow")
        self.query_one("#state", Static).update(text)

    def _stopped_watching(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.debug("the session of %s failed", self.NAME, exc_info=error)
            self.exit(return_code=1, message=f"{self.NAME}: {type(error).__name__}: {error}")


class _Aside(logging.Handler):
    """Keeps the log off the screen."""

    def emit(self, record: logging.LogRecord) -> None:
        """What matters of it is told at the top of the screen."""


@contextlib.contextmanager
def log_aside() -> Generator[None]:
    """Keep the log of ezmsg off the terminal, which a program draws on."""
    before, propagates = logger.handlers[:], logger.propagate
    logger.handlers[:], logger.propagate = [_Aside()], False
    try:
        yield
    finally:
        logger.handlers[:], logger.propagate = before, propagates


async def run(app: App[Any]) -> int:
    """Run a program on this terminal; returns its exit code."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print(f"{app.title}: standard input and output must be a terminal", file=sys.stderr)
        return 1
    with log_aside():
        await app.run_async()
    return app.return_code or 0


def main(make: type[GraphApp], argv: Sequence[str] | None = None) -> int:
    """The command line of a program that needs nothing but an address; returns its exit code."""
    parser = argparse.ArgumentParser(description=sys.modules[make.__module__].__doc__)
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="of the GraphServer (default: EZMSG_GRAPHSERVER_ADDR, else "
        "127.0.0.1:25978)",
    )  # fmt: skip
    address = parser.parse_args(argv).address
    try:
        return asyncio.run(run(make(None if address is None else Address.from_string(address))))
    except KeyboardInterrupt:
        return 130
    except ValueError as error:
        parser.error(str(error))
