"""The journal of persistent edges: what a successor finds, and a disk that does not take part."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezmsg.core.graphserver import GraphServer, GraphService
from ezmsg.core.net.address import Address
from ezmsg.core.net.listener import Listener
from ezmsg.core.server import journal as journals
from ezmsg.core.server.journal import Journal, journal_path
from tests.ports import KeptPort

ADDRESS = Address("127.0.0.1", 4711)


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the journal of ADDRESS is, in a directory of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return journal_path(ADDRESS)


def successor() -> list[tuple[str, str]]:
    """What the next server finds."""
    found = Journal.open(ADDRESS)
    assert found.found
    return sorted(found.edges)


def test_a_new_journal_is_of_nobody_and_for_the_user_only(path: Path) -> None:
    journal = Journal.open(ADDRESS)
    assert not journal.found
    journal.connected("A", "B")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(path.parent) == [path.name]


EDGES = st.lists(st.tuples(st.booleans(), st.sampled_from(["A", "\n", "ä\0", ""]), st.sampled_from("XY")), max_size=30)


@given(EDGES, st.integers(0, 10), st.binary(max_size=9))
def test_a_successor_finds_the_edges_that_were_there(
    changes: list[tuple[bool, str, str]], compact_lines: int, torn: bytes
) -> None:
    journal, edges = Journal.open(ADDRESS), set[tuple[str, str]]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journals, "COMPACT_LINES", compact_lines)
        for is_there, *edge in changes:
            if is_there:
                journal.connected(*edge)
                edges.add((edge[0], edge[1]))
            else:
                journal.disconnected(*edge)
                edges.discard((edge[0], edge[1]))
    with journal_path(ADDRESS).open("ab") as file:
        file.write(b"[" + torn)  # it was lost while it wrote
    assert successor() == sorted(edges)
    assert successor() == sorted(edges)
    journal.delete()


def test_it_is_written_anew_when_it_is_long(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "COMPACT_LINES", 10)
    journal = Journal.open(ADDRESS)
    for _ in range(100):
        journal.connected("A", "B")
        journal.disconnected("A", "B")
        assert len(path.read_bytes().splitlines()) <= 11
    assert successor() == []


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xfe\0", b"{}\n", b"[true,1,2]\n", b"[" * 100_000, b"null\n" * 1000,
        b'[true,"\xff","C"]', b'[true,"B","C",' + b"[" * 100_000,
    ],
)  # fmt: skip
def test_garbage_ends_what_is_read_and_is_told(path: Path, garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    Journal.open(ADDRESS).connected("A", "B")
    with path.open("ab") as file:
        file.write(garbage + b'\n[true,"C","D"]\n')
    assert successor() == [("A", "B")]
    assert "line 2 cannot be read, nor what follows" in caplog.text
    assert path.read_bytes() == b'[true,"A","B"]\n'


def test_a_disk_that_does_not_take_it_is_told_once_and_written_anew_when_it_does(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.parent.mkdir(parents=True)
    path.parent.write_text("in the way")
    journal = Journal.open(ADDRESS)
    journal.connected("A", "B")
    journal.connected("B", "C")
    journal.disconnected("A", "B")
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1
    assert "may not survive a crash" in caplog.text
    path.parent.unlink()
    journal.connected("C", "D")
    assert successor() == [("B", "C"), ("C", "D")]


def test_what_a_full_disk_tore_is_written_anew(path: Path) -> None:
    journal = Journal.open(ADDRESS)
    journal.connected("A", "B")
    # As a full disk does it: a part of the line.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journals, "_write", lambda path, flags, entries: _full(path))
        journal.connected("B", "C")
    journal.disconnected("A", "B")
    assert successor() == [("B", "C")]


def _full(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"[tr")
    raise OSError(28, "No space left on device")


def test_a_journal_that_somebody_removed_is_there_again_with_the_next_but_one_change(path: Path) -> None:
    journal = Journal.open(ADDRESS)
    journal.connected("A", "B")
    path.unlink()
    journal.connected("B", "C")
    journal.connected("C", "D")
    assert successor() == [("A", "B"), ("B", "C"), ("C", "D")]


def test_a_deleted_journal_is_not_written_any_more_even_if_it_was_behind(path: Path) -> None:
    journal = Journal.open(ADDRESS)
    journal.connected("A", "B")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journals, "_write", lambda path, flags, entries: _full(path))
        journal.connected("B", "C")
    journal.delete()
    journal.connected("C", "D")
    assert not path.exists()


def test_a_link_in_its_place_is_replaced_and_where_it_led_left_alone(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("precious")
    path.parent.mkdir(parents=True)
    path.symlink_to(other)
    Journal.open(ADDRESS).connected("A", "B")
    assert other.read_text() == "precious"
    assert not path.is_symlink()


def test_a_user_without_a_home_has_none_and_a_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    journal = Journal.open(ADDRESS)
    journal.connected("A", "B")
    journal.delete()
    assert "will not survive a crash" in caplog.text


# -- of a server ------------------------------------------------------------------------------------------------------


@pytest.fixture
def address() -> Iterator[Address]:
    """One that nobody listens on."""
    with KeptPort() as port:
        yield port.address


def test_a_server_on_a_port_that_nobody_chose_has_none(path: Path) -> None:
    for address in (None, "127.0.0.1:0"):
        server = GraphServer()
        server.start(address)
        assert not path.parent.exists()
        server.stop()


async def test_every_orderly_end_deletes_it(address: Address) -> None:
    service = GraphService(address)
    for end in ("stop", "shutdown"):
        server = service.create_server()
        assert not server._journal.found
        await service.connect("A", "B")
        assert journal_path(address).exists()
        if end == "shutdown":
            await service.shutdown()
            server.join()
        else:
            server.stop()
        assert not journal_path(address).exists()


async def test_it_is_deleted_before_another_server_can_listen(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = GraphServer()
    server.start(address)
    existed: list[bool] = []
    close = Listener.close

    async def closing(listener: Listener) -> None:
        existed.append(journal_path(address).exists())
        await close(listener)

    monkeypatch.setattr(Listener, "close", closing)
    server.stop()
    assert existed == [False]


async def test_a_journal_with_a_cycle_is_taken_over_without_it(
    address: Address, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal.open(address)
    for edge in ("AB", "BC", "CA"):
        journal.connected(*edge)
    server = GraphServer()
    server.start(address)
    assert (await GraphService(address).dag()).edge_owners.keys() == {("A", "B"), ("B", "C")}
    server.stop()
    assert "'C' -> 'A' would close a cycle" in caplog.text


PROGRAM = """
import os, sys
from ezmsg.core.graphserver import GraphServer

server = GraphServer()
server.start(sys.argv[1])
path = server._journal._path
if os.fork() == 0:
    server.stop()
    sys.exit()  # with what was to be done at exit
os.wait()
assert path.exists() and server.is_alive()
if sys.argv[2] == "exit":
    sys.exit()
elif sys.argv[2] == "error":
    raise KeyError
else:
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("way", ["exit", "error", "kill"])
def test_a_program_that_ends_deletes_it_and_one_that_is_killed_or_only_forked_does_not(
    way: str, address: Address
) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(address), way], timeout=120, stderr=subprocess.PIPE)
    assert b"AssertionError" not in done.stderr
    assert journal_path(address).exists() == (way == "kill")
