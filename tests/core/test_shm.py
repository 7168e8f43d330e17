"""Named shared memory: made, attached, let go in any order, by processes that end well and by those that are killed."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from ezmsg.core.control import ControlClient
from ezmsg.core.errors import (
    ConfigError,
    ServerUnreachable,
    SharedMemoryClosed,
    SharedMemoryElsewhere,
    SharedMemoryLimit,
    SharedMemoryUnavailable,
    UnknownSharedMemory,
)
from ezmsg.core.graphserver import GraphServer, GraphService
from ezmsg.core.shm import SHMContext
from ezmsg.core.wire.records import AttachShm, CreateShm, Record
from tests.core.forked import in_child
from tests.core.workerprocess import Worker

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has it")
WORKER = Path(__file__).with_name("shmworker.py")
Start = Callable[..., Awaitable[Worker]]
Files = Callable[[], list[Path]]


@pytest.fixture
def service(server: GraphServer) -> GraphService:
    return GraphService(server.address)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts processes that hold shared memory, and ends them with the test."""
    workers: list[Worker] = []

    async def start(role: str, *args: object) -> Worker:
        command = [sys.executable, "-W", "error", str(WORKER), role, *map(str, args)]
        worker = Worker(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        workers.append(worker)
        worker.ready = await worker.line()
        return worker

    yield start
    for worker in workers:
        await worker.end()


async def close(*contexts: SHMContext) -> None:
    for context in contexts:
        context.close()
        await context.wait_closed()


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """The memory of the server of this process that has a name, in a directory that others do not use."""
    monkeypatch.setattr("ezmsg.core.server.shm.memory_directory", lambda: str(tmp_path))
    return lambda: list(tmp_path.glob("ezmsg-*"))


def held_by_server() -> list[str]:
    """The memory that the server of this process holds; for tests whose holders are elsewhere."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:  # the one that listed them
            continue
    return [link for link in links if "memfd:ezmsg" in link]


async def until_gone(service: GraphService, name: str) -> None:
    async with asyncio.timeout(40):
        while True:
            try:
                await close(await service.attach_shm(name))
            except UnknownSharedMemory:
                return


# -- access -----------------------------------------------------------------------------------------------------------


async def test_creator_and_attacher_share_all_buffers(service: GraphService) -> None:
    created = await service.create_shm(3, 4096)
    attached = await service.attach_shm(created.name)
    assert (attached.name, attached.num_buffers, attached.buf_size) == (created.name, 3, 4096)
    assert created.size == attached.size == 4080
    for idx in range(3):
        with created.buffer(idx) as view:
            assert len(view) == 4080
            assert bytes(view) == bytes(4080)
            view[:] = bytes([idx + 1]) * 4080
    for idx in range(3):
        with attached.buffer(idx, readonly=True) as view:
            assert view.readonly
            assert bytes(view) == bytes([idx + 1]) * 4080
    created[np.int64(1)][0] = 9
    assert attached[1][0] == 9
    assert [view[0] for view in attached] == [1, 9, 3]
    assert repr(created) == f"<SHMContext {created.name} 3 x 4096 bytes: open>"
    await close(created, attached)
    assert repr(created) == f"<SHMContext {created.name} 3 x 4096 bytes: it was closed>"


async def test_buffers_are_64_kib_by_default(service: GraphService) -> None:
    context = await service.create_shm(1)
    assert (context.buf_size, context.size) == (65536, 65520)
    await close(context)


async def test_a_buffer_that_is_not_there_is_an_index_error_that_names_it(service: GraphService) -> None:
    context = await service.create_shm(2, 4096)
    for idx in (-1, 2, 1 << 70):
        with pytest.raises(IndexError, match=rf"buffer {idx} among the 2"):
            context[idx]
        with pytest.raises(IndexError), context.buffer(idx):
            pass
    await close(context)


async def test_views_outlive_their_block_and_the_context(service: GraphService) -> None:
    context = await service.create_shm(2, 4096)
    with context.buffer(0) as kept:
        array = np.frombuffer(kept, dtype=np.uint8)
    kept[:] = b"x" * len(kept)
    await close(context)
    kept[0] = 0
    assert array.sum() == ord("x") * 4079


KEEPER = """
import asyncio, sys
import numpy as np
from ezmsg.core.graphserver import GraphService

async def main():
    asyncio.get_running_loop().slow_callback_duration = 60.0  # a busy machine is no news
    context = await GraphService(sys.argv[1]).create_shm(2, 4096)
    with context.buffer(1) as view:
        kept.append(np.frombuffer(view, dtype=np.float64))
    kept.append(context[0])
    if sys.argv[2] == "close":
        context.close()
        await context.wait_closed()
    kept.append(context)

kept = []
asyncio.run(main())
assert kept[0].sum() == 0
"""


@pytest.mark.parametrize("end", ["close", "leave"])
async def test_a_process_that_keeps_views_ends_quietly(service: GraphService, end: str) -> None:
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", KEEPER, str(service.address), end]
    ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=120, text=True)
    assert ended.returncode == 0, ended.stderr
    # A context that was not closed is told of by asyncio, as an unclosed transport.
    if end == "leave":
        assert "BufferError" not in ended.stderr
    else:
        assert ended.stderr == ""


# -- holders ----------------------------------------------------------------------------------------------------------


async def test_memory_stays_for_whoever_is_left_and_is_gone_with_the_last(service: GraphService) -> None:
    created = await service.create_shm(1, 4096)
    first = await service.attach_shm(created.name)
    created[0][0] = 7
    await close(created)
    assert first[0][0] == 7
    second = await service.attach_shm(created.name)
    assert second[0][0] == 7
    await close(first)
    second[0][0] = 8
    await close(second)
    with pytest.raises(ValueError, match=created.name) as refusal:
        await service.attach_shm(created.name)
    assert isinstance(refusal.value, UnknownSharedMemory)
    assert refusal.value.name == created.name


async def test_a_closed_context_refuses_and_can_be_closed_again(service: GraphService) -> None:
    context = await service.create_shm(1, 4096)
    await close(context)
    with pytest.raises(BufferError, match="closed"), context.buffer(0):
        pass
    with pytest.raises(SharedMemoryClosed):
        context[0]
    await close(context)


async def test_another_process_needs_the_address_and_the_name_only(service: GraphService, start: Start) -> None:
    context = await service.create_shm(2, 4096)
    worker = await start("attach", service.address, context.name)
    assert bytes(context[1][:5]) == b"hello"
    assert await worker.end() == 0
    await close(context)


async def test_a_killed_creator_leaves_the_memory_to_who_attached(service: GraphService, start: Start) -> None:
    creator = await start("create", service.address)
    name = creator.ready.split()[1]
    context = await service.attach_shm(name)
    await creator.kill()
    assert bytes(context[1][:5]) == b"hello"
    await close(context)
    await until_gone(service, name)


@LINUX
async def test_when_all_holders_are_killed_the_server_holds_nothing(
    service: GraphService, start: Start, files: Files
) -> None:
    creator = await start("create", service.address)
    name = creator.ready.split()[1]
    attacher = await start("attach", service.address, name)
    assert len(held_by_server()) == 1
    await attacher.kill()
    await creator.kill()
    await until_gone(service, name)
    assert held_by_server() == []
    assert files() == []


async def test_a_forked_child_reads_on_and_does_not_hold_the_memory(service: GraphService) -> None:
    context = await service.create_shm(1, 4096)
    context[0][:4] = b"abcd"
    assert in_child(lambda: bytes(context[0][:4]) == b"abcd")
    await close(context)
    with pytest.raises(UnknownSharedMemory):
        await service.attach_shm(context.name)


# -- the end of the server --------------------------------------------------------------------------------------------


async def test_a_server_that_is_stopped_from_within_the_loop_ends_access(
    server: GraphServer, service: GraphService
) -> None:
    created = await service.create_shm(1, 4096)
    attached = await service.attach_shm(created.name)
    kept = attached[0]
    server.stop()
    async with asyncio.timeout(40):
        await created.wait_closed()
        await attached.wait_closed()
    for context in (created, attached):
        with pytest.raises(BufferError, match="GraphServer has ended"), context.buffer(0):
            pass
    kept[0] = 1
    await close(created, attached)


async def test_a_server_that_is_asked_to_shut_down_ends_access(service: GraphService) -> None:
    context = await service.create_shm(1, 4096)
    await service.shutdown()
    async with asyncio.timeout(40):
        await context.wait_closed()
    with pytest.raises(BufferError, match="ended"):
        context[0]
    await close(context)


async def test_a_server_that_is_killed_leaves_the_memory_to_its_holders_and_nothing_else(start: Start) -> None:
    worker = await start("serve")
    service = GraphService(worker.ready.split()[1])
    created = await service.create_shm(1, 4096)
    attached = await service.attach_shm(created.name)
    await worker.kill()
    async with asyncio.timeout(40):
        await created.wait_closed()
        await attached.wait_closed()
    created[0][0] = 5
    assert attached[0][0] == 5
    assert "the server is lost" in repr(attached)
    with pytest.raises(ServerUnreachable):
        await service.attach_shm(created.name)
    await close(created, attached)  # the leak guard looks for files


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_buffers", "buf_size"),
    [
        *((wrong, 4096) for wrong in (0, -1, True, 1.0, "1", None, 1 << 63)),
        *((1, wrong) for wrong in (16, 0, -5, True, 4096.0, 1 << 80)),
    ],
)
async def test_numbers_that_make_no_memory_are_value_errors(
    service: GraphService, num_buffers: int, buf_size: int
) -> None:
    with pytest.raises(ValueError, match=r"(num_buffers|buf_size)=.* expected an integer from"):
        await service.create_shm(num_buffers, buf_size)


@pytest.mark.parametrize("num_buffers", [1 << 30, (1 << 63) - 1])
async def test_more_than_the_server_may_keep_is_refused_and_it_goes_on(service: GraphService, num_buffers: int) -> None:
    with pytest.raises(SharedMemoryLimit, match="EZMSG_SHM_MAX_BYTES") as refusal:
        await service.create_shm(num_buffers, 1 << 20)
    assert isinstance(refusal.value, SharedMemoryUnavailable)
    assert refusal.value.limit == 16 << 30
    await close(await service.create_shm(1, 4096))


async def test_the_limit_is_configured_where_the_server_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EZMSG_SHM_MAX_BYTES", "8192")
    server = GraphServer()
    server.start("127.0.0.1:0")
    service = GraphService(server.address)
    context = await service.create_shm(2, 4096)
    with pytest.raises(SharedMemoryLimit, match="8192 of at most 8192"):
        await service.create_shm(1, 17)
    await close(context)
    await close(await service.create_shm(1, 17))
    server.stop()


def test_a_limit_that_cannot_be_read_is_named_when_the_server_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EZMSG_SHM_MAX_BYTES", "much")
    with pytest.raises(ConfigError, match="EZMSG_SHM_MAX_BYTES='much'"):
        GraphServer().start("127.0.0.1:0")


async def test_memory_that_the_system_does_not_have_is_refused_and_nothing_is_left(
    service: GraphService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def posix_fallocate(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", posix_fallocate, raising=False)
        with pytest.raises(SharedMemoryUnavailable, match=r"create .* 8192 bytes: No space left"):
            await service.create_shm(2, 4096)
    if sys.platform == "linux":
        assert held_by_server() == []
    await close(await service.create_shm(2, 4096))


@pytest.mark.parametrize("name", ["", "nobody", "../../etc/passwd", "ezmsg-\0"])
async def test_an_unknown_name_is_a_value_error(service: GraphService, name: str) -> None:
    with pytest.raises(ValueError, match="no shared memory named"):
        await service.attach_shm(name)


async def test_a_name_that_is_no_text_is_a_value_error(service: GraphService) -> None:
    with pytest.raises(ValueError, match="name=5"):
        await service.attach_shm(5)  # type: ignore[arg-type] - that is the test


async def test_no_server_is_an_os_error() -> None:
    with pytest.raises(OSError, match="no GraphServer answers"):
        await GraphService("127.0.0.1:1").create_shm(1, 4096)


class _Silent:
    def on_request(self, connection: object, record: Record) -> Record:
        raise NotImplementedError

    def on_notice(self, connection: object, record: Record) -> None:
        pass

    def on_closed(self, connection: object, error: Exception | None) -> None:
        pass


async def test_the_server_checks_what_clients_ask_for_itself(server: GraphServer) -> None:
    client = await ControlClient.connect(server.address, _Silent(), name="hostile")
    with pytest.raises(ConfigError, match="num_buffers=-4"):
        await client.request(CreateShm(-4, 4096))
    with pytest.raises(RuntimeError, match="already open as CreateShm"):
        await client.request(AttachShm("x"))
    await client.close()


# -- hosts and files --------------------------------------------------------------------------------------------------


async def test_a_server_on_another_host_is_refused_with_the_reason(
    service: GraphService, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = await service.create_shm(1, 4096)
    monkeypatch.setattr("ezmsg.core.shm.boot_id", lambda: "another")
    with pytest.raises(SharedMemoryElsewhere, match=r"another host.*same host"):
        await service.create_shm(1, 4096)
    with pytest.raises(OSError, match="another host"):
        await service.attach_shm(context.name)
    await close(context)


@pytest.fixture
def _no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system where a process cannot open the descriptors of another."""
    monkeypatch.setattr("ezmsg.core.server.shm._leads_to", lambda path, segment: False)


@pytest.mark.usefixtures("_no_proc")
async def test_without_proc_the_memory_is_a_file_of_this_user_until_the_last_holder_is_gone(
    service: GraphService, start: Start, files: Files
) -> None:
    context = await service.create_shm(2, 4096)
    (file,) = files()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    worker = await start("attach", service.address, context.name)
    assert bytes(context[1][:5]) == b"hello"
    await close(context)
    assert files() == [file]
    await worker.kill()
    await until_gone(service, context.name)
    assert files() == []


@pytest.mark.usefixtures("_no_proc")
async def test_without_proc_the_file_is_gone_with_the_server(
    server: GraphServer, service: GraphService, files: Files
) -> None:
    context = await service.create_shm(1, 4096)
    server.stop()
    assert files() == []
    await close(context)


@LINUX
async def test_a_creator_that_cannot_open_descriptors_of_the_server_gets_a_file(
    service: GraphService, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat_of = os.stat

    def without_proc(path: str, **options: object) -> os.stat_result:
        # The server of this process looks in its loop, the creator in a thread.
        if str(path).startswith("/proc/") and asyncio._get_running_loop() is None:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return stat_of(path, **options)  # type: ignore[arg-type] - as given

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", without_proc)
        context = await service.create_shm(1, 4096)
    assert len(files()) == 1
    attached = await service.attach_shm(context.name)
    attached[0][0] = 3
    assert context[0][0] == 3
    await close(context, attached)
    assert files() == []


@LINUX
async def test_what_is_something_else_at_the_path_is_never_opened(
    service: GraphService, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = await service.create_shm(1, 4096)
    monkeypatch.setattr("ezmsg.core.shm._is_it", lambda status, opened: False)
    with pytest.raises(SharedMemoryElsewhere, match=r"something else here.*docker: --pid"):
        await service.attach_shm(context.name)
    assert context[0][0] == 0
    await close(context)
