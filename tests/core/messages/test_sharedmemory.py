"""Large messages between processes: memory that grows, is kept, is lost with a process, or is not to be had."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ezmsg.core import segment
from ezmsg.core.errors import SharedMemoryUnavailable
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.graphserver import GraphServer, GraphService
from ezmsg.core.profiling import PROFILES
from ezmsg.core.pubclient import Publisher
from ezmsg.core.subclient import Subscriber
from tests import leaks
from tests.core.forked import in_child
from tests.core.messages.largeprocesses import Processes
from tests.core.messages.largeworker import message, number_of

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has it")
pytestmark = LINUX
SMALL, LARGE = 100, 1_000_000


@pytest.fixture(autouse=True)
def _no_telemetry_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process opens no connection for telemetry: when it does is left to a thread, and descriptors are counted."""
    monkeypatch.setattr(PROFILES, "_hook", None)


@pytest.fixture
async def processes(server: GraphServer, tmp_path: Path) -> AsyncIterator[Processes]:
    processes = Processes(str(server.address), tmp_path)
    await processes.open()
    yield processes
    await processes.close()


def kind_of(subscriber: Subscriber) -> ProfileChannelType:
    [subscription] = subscriber._subscriptions.values()
    return subscription.channel.kind


async def drained(publisher: Publisher) -> None:
    """Wait until everything that was sent is released, then go on."""
    await asyncio.wait_for(publisher.sync(), 40)
    publisher.resume()


async def until(is_true: Callable[[], bool], timeout_s: float = 40) -> None:
    """Wait for what nobody announces; a process's end shows at once, not when its silence is noticed."""
    async with asyncio.timeout(timeout_s):
        while not is_true():
            await asyncio.sleep(0.002)


async def next_number(subscriber: Subscriber) -> int:
    async with asyncio.timeout(40), subscriber.recv_zero_copy() as array:
        return number_of(array)


# -- growth, views, several ways at once ------------------------------------------------------------------------------


async def test_memory_grows_while_several_processes_hold_older_messages(
    context: GraphContext, processes: Processes
) -> None:
    publisher = await context.publisher("T", num_buffers=12)
    holders = [await processes.start("hold", commands=True) for _ in range(3)]
    number = 0
    for size in (5_000, 60_000, 70_000, 300_000, 700_000, 3_000_000):
        for _ in range(2):
            await publisher.broadcast(message(number, size))
            number += 1
        for holder in holders:
            await holder.do("take 2")
            await holder.do("check")
    assert publisher._remotes.memory is not None
    assert publisher._remotes.memory.reallocations >= 3
    # They let go one by one; the others still hold all of it.
    for index, holder in enumerate(holders):
        assert await holder.do("kind") == "SHM"
        await holder.do("release")
        for other in holders[index + 1 :]:
            await other.do("check")
    for _ in range(24):
        await publisher.broadcast(message(number, 400_000))
        number += 1
        for holder in holders:
            await holder.do("drain 1")
    await drained(publisher)
    for holder in holders:
        await holder.end()
    assert processes.errors == []


async def test_views_outlive_lease_publisher_and_its_process(context: GraphContext, processes: Processes) -> None:
    subscriber = await context.subscriber("T")
    worker = await processes.start("publish", "num_buffers=4")
    kept: list[np.ndarray] = []
    for number in range(40):
        async with asyncio.timeout(40), subscriber.recv_zero_copy() as array:
            assert number_of(array) == number
            kept.append(array[1:])
    async with asyncio.timeout(40), subscriber.recv_zero_copy() as array:
        worker.kill()
        await until(lambda: "publishers=0" in repr(subscriber))
        # Of a process that is dead nothing is used again.
        assert number_of(array) == 40
        kept.append(array)
    subscriber.close()
    await subscriber.wait_closed()
    assert number_of(kept[-1]) == 40
    assert all(view.sum() >= 0 for view in kept)
    kept.clear()
    gc.collect()


async def test_what_a_killed_publisher_sent_can_still_be_taken(context: GraphContext, processes: Processes) -> None:
    subscriber = await context.subscriber("T")
    worker = await processes.start("publish", "num_buffers=6")
    await until(lambda: "queued=6" in repr(subscriber))
    worker.kill()
    await until(lambda: "publishers=0" in repr(subscriber))
    assert [await next_number(subscriber) for _ in range(6)] == list(range(6))


async def test_a_process_that_keeps_views_ends_quietly(context: GraphContext, processes: Processes) -> None:
    publisher = await context.publisher("T", num_buffers=4)
    holder = await processes.start("hold", commands=True)
    for number in range(4):
        await publisher.broadcast(message(number, LARGE))
    for word in ("take 4", "keep", "release"):
        await holder.do(word)
    for number in range(4):
        await publisher.broadcast(message(number, 2 * LARGE))
    await holder.do("take 4")
    await holder.do("keep")
    await holder.end()
    await until(lambda: "channels=0" in repr(publisher))
    await drained(publisher)
    assert processes.errors == []


async def test_one_publisher_reaches_each_subscriber_in_the_way_that_it_can_see(
    context: GraphContext, processes: Processes
) -> None:
    publisher = await context.publisher("T", num_buffers=4)
    local = await context.subscriber("T")
    ways = {"SHM": await processes.start("hold", commands=True),
            "TCP": await processes.start("hold", "elsewhere", commands=True)}  # fmt: skip
    for name, holder in ways.items():
        assert await holder.do("kind") == name
    assert kind_of(local) is ProfileChannelType.LOCAL
    for number in range(30):
        sending = asyncio.create_task(publisher.broadcast(message(number, (SMALL, 5_000, LARGE)[number % 3])))
        for holder in ways.values():
            holder.command("take 1")
        assert await next_number(local) == number
        await sending
        for holder in ways.values():
            await holder.expect("take done")
        if number % 3 == 2:
            for holder in (ways["TCP"], ways["SHM"]):
                await holder.do("check")
                await holder.do("release")
    await drained(publisher)


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["small", "large"])
async def test_with_one_buffer_messages_take_turns(context: GraphContext, processes: Processes, size: int) -> None:
    publisher = await context.publisher("T", num_buffers=1)
    holder = await processes.start("hold", commands=True)
    for number in range(20):
        await asyncio.wait_for(publisher.broadcast(message(number, size)), 40)
        await holder.do("take 1")
        blocked = asyncio.create_task(publisher.broadcast(message(100, size)))
        await holder.do("check")
        assert not blocked.done()
        await holder.do("release")
        await asyncio.wait_for(blocked, 40)
        await holder.do("drain 1")
    await drained(publisher)


# -- processes that are killed ----------------------------------------------------------------------------------------


class Remains:
    """What this process has open and mapped of others."""

    def __init__(self) -> None:
        self._before = self._now()

    @staticmethod
    def _now() -> tuple[int, int]:
        gc.collect()
        maps = Path("/proc/self/maps").read_text()
        return len(list(leaks.descriptors())), maps.count("memfd:ezmsg")

    async def are_gone(self) -> None:
        """Wait until there is no more than at the beginning."""
        try:
            await until(lambda: self._now() == self._before)
        except TimeoutError:
            pytest.fail(f"open descriptors and mappings: {self._before} before, now {self._now()}")


def moment(random: random.Random) -> Callable[[], Any]:
    """Let the loop turn some times."""

    async def pass_by() -> None:
        for _ in range(random.randrange(60)):
            await asyncio.sleep(0)

    return pass_by


@pytest.fixture(params=["shm", "tcp"])
def way(request: pytest.FixtureRequest) -> str:
    return request.param


async def until_graph_is_empty(context: GraphContext) -> None:
    async with asyncio.timeout(40):
        while len((await context.snapshot()).sessions) > 1:
            await asyncio.sleep(0.002)


async def test_publishers_killed_at_any_moment_leave_nothing_at_their_subscribers(
    context: GraphContext, processes: Processes, way: str
) -> None:
    subscribers = [await context.subscriber("T") for _ in range(2)]
    remains = Remains()
    chance = random.Random(1)
    pass_by = moment(chance)
    for _ in range(15):
        worker = await processes.start("publish", way)
        for subscriber in subscribers:
            assert await next_number(subscriber) == 0
        for number in range(1, chance.randrange(1, 12)):
            assert await next_number(subscribers[0]) == number
            assert await next_number(subscribers[1]) == number
        await pass_by()
        worker.kill()
        await until(lambda: all("publishers=0" in repr(subscriber) for subscriber in subscribers))
        # What arrived whole is whole.
        for subscriber in subscribers:
            while subscriber._inbox.queue:
                await next_number(subscriber)
    await until_graph_is_empty(context)
    await remains.are_gone()


async def test_subscribers_killed_at_any_moment_release_what_they_held(
    context: GraphContext, processes: Processes, way: str
) -> None:
    remains = Remains()
    publisher = await context.publisher("T", num_buffers=4, force_tcp=way == "tcp")
    survivor = await context.subscriber("T")

    async def send() -> None:
        number = 0
        while True:
            await publisher.broadcast(message(number, (5_000, LARGE, 70_000)[number % 3]))
            number += 1

    async def take() -> None:
        last = -1
        while True:
            number = await next_number(survivor)
            assert last in (-1, number - 1)
            last = number

    working = [asyncio.create_task(send()), asyncio.create_task(take())]
    pass_by = moment(random.Random(2))
    for _ in range(12):
        victims = [await processes.start("subscribe"), await processes.start("subscribe")]
        for victim in victims:
            await victim.expect("received")
        await pass_by()
        for victim in victims:
            victim.kill()
        await until(lambda: "channels=1" in repr(publisher))
        # The ring goes round: nobody holds a slot for the dead.
        goal = publisher._next_id + 8
        await until(lambda goal=goal: publisher._next_id > goal)
    assert not any(task.done() for task in working)
    working[0].cancel()
    await asyncio.wait(working[:1])
    await drained(publisher)
    working[1].cancel()
    await asyncio.wait(working)
    # At most an extent for each slot, however many readers there were.
    assert publisher._remotes.memory is None or "of 4 places used" in repr(publisher._remotes.memory)
    for endpoint in (publisher, survivor):
        endpoint.close()
        await endpoint.wait_closed()
    await until_graph_is_empty(context)
    await remains.are_gone()


async def test_when_both_ends_are_killed_nothing_is_left(context: GraphContext, processes: Processes, way: str) -> None:
    remains = Remains()
    pass_by = moment(random.Random(3))
    for number in range(10):
        both = [await processes.start("publish", way), await processes.start("subscribe")]
        await both[1].expect("received")
        await pass_by()
        for process in both if number % 2 else reversed(both):
            process.kill()
        await until_graph_is_empty(context)
    await remains.are_gone()
    assert not [line for line in processes.errors if "Error" in line]


async def test_a_killed_process_whose_forked_child_lives_on_releases_what_it_held(
    context: GraphContext, processes: Processes, way: str
) -> None:
    publisher = await context.publisher("T", num_buffers=2, force_tcp=way == "tcp")
    victim = await processes.start("subscribe", "forks")
    sending = asyncio.create_task(publisher.broadcast(message(0, LARGE)))
    word, child = (await victim.line()).split()
    assert word == "child"
    try:
        await victim.expect("received")
        await sending
        victim.kill()
        await until(lambda: "channels=0" in repr(publisher))
        await asyncio.wait_for(publisher.sync(), 40)
        await until_graph_is_empty(context)
    finally:
        os.kill(int(child), signal.SIGKILL)


async def test_a_killed_publisher_whose_forked_child_lives_on_is_gone_for_its_subscribers(
    context: GraphContext, processes: Processes, way: str
) -> None:
    subscriber = await context.subscriber("T")
    remains = Remains()
    worker = await processes.start("publish", way, "forks")
    child = processes.child_of(worker)
    try:
        for number in range(5):
            assert await next_number(subscriber) == number
        worker.kill()
        await until(lambda: "publishers=0" in repr(subscriber))
        while subscriber._inbox.queue:
            await next_number(subscriber)
        await until_graph_is_empty(context)
        await remains.are_gone()
    finally:
        os.kill(child, signal.SIGKILL)


async def test_a_child_forked_beside_open_memory_holds_no_descriptor_of_it(
    context: GraphContext, server: GraphServer
) -> None:
    before = {key for key, _ in leaks.descriptors()}
    publisher = await context.publisher("T", allow_local=False)
    subscriber = await context.subscriber("T")
    for size in (5_000, LARGE):
        await publisher.broadcast(message(1, size))
    assert kind_of(subscriber) is ProfileChannelType.SHM

    def opened() -> list[str]:
        return [link for key, link in leaks.descriptors() if key not in before]

    def check() -> bool:
        assert publisher._remotes.memory is not None
        assert repr(publisher._remotes.memory.segment) == "<Segment closed>"
        sockets = [link for link in opened() if "socket:" in link]
        # Before Python 3.13 every mapping has a descriptor of its own, which nobody can close but with it.
        # The publisher's and the subscriber's own are closed.
        return not sockets and sum("memfd:ezmsg" in link for link in opened()) == in_parent - 2

    async with subscriber.recv_zero_copy() as first:
        in_parent = sum("memfd:ezmsg" in link for link in opened())
        assert in_child(check)
        assert in_child(lambda: number_of(first) == 1), "its mappings stay"
    assert await next_number(subscriber) == 1
    await drained(publisher)


# -- what is not to be had --------------------------------------------------------------------------------------------


async def test_a_reader_without_address_space_copies_and_gets_every_message(
    context: GraphContext, processes: Processes
) -> None:
    # Places of 64 MiB, messages of 1 MB.
    publisher = await context.publisher("T", num_buffers=2, buf_size=64 << 20)
    reader = await processes.start("hold", commands=True)
    await reader.do(f"limit {48 << 20}")
    for number in range(0, 6, 2):
        await publisher.broadcast(message(number, LARGE))
        await publisher.broadcast(message(number + 1, LARGE))
        for word in ("take 2", "check", "release"):
            await reader.do(word)
    assert await reader.do("kind") == "SHM"
    await drained(publisher)
    [warning] = processes.errors
    assert "T are copied instead of mapped" in warning
    assert "Cannot allocate memory" in warning


SHORT = {"addresses": f"addresses={6 << 20}", "files": f"fsize={1 << 20}"}


@pytest.mark.parametrize("limit", list(SHORT))
async def test_a_publisher_that_gets_no_more_memory_sends_every_message_another_way(
    context: GraphContext, processes: Processes, limit: str
) -> None:
    subscriber = await context.subscriber("T")
    publisher = await processes.start("short", SHORT[limit], f"size={4 << 20}", commands=True)
    assert kind_of(subscriber) is ProfileChannelType.SHM
    publisher.command("go")
    assert [await next_number(subscriber) for _ in range(10)] == list(range(10))
    await publisher.expect("sent 10")
    await publisher.end()
    [warning] = processes.errors
    assert "large messages go through a socket until there is some" in warning
    assert {"addresses": "Cannot allocate memory", "files": "File too large"}[limit] in warning


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EPERM, errno.ENOSYS], ids=errno.errorcode.get)
async def test_a_publisher_without_any_memory_sends_through_a_socket(
    context: GraphContext,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    number: int,
) -> None:
    def memfd_create(*args: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "memfd_create", memfd_create)
    monkeypatch.setattr(segment, "memory_directory", lambda: str(tmp_path / "missing"))
    subscriber = await context.subscriber("T")
    publisher = await context.publisher("T", allow_local=False)
    for index, size in enumerate((SMALL, 5_000, LARGE, 3 * LARGE)):
        await publisher.broadcast(message(index, size))
        assert await next_number(subscriber) == index
    assert kind_of(subscriber) is ProfileChannelType.TCP
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "messages on T go through a socket" in warning
    await drained(publisher)


async def test_without_memfd_and_dev_shm_an_unlinked_file_does(
    context: GraphContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(segment, "_SHARED_MEMORY", str(tmp_path / "missing"))
    subscriber = await context.subscriber("T")
    publisher = await context.publisher("T", allow_local=False)
    for index, size in enumerate((SMALL, 5_000, LARGE)):
        await publisher.broadcast(message(index, size))
        assert await next_number(subscriber) == index
    assert kind_of(subscriber) is ProfileChannelType.SHM


FULL = """
import asyncio, resource, sys
from ezmsg.core.errors import SharedMemoryUnavailable
from ezmsg.core.graphserver import GraphServer, GraphService

async def main():
    server = GraphServer()
    server.start("127.0.0.1:0")
    service = GraphService(server.address)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        await service.create_shm(4, 1 << 20)
    except SharedMemoryUnavailable as error:
        print(error)
    context = await service.create_shm(4, 1 << 12)
    context.close()
    await context.wait_closed()
    await asyncio.to_thread(server.stop)

asyncio.run(main())
"""


def test_memory_with_a_name_for_which_there_is_no_room_is_refused_with_the_reason() -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL], check=True, timeout=120, stdout=subprocess.PIPE, text=True
    )
    assert f"cannot create shared memory of {4 << 20} bytes: File too large" in ended.stdout
    assert "ulimit -f" in ended.stdout


async def test_named_memory_is_refused_when_nothing_can_be_made(
    server: GraphServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def memfd_create(*args: Any) -> int:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "memfd_create", memfd_create)
    monkeypatch.setattr(segment, "memory_directory", lambda: str(tmp_path / "missing"))
    with pytest.raises(SharedMemoryUnavailable, match=r"create .* No such file or directory"):
        await GraphService(server.address).create_shm(1, 4096)


# -- the order of events ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("size", [SMALL, 5_000, 60_000, LARGE])
async def test_the_first_message_arrives_before_the_publishers_loop_turns_again(
    context: GraphContext, processes: Processes, way: str, size: int, count: int
) -> None:
    subscriber = await context.subscriber("T")
    publisher = await processes.start("burst", way, f"size={size}", commands=True)
    for _ in range(3):
        publisher.command(str(count))
        assert await next_number(subscriber) == 0
        # Only now does it go on.
        publisher.command("arrived")
        assert [await next_number(subscriber) for _ in range(1, count)] == list(range(1, count))
        await publisher.expect("told arrived")
    await publisher.end()
