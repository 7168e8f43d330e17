"""Addresses as text, and what they reach."""

import socket
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezmsg.core.net import address as module
from ezmsg.core.net.address import Address, boot_id, is_loopback, needs_lookup, resolve_now, this_process, tune_tcp


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:25978", Address("127.0.0.1", 25978)),
        ("localhost:0", Address("localhost", 0)),
        (" host.example:65535 ", Address("host.example", 65535)),
        ("[::1]:80", Address("::1", 80)),
    ],
)
def test_an_address_is_read(text: str, address: Address) -> None:
    assert Address.from_string(text) == address
    assert str(address) == text.strip()


@pytest.mark.parametrize(
    "text",
    ["", ":", "host", "host:", ":80", "host:port", "host:65536", "host:-1", "host:8 0", "::1:80", "host:²", "[]:80"],
)
def test_what_is_no_address_is_refused_with_what_is_expected(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be used: expected host:port") as error:
        Address.from_string(text)
    assert repr(text) in str(error.value)


@given(st.text(), st.integers(0, 65535))
def test_reading_never_fails_otherwise(host: str, port: int) -> None:
    try:
        address = Address.from_string(f"{host}:{port}")
    except ValueError:
        return
    assert Address.from_string(str(address)) == address


def test_an_address_is_a_pair() -> None:
    host, port = Address("h", 1)
    assert (host, port) == ("h", 1)
    assert Address("h", 1) == ("h", 1)


def test_it_binds_a_socket_that_can_be_bound_again_at_once() -> None:
    with Address("127.0.0.1", 0).bind_socket() as sock:
        assert sock.getsockname()[1] > 0
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)


@pytest.mark.parametrize("host", ["a..b", "x" * 64, ".", "\ud800", "a\0b"])
def test_a_host_that_cannot_be_a_name_is_one_that_nobody_knows(host: str) -> None:
    with pytest.raises(OSError):
        resolve_now(Address(host, 1))
    assert not is_loopback(host)


def test_localhost_is_tried_by_ipv4_first_and_without_asking_the_network() -> None:
    assert resolve_now(Address("localhost", 1))[0].sockaddr == ("127.0.0.1", 1)
    assert not needs_lookup("localhost")
    assert not needs_lookup("::1")
    assert needs_lookup("host.example")


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.0.2.1", False),
        ("no-such-host.invalid", False),
    ],
)
@pytest.mark.usefixtures("no_such_host")
def test_loopback_is_told_from_the_rest_of_the_world(host: str, is_ours: bool) -> None:
    assert is_loopback(host) is is_ours


def test_the_boot_id_is_one_of_this_boot(monkeypatch) -> None:
    assert boot_id() == boot_id()
    assert uuid.UUID(boot_id())
    assert this_process().boot_id == boot_id()


def test_without_the_file_of_linux_there_is_a_boot_id_all_the_same(monkeypatch) -> None:
    monkeypatch.setattr(module, "BOOT_ID_FILE", "/nonexistent")
    other = boot_id.__wrapped__()
    assert uuid.UUID(other)
    assert other != boot_id()


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="this system cannot set when it asks")
def test_a_silent_host_is_asked_three_times_before_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EZMSG_PEER_TIMEOUT_S", "12")
    with socket.socket() as sock:
        tune_tcp(sock)
        asked = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT]
        assert [sock.getsockopt(socket.IPPROTO_TCP, option) for option in asked] == [6, 2, 3]
