"""The memory of a publisher's messages, and how readers find them there: without a server, without processes."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import mmap
import os
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from ezmsg.core.errors import ProtocolError, SharedMemoryUnavailable
from ezmsg.core.segment import Segment
from ezmsg.core.transport import Source, Undecoded, shm
from ezmsg.core.transport.shm import RETRY_S, MessageMemory, SegmentSource
from ezmsg.core.wire.messages import ALIGNMENT, MessageDecoder, Placed, encode_in_segment, placed

PAGE = mmap.PAGESIZE
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives memory back")
BYTES_CODEC = 2


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Slots:
    """A publisher's ring, its memory, and what of it a reader is to find."""

    def __init__(self, num_buffers: int, place_bytes: int = PAGE) -> None:
        self.clock = Clock()
        self.held = [0] * num_buffers
        self.memory = MessageMemory(self.held, place_bytes, self.clock)
        self.sent: dict[int, tuple[Placed, list[bytes]]] = {}
        self._count = 0

    def put(self, slot: int, *sizes: int) -> Placed | None:
        """Hold a slot with a new message, whose bytes no other has."""
        self._count += 1
        buffers = [
            bytes([self._count % 251 + 1, index]) * (size // 2) + b"e" * (size % 2) for index, size in enumerate(sizes)
        ]
        self.held[slot] = 1
        self.sent.pop(slot, None)
        at = self.memory.put(slot, [memoryview(buffer) for buffer in buffers])
        if at is not None:
            self.sent[slot] = at, buffers
        return at

    def placed(self, slot: int, *sizes: int) -> Placed:
        """As `put`, where there must be memory."""
        at = self.put(slot, *sizes)
        assert at is not None
        return at

    def release(self, *slots: int) -> None:
        for slot in slots:
            self.held[slot] = 0
            self.sent.pop(slot, None)

    def reader(self) -> SegmentSource:
        """Somebody who was handed the memory."""
        assert self.memory.segment is not None
        return SegmentSource(Segment.of(os.dup(self.memory.segment.fileno())), "T")

    def is_intact(self, source: SegmentSource) -> bool:
        """Whether a reader finds every message that was not released."""
        for at, buffers in self.sent.values():
            see(source, at)
            if [bytes(view) for view in source.buffers(at)] != buffers:
                return False
        return True

    @property
    def taken_bytes(self) -> int:
        """What the system has given for all this."""
        assert self.memory.segment is not None
        return os.fstat(self.memory.segment.fileno()).st_blocks * 512


def arrived(source: Source, at: Placed) -> Undecoded:
    """A message in shared memory as a connection reads it; its object is bytes if it has one buffer."""
    frame = encode_in_segment(1, 0.0, 0.0, BYTES_CODEC, b"", at, None)
    decoder = MessageDecoder(1 << 20)
    decoder.get_buffer()[: len(frame)] = frame
    chunk, [(_, _, _, layout, start, stop)] = decoder.messages(len(frame))
    return Undecoded(source, layout, chunk, start, stop)


def see(source: Source, at: Placed) -> Undecoded:
    message = arrived(source, at)
    source.see(message.chunk, message.start, message.stop, message.layout)
    return message


Make = Callable[..., Slots]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Slots] = []

    def make(*args: int) -> Slots:
        made.append(Slots(*args))
        return made[-1]

    yield make
    for slots in made:
        slots.memory.close()


class Shortage:
    """Refuses memory while it lasts, and counts how often somebody asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.allowed_bytes = 0
        self.asked: list[int] = []
        real = os.posix_fallocate

        def posix_fallocate(fd: int, offset: int, length: int) -> None:
            self.asked.append(length)
            if length > self.allowed_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(fd, offset, length)

        monkeypatch.setattr(os, "posix_fallocate", posix_fallocate)


# -- places -----------------------------------------------------------------------------------------------------------


def test_places_are_mapped_in_extents_of_one_one_two_and_four(make: Make) -> None:
    slots = make(8)
    at = [slots.placed(slot, PAGE) for slot in range(8)]
    assert [place.window_bytes // PAGE for place in at] == [1, 1, 2, 2, 4, 4, 4, 4]
    assert [place.window // PAGE for place in at] == [0, 1, 2, 2, 4, 4, 4, 4]
    assert [place.offset // PAGE for place in at] == list(range(8))
    assert repr(slots.memory) == f"<MessageMemory {8 * PAGE} bytes, 8 of 8 places used>"
    assert slots.is_intact(slots.reader())


def test_the_place_that_was_used_last_of_those_that_are_free_is_used_again(make: Make) -> None:
    slots = make(8)
    at = [slots.placed(slot, 100) for slot in range(4)]
    slots.release(1)
    assert slots.placed(4, 100) == at[1]
    slots.release(2)
    assert slots.placed(5, 100) == at[2]
    slots.release(0, 3, 4, 5)
    assert [slots.placed(slot, 100).offset for slot in (6, 7, 0, 1)] == [at[index].offset for index in (2, 1, 3, 0)]


def test_one_slot_needs_one_place_however_many_messages_go_through_it(make: Make) -> None:
    slots = make(1)
    assert len({slots.placed(0, PAGE - number).offset for number in range(50)}) == 1
    assert slots.memory.reallocations == 0


def test_small_messages_between_large_ones_keep_a_place_only_until_their_slot_is_released(make: Make) -> None:
    slots = make(2)
    first = slots.placed(0, PAGE)
    slots.release(0)
    slots.held[0] = 1  # a small one, which goes through the door
    assert slots.placed(1, PAGE) != first
    slots.release(0, 1)
    assert slots.placed(0, PAGE).offset in (0, PAGE)


def test_several_buffers_lie_behind_each_other_aligned(make: Make) -> None:
    slots = make(1)
    at = slots.placed(0, 100, 1, 64, 65)
    assert placed(at.sizes) == ([0, 128, 192, 256], 256 + 128)
    assert at.offset % ALIGNMENT == 0
    assert slots.is_intact(slots.reader())


@pytest.mark.parametrize("size", [1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 100 * PAGE + 1])
def test_a_message_of_any_size_finds_a_place_whatever_the_size_to_begin_with(make: Make, size: int) -> None:
    for place_bytes in (0, 1, PAGE, 3 * PAGE + 1):
        slots = make(2, place_bytes)
        at = slots.placed(0, size)
        assert at.window <= at.offset <= at.offset + size <= at.window + at.window_bytes
        # The first extent is no reallocation: nobody has mapped one yet.
        assert slots.memory.reallocations == 0
        assert slots.is_intact(slots.reader())


def test_growth_keeps_every_message_that_is_held_and_has_room_for_the_largest_twice(make: Make) -> None:
    slots = make(8)
    reader = slots.reader()
    for slot in range(4):
        slots.placed(slot, PAGE)
    grown = slots.placed(4, 3 * PAGE)
    assert grown.window_bytes == 6 * PAGE
    assert slots.memory.reallocations == 1
    assert slots.placed(5, 6 * PAGE).window_bytes == 6 * PAGE
    assert slots.memory.reallocations == 1
    assert slots.is_intact(reader)
    slots.release(0)
    assert slots.placed(0, 10).window >= grown.window, "nothing is put into a place that is outgrown"
    assert slots.is_intact(reader)


@LINUX
def test_memory_that_was_outgrown_is_given_back_as_it_is_released(make: Make) -> None:
    slots = make(8)
    for slot in range(3):
        slots.placed(slot, PAGE)
    assert slots.taken_bytes == 4 * PAGE
    slots.placed(3, 4 * PAGE)
    # One of the four was free.
    assert slots.taken_bytes == 3 * PAGE + 8 * PAGE
    slots.release(1)
    slots.release(3)
    slots.placed(4, PAGE)
    assert slots.taken_bytes == 2 * PAGE + 8 * PAGE
    slots.release(0, 2, 4)
    slots.placed(5, PAGE)
    assert slots.taken_bytes == 8 * PAGE
    assert slots.is_intact(slots.reader())


class Ring(RuleBasedStateMachine):
    """Messages of any size in any slot that is free, releases in any order; a simple model knows what must be there."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots(5)
        self.reader = self.slots.reader()

    @precondition(lambda self: 0 in self.slots.held)
    @rule(
        slot=st.integers(0, 4),
        sizes=st.lists(st.one_of(st.integers(1, PAGE + 1), st.integers(1, 9 * PAGE)), min_size=1, max_size=3),
    )
    def put(self, slot: int, sizes: list[int]) -> None:
        while self.slots.held[slot]:
            slot = (slot + 1) % 5
        self.slots.placed(slot, *sizes)

    @rule(released=st.sets(st.integers(0, 4), min_size=1))
    def release(self, released: set[int]) -> None:
        self.slots.release(*released)

    @rule()
    def small(self) -> None:
        """A message that needs no place takes a slot."""
        if 0 in self.slots.held:
            self.slots.held[self.slots.held.index(0)] = 1

    @invariant()
    def no_two_messages_overlap(self) -> None:
        ranges = sorted((at.offset, at.offset + placed(at.sizes)[1]) for at, _ in self.slots.sent.values())
        assert all(stop <= start for (_, stop), (start, _) in itertools.pairwise(ranges))

    @invariant()
    def every_message_is_intact(self) -> None:
        assert self.slots.is_intact(self.reader)
        # Also for who comes now.
        assert self.slots.is_intact(self.slots.reader())

    @invariant()
    def only_places_of_today_and_those_in_use_take_memory(self) -> None:
        memory = self.slots.memory
        current = sum(len(extent.view) for extent in memory._extents)
        outgrown = [place for place in memory._used.values() if place.extent not in memory._extents]
        if sys.platform == "linux":
            assert self.slots.taken_bytes == current + sum(place.extent.place_bytes for place in outgrown)

    def teardown(self) -> None:
        self.slots.memory.close()


def test_no_place_is_used_again_while_its_slot_is_held_whatever_the_order() -> None:
    settings = hypothesis.settings(max_examples=80, stateful_step_count=25, deadline=None)
    run_state_machine_as_test(Ring, settings=settings)


# -- no memory --------------------------------------------------------------------------------------------------------


@LINUX
def test_without_memory_messages_take_the_other_way_with_one_warning_and_later_try_again(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slots = make(8)
    shortage = Shortage(monkeypatch)
    for _ in range(3):
        assert slots.put(0, PAGE) is None
    assert len(shortage.asked) == 1, "what was refused a moment ago is not asked for again"
    slots.clock.now_s += RETRY_S
    assert slots.put(1, PAGE) is None
    assert len(shortage.asked) == 2
    slots.clock.now_s += RETRY_S
    shortage.allowed_bytes = 1 << 30
    assert slots.put(2, PAGE) is not None
    assert slots.put(3, PAGE) is not None
    assert slots.is_intact(slots.reader())
    [warning] = caplog.records
    assert warning.levelno == logging.WARNING
    assert "No space left" in warning.getMessage()
    assert "through a socket" in warning.getMessage()


@LINUX
def test_places_that_are_there_are_used_while_there_is_no_memory_for_more(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slots = make(8)
    there = {slots.placed(slot, PAGE).offset for slot in range(2)}
    Shortage(monkeypatch)
    assert slots.put(2, PAGE) is None
    slots.release(0, 1)
    assert {slots.placed(slot, PAGE).offset for slot in (3, 4)} == there
    assert slots.put(5, PAGE) is None
    assert len(caplog.records) == 1


@LINUX
def test_where_there_is_no_memory_for_a_large_extent_a_small_one_does(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = make(8)
    for slot in range(2):
        slots.placed(slot, PAGE)
    Shortage(monkeypatch).allowed_bytes = PAGE
    assert slots.placed(2, PAGE).window_bytes == PAGE
    assert slots.is_intact(slots.reader())


@LINUX
def test_a_message_that_is_too_large_for_the_memory_there_is_does_not_cost_others_their_places(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slots = make(8)
    slots.placed(0, PAGE)
    shortage = Shortage(monkeypatch)
    shortage.allowed_bytes = 4 * PAGE
    for _ in range(3):
        assert slots.put(1, 100 * PAGE) is None
        assert slots.put(2, PAGE) is not None
    assert slots.put(3, PAGE) is not None
    assert slots.memory.reallocations == 0
    assert slots.is_intact(slots.reader())
    assert len([size for size in shortage.asked if size > 4 * PAGE]) == 1, "it is not asked for with every message"
    assert len(caplog.records) == 1


# -- readers ----------------------------------------------------------------------------------------------------------


def test_a_reader_maps_each_extent_once_and_sees_what_the_publisher_sees(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = make(4)
    mapped: list[int] = []
    map_range = Segment.map_range

    def noted(self: Segment, offset: int, size: int, *, writable: bool) -> memoryview:
        mapped.append(offset)
        return map_range(self, offset, size, writable=writable)

    places = [slots.placed(slot, 10) for slot in range(4)]
    monkeypatch.setattr(Segment, "map_range", noted)
    reader = slots.reader()
    for at in places * 3:
        assert see(reader, at).decode() in [buffers[0] for _, buffers in slots.sent.values()]
    assert mapped == [0, PAGE, 2 * PAGE]
    [view] = reader.buffers(places[0])
    view[0] = 77
    assert reader.buffers(places[0])[0][0] == 77
    assert not view.readonly


def test_what_a_reader_has_mapped_outlives_both_ends(make: Make) -> None:
    slots = make(2)
    reader = slots.reader()
    message = see(reader, slots.placed(0, 3 * PAGE))
    sent = slots.sent[0][1][0]
    reader.close()
    slots.memory.close()
    assert slots.memory.segment is None
    assert message.decode() == sent
    del reader
    assert message.decode() == sent


def test_a_reader_that_cannot_map_copies_with_one_warning_also_after_its_end(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slots = make(4)
    places = [slots.placed(slot, PAGE, 5) for slot in range(4)]
    reader = slots.reader()
    calls = 0

    def refuse(self: Segment, offset: int, size: int, *, writable: bool) -> memoryview:
        nonlocal calls
        calls += 1
        raise SharedMemoryUnavailable("map", size, errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(Segment, "map_range", refuse)
    for at in places * 2:
        see(reader, at)
    assert calls == 3, "once for each extent"
    reader.close()
    slots.memory.close()
    for at, buffers in slots.sent.values():
        copies = reader.buffers(at)
        assert [bytes(copy) for copy in copies] == buffers
        assert not any(copy.readonly for copy in copies)
    [warning] = caplog.records
    assert "T are copied instead of mapped" in warning.getMessage()
    caplog.clear()  # a record holds the error, and that what was tried


BEYOND = 8 * PAGE


@pytest.mark.parametrize(
    "at",
    [
        Placed(BEYOND, PAGE, BEYOND, [10]),
        Placed(0, BEYOND + 1, 0, [10]),
        Placed(0, 1 << 63, 0, [10]),
        Placed(PAGE, (1 << 64) - 1, PAGE, [10]),
        Placed((1 << 64) - PAGE, PAGE, (1 << 64) - PAGE, [10]),
        Placed(1, PAGE, 1, [10]),
        Placed(0, 0, 0, []),
        Placed(0, PAGE, PAGE, [1]),
        Placed(0, PAGE, PAGE - 64, [65]),
        Placed(0, PAGE, 0, [PAGE - 1, 1]),
        Placed(PAGE, PAGE, 0, [1]),
        Placed(0, PAGE, 0, [(1 << 64) - 1]),
        Placed(0, PAGE, 0, [1 << 63, 1 << 63]),
    ],
    ids=repr,
)
def test_a_message_that_claims_to_be_where_no_memory_is_breaks_the_protocol(make: Make, at: Placed) -> None:
    slots = make(4)
    good = slots.placed(0, PAGE)
    for slot in (1, 2, 3):
        slots.placed(slot, PAGE)
    reader = slots.reader()
    with pytest.raises(ProtocolError):
        see(reader, at)
    see(reader, good)
    assert slots.is_intact(reader)


def test_a_message_in_memory_that_a_connection_does_not_have_breaks_the_protocol() -> None:
    source = Source()
    at = Placed(0, PAGE, 0, [10])
    with pytest.raises(ProtocolError, match="of which this connection has none"):
        see(source, at)
    with pytest.raises(ProtocolError, match="no shared memory"):
        arrived(source, at).decode()


NUMBERS = st.one_of(
    st.integers(0, 4).map(lambda pages: pages * PAGE), st.integers(0, 5 * PAGE), st.integers(0, (1 << 64) - 1)
)


@hypothesis.given(window=NUMBERS, window_bytes=NUMBERS, offset=NUMBERS, sizes=st.lists(NUMBERS, max_size=3))
def test_whatever_a_message_claims_it_is_read_or_refused(
    window: int, window_bytes: int, offset: int, sizes: list[int]
) -> None:
    segment = Segment.create(4 * PAGE)
    source = SegmentSource(segment, "T")
    at = Placed(window, window_bytes, offset, sizes)
    try:
        see(source, at)
    except ProtocolError:
        pass
    else:
        assert [len(buffer) for buffer in source.buffers(at)] == sizes
    segment.close()


# -- handing it over --------------------------------------------------------------------------------------------------


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The publisher's end of a door, and the channel's."""
    publisher, channel = socket.socketpair(socket.AF_UNIX)
    channel.setblocking(False)
    yield publisher, channel
    publisher.close()
    channel.close()


class Door:
    """A publisher that nobody opens a channel at."""

    publisher_id, topic, num_buffers = "id", "T", 4


async def test_a_channel_gets_the_memory_of_its_publisher_and_no_other_descriptor(
    make: Make, ends: tuple[socket.socket, socket.socket]
) -> None:
    slots = make(2)
    at = slots.placed(0, PAGE)
    door: Any = Door()
    outlet = await shm.welcome(door, ends[0], "peer", slots.memory.segment)
    outlet.stream_ended(None)
    assert outlet.reads_segment
    segment = await shm._receive_segment(ends[1])
    assert segment is not None
    assert not os.get_inheritable(segment.fileno())
    reader = SegmentSource(segment, "T")
    see(reader, at)
    assert slots.is_intact(reader)


async def test_a_publisher_without_memory_says_so(ends: tuple[socket.socket, socket.socket]) -> None:
    door: Any = Door()
    outlet = await shm.welcome(door, ends[0], "peer", None)
    outlet.stream_ended(None)
    assert not outlet.reads_segment
    assert await shm._receive_segment(ends[1]) is None


@pytest.mark.parametrize("said", [b"", b"x", b"S", b"Sx"])
async def test_a_door_that_says_something_else_is_refused(
    ends: tuple[socket.socket, socket.socket], said: bytes
) -> None:
    ends[0].sendall(said)
    if not said:
        ends[0].shutdown(socket.SHUT_WR)
    with pytest.raises(ProtocolError, match="at its door"):
        await asyncio.wait_for(shm._receive_segment(ends[1]), 40)


@pytest.mark.parametrize("said", [b"x", b"-", b"S"])
async def test_descriptors_that_nobody_asked_for_are_closed(
    ends: tuple[socket.socket, socket.socket], said: bytes
) -> None:
    with open(os.devnull, "rb") as file:
        socket.send_fds(ends[0], [said], [file.fileno()] * 3)
    before = set(os.listdir("/proc/self/fd")) if sys.platform == "linux" else set()
    try:
        segment = await asyncio.wait_for(shm._receive_segment(ends[1]), 40)
    except ProtocolError:
        segment = None
    if segment is not None:
        segment.close()
    if before:
        assert set(os.listdir("/proc/self/fd")) == before
