"""Each pair of publisher and subscriber runs to its end, as its first lines say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ezmsg.core.graphserver import GraphServer

ROOT = Path(__file__).parents[2]
CHUNKS = 20


def started(name: str, address: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", f"examples.{name}"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "EZMSG_GRAPHSERVER_ADDR": address},
    )  # fmt: skip


@pytest.fixture
def servers() -> Iterator[list[GraphServer]]:
    servers = [GraphServer(), GraphServer()]
    for server in servers:
        server.start("127.0.0.1:0")
    yield servers
    for server in servers:
        server.stop()


def test_pairs_run_to_their_ends(servers: list[GraphServer]) -> None:
    # At the same time, in graphs of their own: most of what they take is waiting for interpreters to start.
    addresses = dict(zip(("async", "sync"), (str(server.address) for server in servers), strict=True))
    subscribers = [started(f"{kind}_subscriber", address) for kind, address in addresses.items()]
    for subscriber in subscribers:
        assert subscriber.stdout is not None
        assert subscriber.stdout.readline() == "listening\n"
    publishers = [started(f"{kind}_publisher", address) for kind, address in addresses.items()]
    for publisher in publishers:
        assert publisher.communicate(timeout=40) == (f"sent {CHUNKS} chunks\n", "")
    for subscriber in subscribers:
        output, errors = subscriber.communicate(timeout=40)
        assert errors == ""
        assert [line.partition(":")[0] for line in output.splitlines()] == [f"chunk {n:2}" for n in range(CHUNKS)]
        assert output.splitlines()[0] == "chunk  0: +0.00 to +1.00"
    assert {program.returncode for program in (*publishers, *subscribers)} == {0}


def test_without_a_server_they_say_so_in_one_line() -> None:
    for example in [started(name, "127.0.0.1:1") for name in ("async_publisher", "sync_subscriber")]:
        output, errors = example.communicate(timeout=40)
        assert (output, example.returncode) == ("", 1)
        assert errors.startswith("no GraphServer answers at 127.0.0.1:1")
        assert errors.count("\n") == 1


def test_each_is_short() -> None:
    for path in (ROOT / "examples").glob("*sync_*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 60
