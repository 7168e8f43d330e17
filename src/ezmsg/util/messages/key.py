"""Signals are told apart by their key."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from typing import Any

import ezmsg.core as ez
from ezmsg.util.generator import GenState, consumer
from ezmsg.util.messages.axisarray import AxisArray, replace


@consumer
def set_key(key: str = "") -> Generator[AxisArray, AxisArray, None]:
    """A generator that yields the messages it is sent with another key."""
    changed: Any = None  # dropped
    while True:
        message = yield changed
        changed = replace(message, key=key)


class KeySettings(ez.Settings):
    """Settings of SetKey and FilterOnKey."""

    key: str = ""
    """The key to set, or to let pass."""


class SetKey(ez.Unit):
    """Publishes what it receives, with another key."""

    SETTINGS = KeySettings
    STATE = GenState

    INPUT_SIGNAL = ez.InputStream(AxisArray)
    OUTPUT_SIGNAL = ez.OutputStream(AxisArray)
    INPUT_SETTINGS = ez.InputStream(KeySettings)

    async def initialize(self) -> None:
        """Make the generator."""
        self.STATE.gen = set_key(self.SETTINGS.key)

    @ez.subscriber(INPUT_SETTINGS)
    async def on_settings(self, message: KeySettings) -> None:
        """Set another key from now on."""
        self.apply_settings(message)
        self.STATE.gen = set_key(message.key)

    @ez.subscriber(INPUT_SIGNAL)
    @ez.publisher(OUTPUT_SIGNAL)
    async def on_message(self, message: AxisArray) -> AsyncIterator[Any]:
        """Publish a message with the key."""
        yield self.OUTPUT_SIGNAL, self.STATE.gen.send(message)


class FilterOnKey(ez.Unit):
    """Publishes those messages it receives that have a certain key."""

    SETTINGS = KeySettings

    INPUT_SIGNAL = ez.InputStream(AxisArray)
    OUTPUT_SIGNAL = ez.OutputStream(AxisArray)

    @ez.subscriber(INPUT_SIGNAL)
    @ez.publisher(OUTPUT_SIGNAL)
    async def on_message(self, message: AxisArray) -> AsyncIterator[Any]:
        """Publish a message that has the key."""
        if message.key == self.SETTINGS.key:
            yield self.OUTPUT_SIGNAL, message
