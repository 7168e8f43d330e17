"""A channel by TCP; what it carries is tested in `messages/test_conformance.py`."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from ezmsg.core.errors import TlsRequired
from ezmsg.core.transport import tcp
from ezmsg.core.wire.records import PublisherRoute
from tests import certificates
from tests.certificates import Authority
from tests.core.net.serving import Serving

NOBODY: Any = None


async def test_a_publisher_that_lets_nobody_in_is_told_with_the_reason(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever subscribes does not see the error: its subscriber tries again, as the reason may pass."""
    certificates.use(authority.issue("a.example"), monkeypatch)
    async with Serving().serve() as serving:
        certificates.use(None, monkeypatch)
        route = PublisherRoute("publisher", "TOPIC", 1, "boot", *serving.address)
        with caplog.at_level(logging.WARNING, "ezmsg"):
            for _ in range(3):
                with pytest.raises(TlsRequired):
                    await tcp.connect_channel(route, NOBODY, "channel")
        told = [line for line in caplog.messages if line.startswith("no channel to the publisher on TOPIC: ")]
        assert len(told) == 1
        assert "it uses TLS, this process does not" in told[0]
