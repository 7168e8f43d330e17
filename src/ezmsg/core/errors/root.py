"""The root of the tree of errors, and what any part of this runtime may raise."""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = ["ConfigError", "EzmsgError"]


class EzmsgError(Exception):
    """Root of the tree."""

    code: ClassVar[str] = "ERROR"

    def fields(self) -> dict[str, Any]:
        """The facts of this error as values that travel in a refusal."""
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}

    def __reduce__(self) -> tuple[Any, ...]:
        # Not through __init__: each class has its own arguments, and the text is made already.
        return _restored, (type(self), self.args), vars(self)


def _restored(error_type: type[EzmsgError], args: tuple[Any, ...]) -> EzmsgError:
    error = error_type.__new__(error_type, *args)
    error.args = args
    return error


class ConfigError(EzmsgError, ValueError):
    """An environment variable or argument has a value that cannot be used."""

    code = "CONFIG"

    def __init__(self, name: str, value: object, expected: str) -> None:
        super().__init__(f"{name}={value!r} cannot be used: expected {expected}")
        self.name, self.value, self.expected = name, str(value), expected
