"""Deprecated bases of messages: anything can be a message now, a dataclass best of all."""

from __future__ import annotations

import warnings
from abc import ABCMeta
from dataclasses import dataclass
from typing import Any, TypeVar, dataclass_transform

M = TypeVar("M")


@dataclass_transform(frozen_default=True)
class MessageMeta(ABCMeta):
    """Turns every class made with it into a frozen, hashable dataclass."""

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], /, **kwargs: Any) -> None:
        super().__init__(name, bases, namespace, **kwargs)
        dataclass(frozen=True, unsafe_hash=True)(cls)

    def __call__(cls: type[M], *args: Any, **kwargs: Any) -> M:
        """Make a message."""
        if cls is Message:
            warnings.warn(
                "Message is deprecated: any object can be a message, for example a dataclass",
                DeprecationWarning,
                stacklevel=2,
            )
        return super().__call__(*args, **kwargs)


class Message(metaclass=MessageMeta):
    """Deprecated base of messages; subclasses are frozen dataclasses without any decorator."""


@dataclass
class Flag:
    """Deprecated: a message that says nothing but that it came."""
