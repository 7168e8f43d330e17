"""Two hosts, where a test needs them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator

import pytest

from tests.core.messages.twohosts import NEEDED, TwoHosts


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    """Two hosts whose cable is plugged in."""
    if sys.platform != "linux":
        pytest.skip("only Linux has network namespaces")
    if shutil.which("ip") is None:
        pytest.fail(f"{NEEDED}, and there is no `ip`: apt install iproute2", pytrace=False)
    made = TwoHosts()
    try:
        made.open()
        yield made
    finally:
        made.close()
