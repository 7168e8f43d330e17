"""What workers that run a chain of units share: where the units run, and which server they find."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import ezmsg.core as ez
from ezmsg.core.graphserver import GraphService
from ezmsg.core.netprotocol import Address


class Ran(NamedTuple):
    """What a unit found, and when `run` began and returned, in s of the monotonic clock."""

    found: dict[str, float]
    began_s: float
    over_s: float


def run_chain(make: Callable[[str], Sequence[Any]], where: str, output: str = "OUTPUT", inlet: str = "INPUT") -> Ran:
    """Run units each of which publishes to the next.

    Args:
        make: Makes the units, given the path of the file in which one of them tells what it found, as JSON.
        where: `together` in one process, or `apart`, each unit in its own; the first is always in the calling one.
        output: The stream units publish on.
        inlet: The stream units receive from.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "found.json")
        chain = make(str(path))
        edges = [(getattr(a, output), getattr(b, inlet)) for a, b in pairwise(chain)]
        units: dict[str, Any] = {f"U{number}": unit for number, unit in enumerate(chain)}
        _find_no_server()
        began_s = time.monotonic()
        ez.run(components=units, connections=edges, process_components=chain if where == "apart" else None)
        over_s = time.monotonic()
        return Ran(json.loads(path.read_text()), began_s, over_s)


def _find_no_server() -> None:
    """Have `run` start a server, as for most users, also where that of another program is at the default address."""
    os.environ.pop(GraphService.ADDR_ENV, None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = Address(*free.getsockname())
    GraphService.default_address = staticmethod(lambda: address)
