"""The hidden units behind the relays of collections: each receives, and publishes the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from copy import deepcopy
from typing import Any

from ezmsg.core.collection import Collection
from ezmsg.core.errors import NameClash
from ezmsg.core.settings import Settings
from ezmsg.core.stream import DEFAULT_BUF_SIZE, DEFAULT_NUM_BUFFERS, InputRelay, InputStream, OutputRelay, OutputStream
from ezmsg.core.unit import Unit, publisher, subscriber

INPUT_PREFIX = "__relay_in_"
OUTPUT_PREFIX = "__relay_out_"

Relay = InputRelay | OutputRelay


class RelaySettings(Settings):
    """What the endpoint in front of a hidden unit asks for: the arguments of its streams."""

    leaky: bool = False
    max_queue: int | None = None
    host: str | None = None
    port: int | None = None
    num_buffers: int = DEFAULT_NUM_BUFFERS
    buf_size: int = DEFAULT_BUF_SIZE
    force_tcp: bool | None = None
    copy_on_forward: bool = True


class RelayUnit(Unit):
    """Publishes what it receives.

    Args:
        endpoint: The relay of a collection it stands behind.
        location: Address of the collection, in parts.
    """

    SETTINGS = RelaySettings

    INPUT = InputStream(Any)
    OUTPUT = OutputStream(Any)

    def __init__(self, endpoint: Relay, location: list[str]) -> None:
        super().__init__()
        self._set_name(hidden_name(endpoint))
        self._set_location(location)
        self.INPUT.msg_type = self.OUTPUT.msg_type = endpoint.msg_type

    async def initialize(self) -> None:
        """Give the streams what the settings say."""
        settings: RelaySettings = self.SETTINGS
        self.INPUT.leaky = settings.leaky
        self.INPUT.max_queue = settings.max_queue
        self.OUTPUT.host = settings.host
        self.OUTPUT.port = settings.port
        self.OUTPUT.num_buffers = settings.num_buffers
        self.OUTPUT.buf_size = settings.buf_size
        self.OUTPUT.force_tcp = settings.force_tcp

    @subscriber(INPUT)
    @publisher(OUTPUT)
    async def forward(self, message: Any) -> AsyncIterator[tuple[OutputStream, Any]]:
        """Publish a message again: a copy, so that nobody inside can change what those outside see."""
        yield self.OUTPUT, deepcopy(message) if self.SETTINGS.copy_on_forward else message


def hidden_name(endpoint: Relay) -> str:
    """The name of the unit behind a relay."""
    return (INPUT_PREFIX if isinstance(endpoint, InputRelay) else OUTPUT_PREFIX) + endpoint.name


def relays(collection: Collection) -> dict[str, Relay]:
    """The relays of a collection, by name."""
    return {name: it for name, it in collection.streams.items() if isinstance(it, (InputRelay, OutputRelay))}


def add_hidden_units(collection: Collection) -> dict[Relay, RelayUnit]:
    """Give a collection, which has its place, a child behind each relay.

    Returns:
        The unit behind each.

    Raises:
        NameClash: It has a child of that name.
    """
    added: dict[Relay, RelayUnit] = {}
    location = [*collection.location, collection.name]
    for endpoint in relays(collection).values():
        name = hidden_name(endpoint)
        if name in collection.components:
            raise NameClash(
                f"{collection.address}/{name}", f"the relay {endpoint.name} needs that name: rename the child"
            )
        unit = added[endpoint] = RelayUnit(endpoint, location)
        collection._components = {**collection.components, name: unit}  # pyright: ignore[reportPrivateUsage]
    return added


def relay_settings(endpoint: Relay) -> RelaySettings:
    """The settings of the unit behind a relay, as its endpoint stands now."""
    fields = RelaySettings.__dataclass_fields__
    return RelaySettings(**{name: value for name, value in vars(endpoint).items() if name in fields})
