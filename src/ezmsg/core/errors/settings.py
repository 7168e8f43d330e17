"""Why settings were not changed."""

from __future__ import annotations

from ezmsg.core.errors.root import EzmsgError

__all__ = [
    "EmptyFieldPath",
    "SettingsInvalid",
    "SettingsNotKnown",
    "SettingsNotTaken",
    "SettingsRefused",
    "SettingsTaskFailed",
    "UnknownSettingsField",
]


class SettingsInvalid(EzmsgError, ValueError):
    """A patch breaks the schema of the settings it is for; nothing was applied.

    `violations` are dicts of text: `field` (dotted), `value` (its repr), `rule` (`unknown field`, `wrong type`,
    `out of bounds`, `not a choice`, `missing required`, `too deep`, `read only`), and what was `expected`.
    """

    code = "SETTINGS_INVALID"

    def __init__(self, settings_type: str, violations: list[dict[str, str]]) -> None:
        found = "; ".join(f"{v['field']}={v['value']}: {v['rule']}, expected {v['expected']}" for v in violations)
        super().__init__(f"settings {settings_type} cannot take this: {found}")
        self.settings_type, self.violations = settings_type, violations


class EmptyFieldPath(EzmsgError, ValueError):
    """A field of settings was to be changed, and its path names none."""

    code = "EMPTY_FIELD_PATH"

    def __init__(self, field_path: str) -> None:
        super().__init__(f"the path {field_path!r} names no field: give names separated by dots, like 'filter.cutoff'")
        self.field_path = field_path


class UnknownSettingsField(EzmsgError, ValueError):
    """Settings have no such field, or none that can be set."""

    code = "UNKNOWN_SETTINGS_FIELD"

    def __init__(self, field_path: str, settings_type: str, known: list[str]) -> None:
        there = f"the fields are {', '.join(known)}" if known else "it has no fields that can be set"
        super().__init__(f"no field {field_path!r} in {settings_type}: {there}")
        self.field_path, self.settings_type, self.known = field_path, settings_type, known


class SettingsNotKnown(EzmsgError, RuntimeError):
    """A field was to be changed of settings whose current value is not known (or None)."""

    code = "SETTINGS_NOT_KNOWN"

    def __init__(self, field_path: str, missing: str) -> None:
        super().__init__(
            f"cannot set {field_path!r}: there is no current value of {missing}. Send the whole object instead"
        )
        self.field_path, self.missing = field_path, missing


class SettingsRefused(EzmsgError, ValueError):
    """The class of settings did not take a value that its description allows; nothing was applied."""

    code = "SETTINGS_REFUSED"

    def __init__(self, settings_type: str, field_path: str, value: object, reason: str) -> None:
        super().__init__(f"settings {settings_type} cannot take {field_path}={value!r:.200}: {reason}")
        self.settings_type, self.field_path, self.value, self.reason = (
            settings_type,
            field_path,
            f"{value!r:.200}",
            reason,
        )


class SettingsNotTaken(EzmsgError, RuntimeError):
    """New settings were published, but no task of the unit received them; nothing was applied."""

    code = "SETTINGS_NOT_TAKEN"

    def __init__(self, unit: str, reason: str) -> None:
        super().__init__(f"no task of {unit} took the new settings: {reason}")
        self.unit, self.reason = unit, reason


class SettingsTaskFailed(EzmsgError, RuntimeError):
    """The task of a unit that received new settings raised an exception; the settings before count as current."""

    code = "SETTINGS_TASK_FAILED"

    def __init__(self, unit: str, reason: str) -> None:
        super().__init__(f"{unit} could not apply the new settings: {reason}")
        self.unit, self.reason = unit, reason
