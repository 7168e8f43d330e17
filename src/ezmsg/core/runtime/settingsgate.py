"""The door through which settings reach a running unit: its stream INPUT_SETTINGS."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from copy import deepcopy
from typing import Any

from ezmsg.core.errors import EzmsgError, SettingsNotKnown, SettingsNotTaken, SettingsRefused, SettingsTaskFailed
from ezmsg.core.pubclient import Publisher
from ezmsg.core.runtime.endings import Complete, NormalTermination
from ezmsg.core.runtime.receiving import Handle, is_cancelled
from ezmsg.core.schema.patch import apply_patch
from ezmsg.core.schema.validation import validate
from ezmsg.core.settingsmeta import settings_schema_from_value
from ezmsg.core.stream import InputStream, type_name
from ezmsg.core.unit import Unit

logger = logging.getLogger("ezmsg")

Report = Callable[[str, Any], Awaitable[None]]
"""Tells the graph what the settings of a unit are now."""


class _Update:
    """New settings on their way to the tasks of the unit."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.is_taken = False
        self.outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, error: Exception | None = None) -> None:
        if self.outcome.done():
            return
        if error is None:
            self.outcome.set_result(None)
        else:
            self.outcome.set_exception(error)


class SettingsGate:
    """Reports the settings that arrive at one unit before its tasks get them, and sends it changed ones.

    Args:
        unit: The unit; its settings are the first value.
        stream: Its INPUT_SETTINGS.
        handle: What its tasks do with a message.
        report: Tells the graph.
        address: Of the GraphServer.

    Attributes:
        current: The settings that count.
    """

    def __init__(self, unit: Unit, stream: InputStream, handle: Handle, report: Report, address: str) -> None:
        self.current: Any = unit.SETTINGS
        self._unit = unit.address
        self._topic, self._copies = stream.address, stream.leaky
        self._handle, self._report, self._address = handle, report, address
        self._changing = asyncio.Lock()
        self._update: _Update | None = None

    async def __call__(self, message: Any) -> None:
        """Handle a message, in place of `handle`."""
        update = self._update
        if update is None or update.value is not message:
            update = None
        else:
            update.is_taken = True
        before = self.current
        self.current = deepcopy(message) if self._copies else message
        await self._report(self._unit, self.current)
        try:
            await self._handle(self.current)
        except (Complete, NormalTermination):
            self._settle(update)
            raise
        except (Exception, asyncio.CancelledError) as error:
            if is_cancelled(error):
                self._settle(update, SettingsNotTaken(self._unit, "the run ends"))
            elif update is not None:
                self.current = before
                await self._report(self._unit, before)
                update.settle(SettingsTaskFailed(self._unit, f"{type(error).__name__}: {error}"))
            raise
        else:
            self._settle(update)

    def _settle(self, update: _Update | None, error: Exception | None = None) -> None:
        if update is not None:
            update.settle(error)

    async def change(self, field_path: str, value: Any) -> Any:
        """Change one field, and wait until the tasks of the unit have handled the new settings.

        Returns:
            The new settings.

        Raises:
            EzmsgError: They are not valid, nobody took them, or a task failed; the settings are as they were.
        """
        async with self._changing:
            self._update = update = _Update(patched(self.current, field_path, value))
            try:
                await self._send(update)
            finally:
                self._update = None
            return update.value

    async def _send(self, update: _Update) -> None:
        # The very object has to arrive: it is how the gate knows it.
        publisher = await Publisher.create(
            self._topic, self._address, num_buffers=1, force_tcp=False, allow_local=True, unit=self._unit
        )
        try:
            await publisher.broadcast(update.value)
            released = asyncio.ensure_future(publisher.sync())
            try:
                await asyncio.wait([released, update.outcome], return_when=asyncio.FIRST_COMPLETED)
            finally:
                released.cancel()
            if not update.is_taken:
                # Everybody who got it has let go of it.
                raise SettingsNotTaken(self._unit, f"nothing receives from {self._topic} now, or it dropped them")
            await update.outcome
        finally:
            publisher.close()
            await publisher.wait_closed()


def patched(current: Any, field_path: str, value: Any) -> Any:
    """Settings with another value for one field, valid by their description and by what their class says.

    Raises:
        SettingsInvalid: Their description does not allow it.
        SettingsRefused: Their class does not.
        EzmsgError: There is no such field, or no current value.
    """
    if current is None:
        raise SettingsNotKnown(field_path, "the settings")
    schema = settings_schema_from_value(current)
    if schema is not None and field_path:
        validate(schema, {field_path: value})
    try:
        return apply_patch(current, field_path, value)
    except Exception as error:
        if isinstance(error, EzmsgError):
            raise
        raise SettingsRefused(type_name(type(current)), field_path, value, f"{error}") from error
