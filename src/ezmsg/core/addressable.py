"""What has a name and a place in the tree of a run: components, and the streams they declare."""

from __future__ import annotations

from ezmsg.core.errors import AlreadyAddressed, NotAddressed


class Addressable:
    """Something with an address: a name, and the names of what it is part of.

    A class that declares it gives the name, a run gives the location; each once, for another address would be
    another thing.
    """

    _name: str | None = None
    _location: list[str] | None = None

    @property
    def name(self) -> str:
        """Its own name; AssertionError until it has one."""
        if self._name is None:
            raise NotAddressed(type(self).__name__, "name")
        return self._name

    @property
    def location(self) -> list[str]:
        """The names of what it is part of, outermost first; AssertionError until a run placed it."""
        if self._location is None:
            raise NotAddressed(self._name or type(self).__name__, "location")
        return list(self._location)

    @property
    def address(self) -> str:
        """Location and name, joined with slashes; AssertionError until it has both."""
        return "/".join([*self.location, self.name])

    def _set_name(self, name: str | None = None) -> None:
        if self._name is not None:
            raise AlreadyAddressed(self._name, "name", str(name))
        self._name = type(self).__name__ if name is None else name

    def _set_location(self, location: list[str] | None = None) -> None:
        if self._location is not None:
            raise AlreadyAddressed(self._name or type(self).__name__, "location", "/".join(location or []))
        self._location = list(location or [])


def label(it: Addressable) -> str:
    """As much of an address as there is, for texts."""
    location, name = it._location, it._name  # pyright: ignore[reportPrivateUsage]
    return "/".join([*(location or ()), name or type(it).__name__])
