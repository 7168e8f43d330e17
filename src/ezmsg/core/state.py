"""The state of a unit: a dataclass that its class makes of itself, filled while the unit is initialized."""

from __future__ import annotations

from abc import ABCMeta
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any

from ezmsg.core.errors import DeclarationError


class StateMeta(ABCMeta):
    """Turns every class made with it into a mutable dataclass without a constructor.

    A field without a default does not exist until it is assigned.
    """

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], /, **kwargs: Any) -> None:
        super().__init__(name, bases, namespace, **kwargs)
        try:
            dataclass(unsafe_hash=True, init=False)(cls)
        except (TypeError, ValueError) as error:
            raise DeclarationError(cls, None, str(error)) from error


class State(metaclass=StateMeta):
    """Base of the state of units; subclasses are dataclasses without any decorator."""


def new_state(state_type: type[Any]) -> Any:
    """An instance of `state_type` in which every field with a default factory has its value."""
    state = state_type()
    for field in fields(state) if is_dataclass(state) else ():
        if field.default_factory is not MISSING and field.name not in getattr(state, "__dict__", {}):
            setattr(state, field.name, field.default_factory())
    return state


def missing_field(state: Any) -> str | None:
    """The first field of a state that has no value; None if all have one."""
    names = [field.name for field in fields(state)] if is_dataclass(state) else []
    return next((name for name in names if not hasattr(state, name)), None)
