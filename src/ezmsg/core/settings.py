"""The settings of a component: a frozen dataclass that its class makes of itself."""

from __future__ import annotations

from abc import ABCMeta
from dataclasses import dataclass
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


class Settings(metaclass=SettingsMeta):
    """Base of the settings of components; subclasses are frozen dataclasses without any decorator."""
