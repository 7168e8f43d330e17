"""Who holds which shared memory, without a loop and without memory."""

from __future__ import annotations

import pytest

from ezmsg.core.errors import ConfigError, SharedMemoryLimit, SharedMemoryUnavailable, UnknownSharedMemory
from ezmsg.core.server.books.segments import SegmentBook, SegmentState


@pytest.fixture
def book() -> SegmentBook:
    return SegmentBook(max_segments=3, max_bytes=1000)


def test_a_segment_is_known_by_its_name(book: SegmentBook) -> None:
    created = book.create("creator", "one", 4, 100)
    assert created == SegmentState("one", 4, 100)
    assert created.size == book.size == 400
    assert book.attach("other", "one") == created


@pytest.mark.parametrize("order", [["creator", "a", "b"], ["b", "creator", "a"], ["a", "b", "creator"]])
def test_a_segment_is_gone_with_its_last_holder_in_any_order(book: SegmentBook, order: list[str]) -> None:
    book.create("creator", "one", 1, 100)
    book.attach("a", "one")
    book.attach("b", "one")
    assert [book.release(holder) for holder in order] == [None, None, "one"]
    assert len(book) == book.size == 0
    with pytest.raises(UnknownSharedMemory, match="'one'"):
        book.attach("c", "one")


def test_letting_go_twice_or_of_nothing_changes_nothing(book: SegmentBook) -> None:
    book.create("creator", "one", 1, 100)
    book.attach("a", "one")
    book.release("a")
    assert book.release("a") is None
    assert book.release("stranger") is None
    assert len(book) == 1


def test_an_unknown_name_is_a_value_error_that_names_it(book: SegmentBook) -> None:
    with pytest.raises(ValueError, match="'nobody'") as refusal:
        book.attach("a", "nobody")
    assert isinstance(refusal.value, UnknownSharedMemory)
    assert refusal.value.fields() == {"name": "nobody"}
    assert book.release("a") is None


def test_bytes_are_limited_and_the_refusal_tells_them(book: SegmentBook) -> None:
    book.create("a", "one", 6, 100)
    with pytest.raises(SharedMemoryLimit, match=r"500 bytes.*600 of at most 1000.*EZMSG_SHM_MAX_BYTES") as refusal:
        book.create("b", "two", 5, 100)
    assert isinstance(refusal.value, SharedMemoryUnavailable)
    assert (refusal.value.size, refusal.value.used, refusal.value.limit) == (500, 600, 1000)
    assert len(book) == 1
    book.create("b", "two", 4, 100)
    book.release("a")
    book.create("c", "three", 6, 100)


def test_the_number_of_segments_is_limited(book: SegmentBook) -> None:
    for name in "abc":
        book.create(name, name, 1, 17)
    with pytest.raises(SharedMemoryLimit, match="3 of at most 3 segments"):
        book.create("d", "d", 1, 17)


@pytest.mark.parametrize(
    ("num_buffers", "buf_size", "named"),
    [
        (0, 100, "num_buffers=0"),
        (-1, 100, "num_buffers=-1"),
        (1, 16, "buf_size=16"),
        (1, 1 << 63, "buf_size=9223372036854775808"),
        (True, 100, "num_buffers=True"),
        (1.0, 100, "num_buffers=1.0"),
        (1, "100", "buf_size='100'"),
        (1, None, "buf_size=None"),
    ],
)
def test_what_is_no_layout_is_refused_with_its_value(
    book: SegmentBook, num_buffers: int, buf_size: int, named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        book.create("a", "one", num_buffers, buf_size)
    assert len(book) == 0
