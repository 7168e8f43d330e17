"""Peers that do everything wrong, for tests beside a server that must not mind."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

from ezmsg.core.errors import ConnectionFailed
from ezmsg.core.net.address import Address, resolve_now, this_process
from ezmsg.core.net.authkey import AuthKey, load_key
from ezmsg.core.net.dial import connect
from ezmsg.core.net.door import door_path
from ezmsg.core.wire.frames import HEADER
from ezmsg.core.wire.handshake import ClientHandshake

PATIENCE_S = 40.0
WRONG_KEY = AuthKey(b"w" * 32, explicit=True)


async def attack(address: Address | str, kind: str, key: AuthKey | None = None) -> bytes:
    """Do one thing wrong, wait until the server has hung up, and return what it said.

    Args:
        address: A TCP address or a door.
        kind: One of `KINDS`.
        key: The key of the server, for attacks of those that hold it; what `load_key` finds when None.
    """
    return await KINDS[kind](address, key or load_key())


async def wrong_key(address: Address | str, key: AuthKey) -> bytes:
    """A client with another key, that behaves."""
    with contextlib.suppress(ConnectionFailed):
        sock, _ = await connect(address, WRONG_KEY, PATIENCE_S)
        sock.close()
        raise AssertionError("a stranger was let in")
    return b""


async def wrong_proof(address: Address | str, key: AuthKey) -> bytes:
    """A client with another key, that goes on although the server cannot be the right one."""
    hello = ClientHandshake(WRONG_KEY.secret, this_process()).hello

    async def talk(sock: socket.socket) -> None:
        await send(sock, hello + b"\0" + b"p" * 32)

    return await on_raw_socket(address, talk)


async def wrong_version(address: Address | str, key: AuthKey) -> bytes:
    """A client of another release."""
    hello = bytearray(ClientHandshake(key.secret, this_process()).hello)
    hello[8:10] = b"\xff\xff"

    async def talk(sock: socket.socket) -> None:
        await send(sock, bytes(hello))

    return await on_raw_socket(address, talk)


async def garbage(address: Address | str, key: AuthKey) -> bytes:
    """Something that is not of this protocol."""

    async def talk(sock: socket.socket) -> None:
        await send(sock, b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n" * 1000)

    return await on_raw_socket(address, talk)


async def silent(address: Address | str, key: AuthKey) -> bytes:
    """A client that says nothing; ends when the server's patience does."""

    async def talk(sock: socket.socket) -> None:
        pass

    return await on_raw_socket(address, talk)


async def hangup_in_handshake(address: Address | str, key: AuthKey) -> bytes:
    """A client that goes away in the middle of its hello."""

    async def talk(sock: socket.socket) -> None:
        await send(sock, ClientHandshake(key.secret, this_process()).hello[:50])
        sock.shutdown(socket.SHUT_WR)

    return await on_raw_socket(address, talk)


async def oversize_frame(address: Address | str, key: AuthKey) -> bytes:
    """A peer that holds the key, and announces more than anybody may send."""

    async def talk(sock: socket.socket) -> None:
        await send(sock, HEADER.pack(1 << 62, 30, 2, 1) + b"x" * 1000)

    return await on_open_connection(address, key, talk)


async def hangup_mid_frame(address: Address | str, key: AuthKey) -> bytes:
    """A peer that holds the key, and goes away in the middle of a frame."""

    async def talk(sock: socket.socket) -> None:
        await send(sock, HEADER.pack(1000, 30, 2, 1) + b"x" * 500)
        sock.shutdown(socket.SHUT_WR)

    return await on_open_connection(address, key, talk)


async def garbage_frame(address: Address | str, key: AuthKey) -> bytes:
    """A peer that holds the key, and sends a request nobody can read."""

    async def talk(sock: socket.socket) -> None:
        await send(sock, HEADER.pack(5, 30, 2, 1) + b"\xc1\xc1\xc1\xc1\xc1")

    return await on_open_connection(address, key, talk)


KINDS: dict[str, Callable[[Address | str, AuthKey], Awaitable[bytes]]] = {
    function.__name__: function
    for function in (
        wrong_key,
        wrong_proof,
        wrong_version,
        garbage,
        silent,
        hangup_in_handshake,
        oversize_frame,
        hangup_mid_frame,
        garbage_frame,
    )
}
# Those that take no patience of the server.
QUICK_KINDS = tuple(kind for kind in KINDS if kind != "silent")
# Those that need the key.
INSIDER_KINDS = ("oversize_frame", "hangup_mid_frame", "garbage_frame")


async def on_raw_socket(address: Address | str, talk: Callable[[socket.socket], Awaitable[None]]) -> bytes:
    """Connect without a handshake, talk, and read to the end."""
    loop = asyncio.get_running_loop()
    if isinstance(address, str):
        family, target = socket.AF_UNIX, door_path(address)
    else:
        family, target = resolve_now(address)[0]
    with socket.socket(family) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, target)
        await talk(sock)
        return await read_to_end(sock)


async def on_open_connection(
    address: Address | str, key: AuthKey, talk: Callable[[socket.socket], Awaitable[None]]
) -> bytes:
    """Connect with the handshake, talk, and read to the end."""
    sock: socket.socket | None = None
    while sock is None:
        # On a busy machine our answer may come when the server's patience is over, which is not what is to go wrong.
        with contextlib.suppress(ConnectionFailed):
            sock, _ = await connect(address, key, PATIENCE_S)
    with sock:
        await talk(sock)
        return await read_to_end(sock)


async def send(sock: socket.socket, data: bytes) -> None:
    """Send; the server may have hung up already."""
    with contextlib.suppress(ConnectionError):
        await asyncio.get_running_loop().sock_sendall(sock, data)


async def read_to_end(sock: socket.socket) -> bytes:
    """Everything until the peer hangs up, however it does."""
    loop = asyncio.get_running_loop()
    said = b""
    with contextlib.suppress(ConnectionError):
        while data := await loop.sock_recv(sock, 65536):
            said += data
    return said
