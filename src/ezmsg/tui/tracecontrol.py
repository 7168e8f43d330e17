"""The form that switches the native trace of processes on and off: filters, one message in how many, until when."""

from __future__ import annotations

from typing import TypeVar, cast

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Button, Input, Label, Select, Static

from ezmsg.core.graphmeta import ProfilingTraceControl

N = TypeVar("N", int, float)
METRICS = (
    "publish_delta_ns",
    "backpressure_wait_ns",
    "lease_time_ns",
    "user_span_ns",
    "serialize_ns",
    "transport_ns",
    "queue_wait_ns",
    "age_ns",
)
DEFAULT_TTL_S = 30.0


class TraceForm(Vertical):
    """Asks what is to be traced; says it with `Wanted`."""

    DEFAULT_CSS = """
    TraceForm { height: auto; padding: 0 1; }
    TraceForm Horizontal { height: 1; }
    TraceForm Label { padding: 0 1 0 0; color: $text-muted; }
    TraceForm Input { width: 1fr; margin: 0 1 0 0; }
    TraceForm .short { width: 8; }
    TraceForm Select { width: 26; margin: 0 1 0 0; }
    TraceForm Button { margin: 0 1 0 0; min-width: 9; }
    TraceForm #trace-state { width: 1fr; }
    """

    class Wanted(Message):
        """The user wants this."""

        def __init__(self, trace: ProfilingTraceControl) -> None:
            """Made by the form."""
            super().__init__()
            self.trace = trace

    def compose(self) -> ComposeResult:
        """Three lines."""
        with Horizontal():
            yield Label("publishers")
            yield Input(id="publishers", placeholder="all, or topics: A/X, B/Y", compact=True)
            yield Label("subscribers")
            yield Input(id="subscribers", placeholder="all, or topics", compact=True)
        with Horizontal():
            yield Label("metric")
            yield Select([(name, name) for name in METRICS], prompt="all metrics", id="metric", compact=True)
            yield Label("one in")
            yield Input("1", id="mod", classes="short", compact=True)
            yield Label("for")
            yield Input(f"{DEFAULT_TTL_S:g}", id="ttl", classes="short", compact=True)
            yield Label("s")
        with Horizontal():
            yield Button("Start", id="start", variant="success", compact=True)
            yield Button("Stop", id="stop", variant="error", compact=True)
            yield Static("off; Enter starts it, Escape leads back to the keys", id="trace-state", markup=False)

    def on_mount(self) -> None:
        """Buttons act at once, and again as soon as they are pressed again."""
        for button in self.query(Button):
            button.active_effect_duration = 0

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Say what is wanted."""
        event.stop()
        if event.button.id == "stop":
            self.post_message(self.Wanted(ProfilingTraceControl(enabled=False)))
        else:
            self._submit()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter starts it, too."""
        event.stop()
        self._submit()

    def tell(self, text: str, *, is_error: bool = False) -> None:
        """How it goes."""
        state = self.query_one("#trace-state", Static)
        state.update(text)
        state.styles.color = "red" if is_error else None

    def _submit(self) -> None:
        try:
            trace = self.trace()
        except ValueError as error:
            self.tell(str(error), is_error=True)
        else:
            self.post_message(self.Wanted(trace))

    def trace(self) -> ProfilingTraceControl:
        """What the form says.

        Raises:
            ValueError: A number is none.
        """
        metric = cast(object, self.query_one("#metric", Select).value)  # pyright: ignore[reportUnknownMemberType]
        return ProfilingTraceControl(
            enabled=True,
            sample_mod=_positive(self._text("mod"), "one in", int),
            publisher_topics=_topics(self._text("publishers")),
            subscriber_topics=_topics(self._text("subscribers")),
            metrics=[metric] if isinstance(metric, str) else None,
            ttl_seconds=_positive(self._text("ttl"), "for", float),
        )

    def _text(self, name: str) -> str:
        return self.query_one(f"#{name}", Input).value.strip()


def _topics(text: str) -> list[str] | None:
    return [topic.strip() for topic in text.split(",") if topic.strip()] or None


def _positive(text: str, name: str, kind: type[N]) -> N:
    try:
        number = kind(text)
    except ValueError:
        number = kind(0)
    if not 0 < number < 1e9:
        what = "a whole number" if kind is int else "a number of seconds"
        raise ValueError(f"“{name}” takes {what} above 0, not {text!r}")
    return number
