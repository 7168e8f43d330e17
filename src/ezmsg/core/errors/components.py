"""Mistakes in the declaration of components, and in how they are put together."""

from __future__ import annotations

from ezmsg.core.errors.root import EzmsgError

__all__ = [
    "AlreadyAddressed",
    "DeclarationError",
    "DecoratorError",
    "InvalidResult",
    "NameClash",
    "NotAComponent",
    "NotAddressed",
    "SettingsNotApplied",
    "StateNotInitialized",
]


class NotAddressed(EzmsgError, AssertionError):
    """The name or location of a component or stream was asked for before it had one."""

    code = "NOT_ADDRESSED"

    def __init__(self, subject: str, part: str) -> None:
        super().__init__(f"{subject} has no {part} yet: it gets one when it is part of a run")
        self.subject, self.part = subject, part


class AlreadyAddressed(EzmsgError, AssertionError):
    """A component or stream was to be named or placed a second time."""

    code = "ALREADY_ADDRESSED"

    def __init__(self, subject: str, part: str, wanted: str) -> None:
        super().__init__(
            f"{subject} has its {part} already and cannot get another ({wanted!r}): make an object of its own for "
            "each place and each run"
        )
        self.subject, self.part, self.wanted = subject, part, wanted


class DeclarationError(EzmsgError, TypeError, ValueError):
    """A class of components, settings or state has a mistake in its body; `field` is None if it is in no single one."""

    code = "DECLARATION"

    def __init__(self, owner: type, field: str | None, reason: str) -> None:
        name = owner.__qualname__
        super().__init__(f"class {name}: {reason}" if field is None else f"{name}.{field}: {reason}")
        self.owner, self.field, self.reason = name, field, reason


class DecoratorError(EzmsgError, ValueError):
    """A decorator of `ezmsg.core` was given, or put on, something it is not for.

    `function` is None where it is not known yet; `place` is the class, if it is within one, the file and the line.
    """

    code = "DECORATOR"

    def __init__(self, decorator: str, function: str | None, place: str, reason: str) -> None:
        super().__init__(f"@{decorator}{f' on {function}' if function else ''}: {reason} ({place})")
        self.decorator, self.function, self.place, self.reason = decorator, function, place, reason


class SettingsNotApplied(EzmsgError, ValueError):
    """A unit was to be set up without settings, and its class of settings has no defaults for all of its fields."""

    code = "SETTINGS_NOT_APPLIED"

    def __init__(self, address: str, settings_type: str) -> None:
        super().__init__(
            f"{address} has not had settings applied before initialization: give it a {settings_type}, "
            "or call apply_settings() in configure() of its collection"
        )
        self.address, self.settings_type = address, settings_type


class StateNotInitialized(EzmsgError, AttributeError):
    """A field of a unit's state has no value after `initialize()`."""

    code = "STATE_NOT_INITIALIZED"

    def __init__(self, address: str, field: str) -> None:
        super().__init__(f"{address}: STATE.{field} was not initialized!")
        self.address, self.field = address, field


class InvalidResult(EzmsgError, TypeError):
    """A method a component must provide returned what a run cannot use."""

    code = "INVALID_RESULT"

    def __init__(self, method: str, value: object, expected: str) -> None:
        super().__init__(f"{method} gave {value!r:.200}: expected {expected}")
        self.method, self.value, self.expected = method, f"{value!r:.200}", expected


class NotAComponent(EzmsgError, TypeError):
    """Something else than a component was to be run."""

    code = "NOT_A_COMPONENT"

    def __init__(self, name: str, value: object) -> None:
        hint = f"; make one: {value.__name__}()" if isinstance(value, type) else ""
        super().__init__(f"{name} is {value!r:.200}, which is no unit or collection{hint}")
        self.name, self.value = name, f"{value!r:.200}"


class NameClash(EzmsgError, ValueError):
    """Two components of a run want the same address."""

    code = "NAME_CLASH"

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"two components of this run would have the address {address}: {reason}")
        self.address, self.reason = address, reason
