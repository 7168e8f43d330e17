"""A gate for messages, opened and closed by messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import ezmsg.core as ez


@dataclass
class GateMessage:
    """Opens or closes a MessageGate."""

    open: bool


class MessageGateSettings(ez.Settings):
    """How a gate stands by itself."""

    start_open: bool = False
    """How it stands at first."""
    default_open: bool = False
    """How it stands after `default_after` messages."""
    default_after: int | None = None
    """After how many messages, let through or not, since the start or the last GateMessage; None for never."""


class MessageGateState(ez.State):
    """State of a MessageGate."""

    gate_open: bool
    msgs: int = 0
    """Messages since the start or the last GateMessage."""


class MessageGate(ez.Unit):
    """Lets messages through while it is open, and drops them while it is closed."""

    SETTINGS = MessageGateSettings
    STATE = MessageGateState

    INPUT_GATE = ez.InputStream(GateMessage)
    INPUT = ez.InputStream(Any)
    OUTPUT = ez.OutputStream(Any)

    async def initialize(self) -> None:
        """Put the gate where it stands at first."""
        self._set(self.SETTINGS.start_open)

    def _set(self, is_open: bool) -> None:
        self.STATE.gate_open = is_open
        self.STATE.msgs = 0

    @ez.subscriber(INPUT_GATE)
    async def on_gate(self, message: GateMessage) -> None:
        """Open or close the gate."""
        self._set(message.open)

    @ez.subscriber(INPUT)
    @ez.publisher(OUTPUT)
    async def on_input(self, message: Any) -> AsyncIterator[Any]:
        """Let a message through, or drop it."""
        is_open = self.STATE.gate_open
        self.STATE.msgs += 1
        if self.SETTINGS.default_after is not None and self.STATE.msgs >= self.SETTINGS.default_after:
            self.STATE.gate_open = self.SETTINGS.default_open
        if is_open:
            yield self.OUTPUT, message
