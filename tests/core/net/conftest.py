import socket
from collections.abc import AsyncIterator

import pytest

from ezmsg.core.net import framestream
from ezmsg.core.net.loglimit import LogLimiter
from tests.core.net.serving import Serving


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    async with Serving().serve() as serving:
        yield serving


@pytest.fixture
def no_such_host(monkeypatch: pytest.MonkeyPatch) -> str:
    """A name that is unknown at once, whatever the resolver of this machine does."""
    look_up = socket.getaddrinfo

    def refuse(host, *args, **options):
        if host == "no-such-host.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return "no-such-host.invalid"


@pytest.fixture(autouse=True)
def _fresh_log_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framestream, "LOG", LogLimiter())
