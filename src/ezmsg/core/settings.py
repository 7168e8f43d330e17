"""The settings of a component: a frozen dataclass that its class makes of itself."""

from __future__ import annotations

from abc import ABCMeta
from dataclasses import FrozenInstanceError, dataclass
from typing import Any, dataclass_transform

from ezmsg.core.errors import DeclarationError


@dataclass_transform(frozen_default=True)
class SettingsMeta(ABCMeta):
    """Turns every class made with it into a frozen dataclass."""

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], /, **kwargs: Any) -> None:
        super().__init__(name, bases, namespace, **kwargs)
        try:
            dataclass(frozen=True)(cls)
        except (TypeError, ValueError) as error:
            raise DeclarationError(cls, None, str(error)) from error
        # Settings refuses assignment for all. A class with a refusal of its own could not be decorated once more, which
        # is how pydantic makes a dataclass that validates.
        del cls.__setattr__
        del cls.__delattr__


class Settings(metaclass=SettingsMeta):
    """Base of the settings of components; subclasses are frozen dataclasses without any decorator."""


def _refuse_assignment(self: Settings, name: str, value: Any) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_deletion(self: Settings, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


Settings.__setattr__ = _refuse_assignment
Settings.__delattr__ = _refuse_deletion
