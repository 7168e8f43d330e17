import socket
from collections.abc import AsyncIterator

import pytest

from ezmsg.core.net import framestream
from ezmsg.core.net.loglimit import LogLimiter
from tests import certificates
from tests.certificates import Authority
from tests.core.net.securing import Use
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


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """What connections of this process use from now on."""
    return lambda files: certificates.use(files, monkeypatch)


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")
