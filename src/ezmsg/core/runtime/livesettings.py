"""Settings of the units of one process, on the control plane: reported as they change, and changed on request."""

from __future__ import annotations

import logging
import pickle
import reprlib
from typing import Any

from ezmsg.core.control.spans import applying
from ezmsg.core.errors import EzmsgError
from ezmsg.core.graphmeta import (
    ProcessControlErrorCode,
    ProcessControlOperation,
    ProcessControlRequest,
    ProcessControlResponse,
    SettingsEventType,
    SettingsFieldUpdateRequest,
)
from ezmsg.core.processclient import ProcessControlClient
from ezmsg.core.runtime.preparation import SETTINGS_INPUT
from ezmsg.core.runtime.receiving import Handle
from ezmsg.core.runtime.settingsgate import SettingsGate
from ezmsg.core.settingsmeta import settings_snapshot_value
from ezmsg.core.stream import InputStream
from ezmsg.core.unit import Unit

logger = logging.getLogger("ezmsg")


class LiveSettings:
    """Answers the requests that the client of a backend process does not answer itself.

    Args:
        client: The client.
        address: Of the GraphServer.
    """

    def __init__(self, client: ProcessControlClient, address: str) -> None:
        self._client, self._address = client, address
        self._gates: dict[str, SettingsGate] = {}

    def gate(self, unit: Unit, stream: InputStream, handle: Handle) -> Handle:
        """What to do with the settings that arrive at a unit, in place of `handle`."""
        gate = self._gates[unit.address] = SettingsGate(unit, stream, handle, self.report, self._address)
        return gate

    async def report(self, unit: str, value: Any) -> None:
        """Tell the graph what the settings of a unit are now; what goes wrong is only logged."""
        try:
            await self._client.report_settings_update(unit, value)
        except (RuntimeError, ConnectionError, ValueError) as error:
            logger.warning("the new settings of %s could not be reported: %s", unit, error)

    async def answer(self, request: ProcessControlRequest) -> ProcessControlResponse:
        """Change a field of settings; refuse everything else."""
        if request.operation != ProcessControlOperation.UPDATE_SETTING_FIELD.value:
            return _refused(
                request,
                ProcessControlErrorCode.UNSUPPORTED_OPERATION,
                f"Unsupported process control operation: {request.operation}",
            )
        gate = self._gates.get(request.unit_address)
        if gate is None:
            text = f"{request.unit_address} has no task here that receives from {SETTINGS_INPUT}"
            return _refused(request, ProcessControlErrorCode.UNSUPPORTED_OPERATION, text)
        try:
            change: object = pickle.loads(request.payload or b"")  # from an authenticated peer
        except Exception as error:
            text = f"{request.operation} needs a pickled SettingsFieldUpdateRequest: {error}"
            return _refused(request, ProcessControlErrorCode.INVALID_RESPONSE, text)
        if not isinstance(change, SettingsFieldUpdateRequest) or not isinstance(change.field_path, str):  # pyright: ignore[reportUnnecessaryIsInstance] - unpickled
            text = f"{request.operation} needs a SettingsFieldUpdateRequest, not {reprlib.repr(change)}"
            return _refused(request, ProcessControlErrorCode.INVALID_RESPONSE, text)
        event = SettingsEventType.SETTINGS_UPDATED.value
        try:
            with applying(event, request.unit_address, change.field_path, self._address):
                value = await gate.change(change.field_path, change.value)
        except EzmsgError as error:
            return _refused(request, ProcessControlErrorCode.HANDLER_ERROR, str(error))
        payload = pickle.dumps(settings_snapshot_value(value))
        return ProcessControlResponse(request.request_id, True, payload)


def _refused(request: ProcessControlRequest, code: ProcessControlErrorCode, text: str) -> ProcessControlResponse:
    return ProcessControlResponse(request.request_id, False, error=text, error_code=code)
