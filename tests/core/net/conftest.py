from collections.abc import AsyncIterator

import pytest

from ezmsg.core.net import framestream
from ezmsg.core.net.loglimit import LogLimiter
from tests.core.net.serving import Serving


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    async with Serving().serve() as serving:
        yield serving


@pytest.fixture(autouse=True)
def _fresh_log_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framestream, "LOG", LogLimiter())
