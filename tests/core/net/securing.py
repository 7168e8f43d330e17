"""TLS, alone and around what tests of connections use."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from ezmsg.core.config import TlsFiles
from ezmsg.core.net.address import Address
from ezmsg.core.net.tls import load_credentials
from ezmsg.core.net.tlshandshake import ClientTls, ServerTls
from ezmsg.core.net.tlssocket import TlsSocket
from tests.core.net.serving import Serving

Dial = Callable[..., Awaitable[tuple[socket.socket, Any]]]
Use = Callable[[TlsFiles | None], None]


def secure(client_end: socket.socket, server_end: socket.socket, files: TlsFiles) -> tuple[TlsSocket, TlsSocket]:
    """Both ends, once they have shaken hands."""
    credentials = load_credentials(files)
    client, server = ClientTls(credentials, "localhost", "server"), ServerTls(credentials, "client")
    said = client.hello
    while not (client.done and server.done):
        heard = b""
        while said:
            said, piece = said[server.wanted :], said[: server.wanted]
            heard += server.receive(piece)
        said = client.receive(heard) if heard else b""
    return client.secured(client_end), server.secured(server_end)


async def converse(sock: socket.socket, tls: ServerTls | ClientTls) -> None:
    loop = asyncio.get_running_loop()
    while not tls.done:
        if answer := tls.receive(await loop.sock_recv(sock, tls.wanted)):
            await loop.sock_sendall(sock, answer)


@contextlib.asynccontextmanager
async def serving_with(files: TlsFiles | None, use: Use) -> AsyncIterator[Serving]:
    use(files)
    async with Serving().serve() as serving:
        yield serving


async def refused(serving: Serving) -> dict[str, int]:
    """What the server has counted, once it has."""
    async with asyncio.timeout(40):
        while not serving.listener.refused or serving.listener.unauthenticated:
            await asyncio.sleep(0.001)
    return dict(serving.listener.refused)


@contextlib.asynccontextmanager
async def accepting(talk: Callable[[socket.socket], Awaitable[None]]) -> AsyncIterator[Address]:
    """A server that talks to one peer."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)

        async def serve() -> None:
            sock, _ = await loop.sock_accept(listening)
            with sock:
                await talk(sock)

        task = asyncio.create_task(serve())
        try:
            yield Address(*listening.getsockname())
            await asyncio.wait_for(task, 40)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def between(address: Address, hear: Callable[[bytes], object]) -> AsyncIterator[Address]:
    """Passes bytes on, both ways, and hears them."""
    loop = asyncio.get_running_loop()

    async def copy(source: socket.socket, target: socket.socket) -> None:
        while data := await loop.sock_recv(source, 65536):
            hear(data)
            await loop.sock_sendall(target, data)
        target.shutdown(socket.SHUT_WR)

    async def talk(near: socket.socket) -> None:
        with socket.socket() as far:
            far.setblocking(False)
            await loop.sock_connect(far, address)
            await asyncio.gather(copy(near, far), copy(far, near))

    async with accepting(talk) as passing:
        yield passing
