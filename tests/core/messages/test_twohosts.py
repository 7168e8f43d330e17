"""A graph across two hosts, with TLS and without; the cable between them is cut."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import certificates
from tests.certificates import Authority
from tests.core.messages.twohosts import ADDRESSES, TwoHosts
from tests.core.workerprocess import Worker

WORKER = Path(__file__).with_name("hostworker.py")
PORTS = {"tls": 25978, "plain": 25979}
OTHER = {"a": "b", "b": "a"}
# Longer when it is run by hand.
CUT_S = float(os.environ.get("TWO_HOSTS_CUT_S", "1"))


class Stream(NamedTuple):
    """One publisher, and its subscriber on the other host."""

    publisher: Worker
    subscriber: Worker


class Graphs:
    """A graph with TLS and one without, whose servers are on host `a`."""

    def __init__(self, hosts: TwoHosts, directory: Path, authority: Authority) -> None:
        self._hosts = hosts
        self._directory = directory
        self._tls = {host: certificates.variables(authority.issue(f"{host}.example")) for host in ADDRESSES}
        self._workers: list[Worker] = []
        self._logs: dict[Worker, Path] = {}

    async def start(self, host: str, role: str, graph: str, topic: str = "", **variables: str) -> Worker:
        """A process on a host (see `hostworker.py`)."""
        environment = os.environ | (self._tls[host] if graph == "tls" else {}) | variables
        address = f"{ADDRESSES['a']}:{PORTS[graph]}"
        command = [sys.executable, "-W", "error", WORKER, role, address, topic, ADDRESSES[host]]
        log = self._directory / f"{len(self._workers)}.log"
        with log.open("w") as stderr:
            process = subprocess.Popen(
                self._hosts.command(host, *command),
                env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True,
            )  # fmt: skip
        worker = Worker(process)
        self._workers.append(worker)
        self._logs[worker] = log
        worker.ready = await worker.line()
        return worker

    async def stream(self, graph: str, publisher_host: str, topic: str, **variables: str) -> Stream:
        """Messages from one host to the other, which flow."""
        subscriber = await self.start(OTHER[publisher_host], "subscribe", graph, topic, **variables)
        publisher = await self.start(publisher_host, "publish", graph, topic, **variables)
        await publisher.tell("go")
        await until(subscriber, 100)
        return Stream(publisher, subscriber)

    def log(self, worker: Worker) -> str:
        return self._logs[worker].read_text()

    async def logged(self, worker: Worker, text: str) -> None:
        """Wait until a process has logged this."""
        async with asyncio.timeout(40):
            while text not in self.log(worker):
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        await asyncio.gather(*(worker.end() for worker in reversed(self._workers)))


async def until(subscriber: Worker, count: int) -> int:
    """How many messages there are, once there are so many; each was checked to be the next one."""
    await subscriber.tell(f"until {count}")
    said = await subscriber.line()
    assert said.startswith("count "), said
    return int(said.removeprefix("count "))


@pytest.fixture
async def graphs(hosts: TwoHosts, tmp_path: Path, authority: Authority) -> AsyncIterator[Graphs]:
    graphs = Graphs(hosts, tmp_path, authority)
    yield graphs
    await graphs.close()


async def test_a_cable_that_is_cut_and_healed_costs_no_message(hosts: TwoHosts, graphs: Graphs) -> None:
    await asyncio.gather(*(graphs.start("a", "serve", graph) for graph in PORTS))
    streams = await asyncio.gather(
        *(graphs.stream(graph, host, f"FROM_{host}") for graph in PORTS for host in ADDRESSES)
    )
    hosts.cut()
    before = [await until(stream.subscriber, 0) for stream in streams]
    await asyncio.sleep(CUT_S)
    # Nothing comes, but for what was on its way, and nobody gave up.
    stalled = [await until(stream.subscriber, 0) for stream in streams]
    assert all(late - early < 100 for early, late in zip(before, stalled, strict=True))
    hosts.heal()
    await asyncio.gather(
        *(until(stream.subscriber, count + 100) for stream, count in zip(streams, stalled, strict=True))
    )
    for publisher, subscriber in streams:
        await publisher.tell("stop")
        sent = int((await publisher.line()).removeprefix("sent "))
        assert await until(subscriber, sent) == sent
        # The connection is that of before: nobody had to come back.
        for worker in (publisher, subscriber):
            assert "dropping" not in graphs.log(worker)
            assert "reach" not in graphs.log(worker)


async def test_a_host_that_does_not_come_back_is_given_up_and_holds_nothing(hosts: TwoHosts, graphs: Graphs) -> None:
    brief = {"EZMSG_PEER_TIMEOUT_S": "2"}
    await asyncio.gather(*(graphs.start("a", "serve", graph, **brief) for graph in PORTS))
    streams = await asyncio.gather(*(graphs.stream(graph, "a", "STREAM", **brief) for graph in PORTS))
    quiet = await asyncio.gather(*(graphs.start("b", "quiet", graph, "QUIET", **brief) for graph in PORTS))
    hosts.cut()
    # Data was under way from the first, and nothing from or to the others.
    for worker in [*(worker for stream in streams for worker in stream), *quiet]:
        await graphs.logged(worker, "its host does not answer")
    for publisher, _ in streams:
        # What the other host held is free: the publisher, which was waiting for it, goes on.
        await publisher.tell("stop")
        assert (await publisher.line()).startswith("sent ")


async def test_a_certificate_that_names_addresses_must_name_the_right_one(graphs: Graphs, authority: Authority) -> None:
    wrong = authority.issue("192.0.2.9", "a.example")
    await graphs.start("a", "serve", "tls", **certificates.variables(wrong))
    client = await graphs.start("b", "dial", "tls")
    assert client.ready == (
        "CertificateNameMismatch: handshake with 192.0.2.1:25978 failed: its certificate is for 192.0.2.9, "
        "not for 192.0.2.1: add that to its subjectAltName, or dial what is there"
    )
