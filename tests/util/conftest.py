"""Units that run on a GraphServer of their own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

import ezmsg.core as ez
from ezmsg.core.graphserver import GraphServer
from tests.core.conftest import context, server
from tests.util.rig import Rig, rig

__all__ = ["context", "server"]

Run = Callable[[ez.Unit], AbstractAsyncContextManager[Rig]]


@pytest.fixture
def run(server: GraphServer, context: ez.GraphContext) -> Run:
    """Runs a unit: `async with run(unit) as rig`."""
    return lambda unit: rig(unit, context, server.address)
