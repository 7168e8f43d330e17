"""The base of units and collections: what a class declares, and what each instance has of its own."""

from __future__ import annotations

import logging
from abc import ABCMeta
from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeVar

from ezmsg.core.addressable import Addressable, label
from ezmsg.core.declaration import attributes, declared_class, name_attributes, warn_of_hidden
from ezmsg.core.errors import DeclarationError
from ezmsg.core.settings import Settings
from ezmsg.core.state import State
from ezmsg.core.stream import Stream, type_name

logger = logging.getLogger("ezmsg")

C = TypeVar("C")


class ComponentMeta(ABCMeta):
    """Gathers what the body of a component's class declares."""

    __streams__: dict[str, Stream]
    __settings_type__: type[Any]
    __state_type__: type[Any]

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], /, **kwargs: Any) -> None:
        super().__init__(name, bases, namespace, **kwargs)
        cls.__settings_type__ = declared_class(cls, "SETTINGS", Settings)
        cls.__state_type__ = declared_class(cls, "STATE", State)
        cls.__streams__ = attributes(cls, lambda value: isinstance(value, Stream))
        name_attributes(cls, cls.__streams__)
        warn_of_hidden(cls, ("name", "location", "address", "streams", "components"))

    def __call__(cls: type[C], *args: Any, **kwargs: Any) -> C:
        """Make an instance."""
        component: C = super().__call__(*args, **kwargs)
        if "_streams" not in vars(component):
            raise DeclarationError(cls, "__init__", "it does not call super().__init__()")
        return component


class Component(Addressable, metaclass=ComponentMeta):
    """A part of a graph: a unit, or a collection of components.

    Args:
        *args: The settings, or the positional arguments to make them with.
        settings: The settings.
        **kwargs: Arguments to make the settings with.

    Attributes:
        SETTINGS: Of the class: the type of its settings. Of an instance: its settings, or None while they are missing,
            which is allowed until the component runs.
        STATE: Of the class: the type of its state. Of an instance: None until a unit is set up in its process.
    """

    SETTINGS: Any = Settings
    STATE: Any = State

    def __init__(self, *args: Any, settings: Any = None, **kwargs: Any) -> None:
        self.SETTINGS = _settings(type(self).__settings_type__, args, settings, kwargs)  # pyright: ignore[reportConstantRedefinition]
        self._check_settings()
        self.STATE = None  # pyright: ignore[reportConstantRedefinition]
        self._components: dict[str, Component] = {}
        self._streams = deepcopy(type(self).__streams__)
        for name, stream in self._streams.items():
            setattr(self, name, stream)

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} {label(self)}>"

    def apply_settings(self, settings: Any) -> None:
        """Replace the settings; of use until the component is set up."""
        self.SETTINGS = settings  # pyright: ignore[reportConstantRedefinition]
        self._check_settings()

    def _check_settings(self) -> None:
        wanted = type(self).__settings_type__
        if wanted is not Settings and self.SETTINGS is not None and not isinstance(self.SETTINGS, wanted):
            text = "%s.SETTINGS is %s, which is no %s"
            logger.warning(text, label(self), f"{self.SETTINGS!r:.100}", type_name(wanted))

    @property
    def streams(self) -> dict[str, Stream]:
        """Its endpoints by name: streams of a unit, topics and relays of a collection."""
        return self._streams

    @property
    def components(self) -> dict[str, Component]:
        """Its children by name."""
        return self._components

    @property
    def tasks(self) -> dict[str, Callable[..., Any]]:
        """Its tasks by name."""
        return {}

    @property
    def main(self) -> Callable[..., Any] | None:
        """What it runs in the main thread of its process."""
        return None

    @property
    def threads(self) -> dict[str, Callable[..., Any]]:
        """What it runs in worker threads, by name."""
        return {}

    def _set_location(self, location: list[str] | None = None) -> None:
        inside = [*(location or []), self.name]
        super()._set_location(location)
        for stream in self._streams.values():
            stream._set_location(inside)
        for name, child in self._components.items():
            if child._name is None:
                child._set_name(name)
            child._set_location(inside)


def _settings(settings_type: type[Any], args: tuple[Any, ...], settings: Any, kwargs: dict[str, Any]) -> Any:
    if settings is not None:
        return settings
    if args and isinstance(args[0], settings_type):
        return args[0]
    if args or kwargs:
        return settings_type(*args, **kwargs)
    try:
        return settings_type()
    except Exception as error:
        # A field without a default: apply_settings() is to come. Other libraries have errors of their own for that.
        if isinstance(error, TypeError) or not issubclass(settings_type, Settings):
            return None
        raise
