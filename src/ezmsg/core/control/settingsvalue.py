"""Settings as the control plane tells them.

To be replaced by `settingsmeta.settings_snapshot_value`, which knows schemas and every family of settings.
"""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Mapping
from typing import Any, cast

from ezmsg.core.graphmeta import SettingsSnapshotValue


def settings_snapshot_value(value: object) -> SettingsSnapshotValue:
    """These settings, opaque and readable; one that is a SettingsSnapshotValue already is returned as it is."""
    if isinstance(value, SettingsSnapshotValue):
        return value
    structured = _structured(value)
    return SettingsSnapshotValue(_pickled(value), repr(value) if structured is None else structured, structured)


def _structured(value: object) -> dict[str, Any] | None:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): item for key, item in cast(Mapping[Any, Any], value).items()}
    return None


def _pickled(value: object) -> bytes | None:
    try:
        return pickle.dumps(value)
    except Exception:  # whatever a foreign class makes of being pickled: it is told in words only
        return None
