"""Settings as others see them: a readable value, and a description of their class.

For dataclasses, models of pydantic, Parameterized classes of param, structs of msgspec; none of those libraries is
imported for it. Nothing here raises because of what a class or value is: it may be anything a user wrote.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

from ezmsg.core.graphmeta import SettingsSchemaMetadata, SettingsSnapshotValue
from ezmsg.core.schema.description import describe
from ezmsg.core.schema.plain import plain, text
from ezmsg.core.schema.table import family_of

__all__ = [
    "settings_repr_value",
    "settings_schema_from_type",
    "settings_schema_from_value",
    "settings_snapshot_value",
    "settings_structured_value",
]


def settings_structured_value(value: Any) -> dict[str, Any] | None:
    """The fields of `value` by name, as JSON can say them; None if it is no mapping and of no known family."""
    if not isinstance(value, Mapping) and family_of(type(value)) is None:
        return None
    return plain(value)


def settings_repr_value(value: Any) -> dict[str, Any] | str:
    """The structured value if there is one, else the repr."""
    structured = settings_structured_value(value)
    return text(value) if structured is None else structured


def settings_schema_from_type(tp: Any) -> SettingsSchemaMetadata | None:
    """The description of a settings class; None for other classes and for what is no class."""
    return describe(tp)


def settings_schema_from_value(value: Any) -> SettingsSchemaMetadata | None:
    """The description of the class of `value`; None for None and for values of no known family."""
    return describe(type(value))


def settings_snapshot_value(value: Any) -> SettingsSnapshotValue:
    """`value` as it is reported: pickled if that is possible, readable, and with the description of its class.

    One that is a SettingsSnapshotValue already is returned as it is.
    """
    if isinstance(value, SettingsSnapshotValue):
        return value
    try:
        serialized = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception:  # whatever the class of a user raises
        serialized = None
    structured = settings_structured_value(value)
    return SettingsSnapshotValue(
        serialized,
        text(value) if structured is None else structured,
        structured,
        describe(type(value)),
    )
