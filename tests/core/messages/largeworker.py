"""Processes that send and hold large messages, for tests that kill them: `python largeworker.py ADDRESS`.

This one only forks: for each line `ROLE TOPIC [OPTION ...]` on its standard input a child, which is ready in
milliseconds and dies alone. A child prints its lines behind its pid, and takes commands from a FIFO if it has one.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import numpy as np

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.subclient import Subscriber

SIZES = (100, 5_000, 70_000, 300_000, 1_500_000)


class Options:
    """What a child is told beside its role: `name=value`, or a name alone."""

    def __init__(self, words: list[str]) -> None:
        self._values = {name: value for name, _, value in (word.partition("=") for word in words)}

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def number(self, name: str, default: int) -> int:
        return int(self._values.get(name, default))

    def text(self, name: str) -> str:
        return self._values[name]


def say(*words: object) -> None:
    """One line to whoever started this; one write, so that lines of several children stay whole."""
    os.write(1, " ".join(map(str, (os.getpid(), *words, "\n"))).encode())


def message(number: int, size: int) -> np.ndarray:
    """A numbered message of about so many bytes."""
    return np.full(max(1, size // 8), number)


def number_of(array: np.ndarray) -> int:
    """The number of a message, all of which must be of that message."""
    assert (array == array[0]).all(), "the message is torn"
    return int(array[0])


def kind_of(subscriber: Subscriber) -> str:
    [subscription] = subscriber._subscriptions.values()
    return subscription.channel.kind.value


def limit_addresses(more_bytes: int) -> None:
    """Leave this process so much address space."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))


def limit_files(nbytes: int) -> None:
    """Let no file of this process, and no memory that it shares, become larger: as on a full file system."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def publisher_options(options: Options) -> dict[str, Any]:
    return {"force_tcp": "tcp" in options, "num_buffers": options.number("num_buffers", 8)}


async def publish(context: GraphContext, topic: str, options: Options) -> None:
    """Publish numbered messages of changing sizes as fast as the subscribers take them."""
    publisher = await context.publisher(topic, **publisher_options(options))
    if "forks" in options:
        fork_and_live_on(options)
    say("ready")
    number = 0
    while True:
        await publisher.broadcast(message(number, SIZES[number % len(SIZES)]))
        number += 1


async def subscribe(context: GraphContext, topic: str, options: Options) -> None:
    """Take messages; say so after the first, then no more."""
    subscriber = await context.subscriber(topic)
    say("ready")
    last = -1
    while True:
        async with subscriber.recv_zero_copy() as array:
            number = number_of(array)
            assert last < 0 or number == last + 1
            if last < 0:
                if "forks" in options:
                    fork_and_live_on(options)
                say("received")
            last = number


async def hold(context: GraphContext, topic: str, options: Options) -> None:
    """Hold messages at once; the commands are `take COUNT`, `check`, `release`, `drain COUNT`, `keep`, `kind`."""
    subscriber = await context.subscriber(topic)
    say("ready")
    held: list[tuple[Any, np.ndarray, int]] = []
    kept: list[np.ndarray] = []
    with open(options.text("commands")) as commands:
        while line := await asyncio.to_thread(commands.readline):
            word, *counts = line.split()
            if word == "take":
                for _ in range(int(counts[0])):
                    lease = subscriber.recv_zero_copy()
                    array = await lease.__aenter__()
                    held.append((lease, array, number_of(array)))
            elif word == "check":
                for _, array, number in held:
                    assert number_of(array) == number, f"{number} became {array[0]}"
            elif word == "keep":
                kept += [array for _, array, _ in held]
            elif word == "release":
                for lease, _, _ in held:
                    await lease.__aexit__(None, None, None)
                held.clear()
            elif word == "drain":
                for _ in range(int(counts[0])):
                    async with subscriber.recv_zero_copy() as array:
                        number_of(array)
            elif word == "limit":
                limit_addresses(int(counts[0]))
            say(word, kind_of(subscriber) if word == "kind" else "done")
    assert all(array.sum() is not None for array in kept)


async def burst(context: GraphContext, topic: str, options: Options) -> None:
    """Send some messages, then do nothing at all until the commands say that the first of them arrived."""
    publisher = await context.publisher(topic, **publisher_options(options))
    say("ready")
    with open(options.text("commands")) as commands:
        while count := (await asyncio.to_thread(commands.readline)).strip():
            for number in range(int(count)):
                await publisher.broadcast(message(number, options.number("size", 100)))
            # The loop stands still: nothing else of this process can send anything now.
            say("told", commands.readline().strip())


async def short(context: GraphContext, topic: str, options: Options) -> None:
    """Send small messages, then large ones for which there is no memory, then small ones again."""
    size = options.number("size", 2 << 20)
    publisher = await context.publisher(topic, **publisher_options(options))
    sizes = [5_000, 5_000, *([size] * 6), 5_000, 100]
    messages = [message(number, size) for number, size in enumerate(sizes)]
    say("ready")
    with open(options.text("commands")) as commands:
        await asyncio.to_thread(commands.readline)
        await publisher.broadcast(messages[0])
        if "fsize" in options:
            limit_files(options.number("fsize", 0))
        else:
            limit_addresses(options.number("addresses", 0))
        for array in messages[1:]:
            await publisher.broadcast(array)
        say("sent", len(messages))
        await asyncio.to_thread(commands.readline)


def fork_and_live_on(options: Options) -> None:
    """Fork a child that does not end with this process."""
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
    say("child", child)


Role = Callable[[GraphContext, str, Options], Awaitable[None]]
ROLES: dict[str, Role] = {
    "publish": publish, "subscribe": subscribe, "hold": hold, "burst": burst, "short": short,
}  # fmt: skip


async def be(role: str, address: str, topic: str, options: Options) -> None:
    async with GraphContext(address) as context:
        await ROLES[role](context, topic, options)


def child(address: str, role: str, topic: str, *words: str) -> NoReturn:
    options = Options(list(words))
    code = 1
    try:
        if "elsewhere" in options:
            # As on another host: no way but TCP.
            with mock.patch("ezmsg.core.channelmanager.boot_id", return_value="another"):
                asyncio.run(be(role, address, topic, options))
        else:
            asyncio.run(be(role, address, topic, options))
        code = 0
    except BaseException as error:
        say("failed", repr(error))
        raise
    finally:
        if code:
            os._exit(code)
    say("ended")
    sys.exit(0)


def main(address: str) -> None:
    """Fork children until standard input ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while line := sys.stdin.readline():
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            child(address, *line.split())


if __name__ == "__main__":
    main(sys.argv[1])
