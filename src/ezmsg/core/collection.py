"""Collections: components that hold others and say how they are connected."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection as AbstractCollection
from collections.abc import Iterable
from copy import deepcopy
from enum import Enum
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any

from ezmsg.core.component import Component, ComponentMeta
from ezmsg.core.declaration import attributes, name_attributes, refuse
from ezmsg.core.decorators import WORK_ATTRS, is_marked
from ezmsg.core.stream import InputStream, OutputStream, Stream

logger = logging.getLogger("ezmsg")

Endpoint = Stream | str | Enum
NetworkDefinition = Iterable[tuple[Endpoint, Endpoint]]


class CollectionMeta(ComponentMeta):
    """Gathers the children of a collection's class."""

    __components__: dict[str, Component]

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], /, **kwargs: Any) -> None:
        super().__init__(name, bases, namespace, **kwargs)
        cls.__components__ = attributes(cls, lambda value: isinstance(value, Component))
        name_attributes(cls, cls.__components__)
        is_async = (iscoroutinefunction, isasyncgenfunction)
        refuse(cls, ("network", "process_components"), is_async, "it must be a plain function, it is not awaited")
        refuse(cls, ("configure",), (*is_async, isgeneratorfunction), "it must be a plain function without yield")
        for field in attributes(cls, lambda value: any(is_marked(value, mark) for mark in WORK_ATTRS)):
            logger.warning("%s.%s will not run: only a Unit has tasks", cls.__qualname__, field)
        for field, stream in vars(cls).items():
            if isinstance(stream, (InputStream, OutputStream)):
                kind = type(stream).__name__
                warnings.warn(
                    f"{cls.__qualname__}.{field}: {kind} on a Collection is deprecated: "
                    f"use {kind.replace('Stream', 'Topic')} or {kind.replace('Stream', 'Relay')}",
                    FutureWarning,
                    stacklevel=2,
                )


class Collection(Component, metaclass=CollectionMeta):
    """A component that holds others; it adds nothing at run time but their connections.

    Takes the arguments of Component. Each instance has its own copies of the components its class declares.
    """

    def __init__(self, *args: Any, settings: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, settings=settings, **kwargs)
        self._components = deepcopy(type(self).__components__)
        for name, component in self._components.items():
            setattr(self, name, component)

    def configure(self) -> None:
        """Called once before the processes start: the place to apply the settings of children."""

    def network(self) -> NetworkDefinition:
        """Connections, as pairs (from, to) of streams, topics, or the names of topics."""
        return ()

    def process_components(self) -> AbstractCollection[Component]:
        """The children that get a process of their own."""
        return (self,)


System = Collection
