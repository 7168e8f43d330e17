"""Shared memory without a name: sizes, mappings that outlive it, errors instead of signals, nothing left behind."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from ezmsg.core.errors import SharedMemoryUnavailable
from ezmsg.core.segment import Segment
from tests.core.forked import in_child

PAGE = mmap.PAGESIZE
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has it")


@pytest.fixture(params=["memfd", "file", "unreserved"])
def _kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to get memory without a name."""
    if request.param != "memfd":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    if request.param == "unreserved":

        def posix_fallocate(fd: int, offset: int, length: int) -> None:
            raise OSError(errno.EOPNOTSUPP, "not supported")

        monkeypatch.setattr(os, "posix_fallocate", posix_fallocate, raising=False)


@pytest.fixture
def segment() -> Iterator[Segment]:
    """Two pages."""
    segment = Segment.create(2 * PAGE)
    yield segment
    segment.close()


@pytest.mark.usefixtures("_kind")
def test_new_memory_is_zero_and_shared_by_all_mappings() -> None:
    segment = Segment.create(1000)
    assert segment.size == 1000
    writable, readable = segment.map(writable=True), segment.map(writable=False)
    assert bytes(readable) == bytes(1000)
    assert readable.readonly
    writable[:4] = b"abcd"
    assert bytes(readable[:4]) == b"abcd"
    assert segment.read(2, 3) == b"cd\0"
    segment.close()


@pytest.mark.usefixtures("_kind")
def test_growing_keeps_the_contents_and_the_old_mappings_and_never_shrinks() -> None:
    segment = Segment.create(0)
    segment.grow(PAGE)
    old = segment.map(writable=True)
    old[:4] = b"abcd"
    segment.grow(5 * PAGE)
    segment.grow(3)
    assert segment.size == 5 * PAGE
    new = segment.map(writable=True)
    assert bytes(new[:4]) == b"abcd"
    new[:4] = b"efgh"
    new[-1] = 1
    assert bytes(old[:4]) == b"efgh"
    assert len(segment.map(10, writable=False)) == 10
    segment.close()


@LINUX
def test_memory_is_reserved_before_it_is_written(segment: Segment) -> None:
    def blocks() -> int:
        return os.fstat(segment.fileno()).st_blocks * 512

    assert blocks() == 2 * PAGE
    segment.grow(10 * PAGE)
    assert blocks() == 10 * PAGE


def test_a_view_outlives_the_segment_and_the_lease_of_whoever_kept_it(segment: Segment) -> None:
    array = np.frombuffer(segment.map(writable=True), dtype=np.uint8)
    array[:] = 7
    segment.close()
    assert array.sum() == 7 * 2 * PAGE


def test_whoever_has_the_descriptor_has_the_memory_and_sees_it_grow(segment: Segment) -> None:
    other = Segment.of(os.dup(segment.fileno()))
    segment.map(writable=True)[0] = 9
    segment.grow(3 * PAGE)
    assert other.size == 3 * PAGE
    segment.close()
    assert other.map(writable=False)[0] == 9
    other.close()


@LINUX
def test_punching_gives_back_whole_pages_within_the_range_only(segment: Segment) -> None:
    segment.grow(4 * PAGE)
    view = segment.map(writable=True)
    view[:] = b"x" * len(view)
    segment.punch(1, PAGE)  # no whole page
    assert bytes(view) == b"x" * 4 * PAGE
    segment.punch(PAGE - 1, 2 * PAGE + 2)
    assert os.fstat(segment.fileno()).st_blocks * 512 == 2 * PAGE
    segment.reserve(PAGE, 2 * PAGE)
    assert os.fstat(segment.fileno()).st_blocks * 512 == 4 * PAGE
    assert bytes(view) == b"x" * PAGE + bytes(2 * PAGE) + b"x" * PAGE


def test_ranges_outside_are_refused_with_their_values(segment: Segment) -> None:
    with pytest.raises(ValueError, match=rf"1 bytes at {2 * PAGE} .* {2 * PAGE}"):
        segment.read(2 * PAGE, 1)
    for offset, length in ((-1, 1), (0, -1), (1, 2 * PAGE)):
        with pytest.raises(ValueError, match="not within"):
            segment.punch(offset, length)
        with pytest.raises(ValueError, match="not within"):
            segment.reserve(offset, length)
    for size in (0, -1, 2 * PAGE + 1):
        with pytest.raises(ValueError, match=f"cannot map {size} bytes"):
            segment.map(size, writable=False)


def test_closing_twice_is_fine_and_a_closed_segment_says_so() -> None:
    segment = Segment.create(8)
    assert repr(segment) == f"<Segment fd={segment.fileno()} size=8>"
    segment.close()
    segment.close()
    assert repr(segment) == "<Segment closed>"
    for use in (lambda: segment.size, lambda: segment.map(writable=True), lambda: segment.grow(9), segment.fileno):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_a_dropped_segment_closes_its_descriptor() -> None:
    segment = Segment.create(8)
    fd = segment.fileno()
    del segment
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize("size", [1 << 50, 1 << 62, 1 << 63, 1 << 80])
def test_more_than_there_is_is_an_error_with_the_size_and_a_remedy(segment: Segment, size: int) -> None:
    with pytest.raises(SharedMemoryUnavailable, match=rf"create .* {size} bytes.*(Raise|hare less)"):
        Segment.create(size)
    with pytest.raises(OSError, match="enlarge"):
        segment.grow(size)
    assert segment.size == 2 * PAGE


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match="-1 bytes"):
        Segment.create(-1)


def test_a_full_file_system_is_an_error_now_and_leaves_the_segment_as_it_was(
    segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def posix_fallocate(fd: int, offset: int, length: int) -> None:
        os.ftruncate(fd, offset + length // 2)  # as the C library does where it writes block by block
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", posix_fallocate, raising=False)
    with pytest.raises(SharedMemoryUnavailable, match=r"No space left .*shm-size") as refusal:
        segment.grow(8 * PAGE)
    assert refusal.value.errno == errno.ENOSPC
    assert refusal.value.fields() == {"action": "enlarge", "size": 8 * PAGE, "reason": "No space left on device"}
    assert segment.size == 2 * PAGE


LIMITED_FILE = """
import resource
from ezmsg.core.errors import SharedMemoryUnavailable
from ezmsg.core.segment import Segment

segment = Segment.create(1 << 20)
segment.map(writable=True)[:2] = b"ab"
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
for grow in (lambda: segment.grow(2 << 20), lambda: Segment.create(2 << 20)):
    try:
        grow()
    except SharedMemoryUnavailable as error:
        assert "File too large" in str(error) and "ulimit -f" in str(error), error
    else:
        raise AssertionError("it grew")
assert segment.size == 1 << 20
assert segment.map(writable=False)[:2] == b"ab"
"""
LIMITED_ADDRESSES = """
import resource
from pathlib import Path
from ezmsg.core.errors import SharedMemoryUnavailable
from ezmsg.core.segment import Segment

segment = Segment.create(64 << 20)
segment.map(10, writable=True)[:2] = b"ab"
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (16 << 20), resource.getrlimit(resource.RLIMIT_AS)[1]))
try:
    segment.map(writable=False)
except SharedMemoryUnavailable as error:
    assert "Cannot allocate memory" in str(error) and str(64 << 20) in str(error), error
else:
    raise AssertionError("it was mapped")
assert segment.read(0, 3) == b"ab\\0"
assert segment.map(PAGE := resource.getpagesize(), writable=False)[:2] == b"ab"
"""
LIMITED_DESCRIPTORS = """
import os, resource
from ezmsg.core.errors import SharedMemoryUnavailable
from ezmsg.core.segment import Segment

resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
segments = []
try:
    while True:
        segments.append(Segment.create(8))
except SharedMemoryUnavailable as error:
    assert "Too many open files" in str(error) and "ulimit -n" in str(error), error
"""


@LINUX
@pytest.mark.parametrize("program", [LIMITED_FILE, LIMITED_ADDRESSES, LIMITED_DESCRIPTORS], ids=["fsize", "as", "fds"])
def test_a_limit_of_the_process_is_an_error_and_what_was_there_stays_usable(program: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=120)


def test_a_forked_child_keeps_no_descriptor_but_its_mappings(segment: Segment) -> None:
    view = segment.map(writable=True)
    view[:4] = b"abcd"
    fd = segment.fileno()

    def check() -> bool:
        assert repr(segment) == "<Segment closed>"
        try:
            os.fstat(fd)
        except OSError:
            view[4] = view[0]
            return bytes(view[:5]) == b"abcda"
        return False

    assert in_child(check)
    assert bytes(view[:5]) == b"abcda"
    assert segment.size == 2 * PAGE


@LINUX
def test_memory_has_no_name_in_any_file_system(segment: Segment) -> None:
    assert os.fstat(segment.fileno()).st_nlink == 0
