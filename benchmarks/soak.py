"""Let many processes work for minutes, kill some of them all the time, and see that nothing is lost and nothing grows.

    make soak                    # 20 processes, 200 topics, 5 minutes; SOAK_SECONDS=60 is shorter

Twelve processes stay: each publishes on topics that another one receives, numbered, and meanwhile opens and closes
sessions. Eight are killed and replaced, one every second or so. Three more read events, slowly. Wanted: no message is
lost or repeated on the edges between those that stay; the resident memory of the server and of those that stay does not
grow; once nothing comes and goes any more they have as many descriptors and threads as before anything did; and nothing
is left at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import psutil

WORKER = Path(__file__).with_name("soakworker.py")
SHARED_MEMORY = Path("/dev/shm")
START_TIMEOUT_S = 180.0
END_TIMEOUT_S = 30.0
SAMPLE_S = 1.0
WARM_UP = 0.3
WARM_UP_REPLACED = 80
"""Share of the time, and number of processes that come and go, until when memory may grow: allocators, histories and
what the server remembers of processes that ended fill up."""
JUDGED_S = 60.0
"""Less time than that, after warming up, says nothing about growth."""
MOST_RSS_KIB = 4096.0
"""What may be added from the end of the warm-up to the end, by the slope of all samples between."""
MOST_MORE = 2
"""Descriptors, and threads, that a process may have more at rest than it had at rest before."""
REST_S, REST_SAMPLES = 60.0, 5
"""At rest is who has as many of them in so many samples in a row; after so long whoever has not is taken as it is."""
READERS = (("topology", 0.05), ("settings", 1.0), ("topology", 1e9))
"""Kind, and seconds between two events. The last one reads one event, and stands still."""
ENVIRONMENT = {
    "EZMSG_LOGLEVEL": "ERROR",
    "EZMSG_DISABLE_BACKPRESSURE_WARNING": "1",
    # Full within the warm-up.
    "EZMSG_TOPOLOGY_EVENT_HISTORY_LIMIT": "500",
    "EZMSG_SETTINGS_EVENT_HISTORY_LIMIT": "500",
    "EZMSG_PROFILE_TRACE_BUFFER_LIMIT": "2000",
}

Rest = dict[str, int]
"""Descriptors and threads of a process."""


@dataclass
class Watched:
    """A process that stays, and what it used from second to second."""

    name: str
    process: psutil.Process
    times_s: list[float] = field(default_factory=list)
    rss_kib: list[float] = field(default_factory=list)
    descriptors: list[float] = field(default_factory=list)
    threads: list[float] = field(default_factory=list)

    def sample(self, now_s: float) -> None:
        with contextlib.suppress(psutil.Error):
            with self.process.oneshot():
                rss, descriptors, threads = (
                    self.process.memory_info().rss / 1024,
                    self.process.num_fds(),
                    self.process.num_threads(),
                )
            self.times_s.append(now_s)
            self.rss_kib.append(rss)
            self.descriptors.append(descriptors)
            self.threads.append(threads)

    def after(self, start_s: float, what: str) -> tuple[list[float], list[float]]:
        """Times and samples from this moment on."""
        first = next((index for index, time_s in enumerate(self.times_s) if time_s >= start_s), len(self.times_s))
        return self.times_s[first:], getattr(self, what)[first:]


def slope(times_s: Sequence[float], values: Sequence[float]) -> float:
    """Of the straight line that fits best, per second; 0 for fewer than two samples."""
    if len(times_s) < 2:
        return 0.0
    middle_s, middle = mean(times_s), mean(values)
    spread = sum((time_s - middle_s) ** 2 for time_s in times_s)
    return sum((t - middle_s) * (v - middle) for t, v in zip(times_s, values, strict=True)) / spread if spread else 0.0


class Worker:
    """A process of the soak."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self.process, self.name = process, name

    @classmethod
    async def start(cls, name: str, *arguments: object) -> Worker:
        pipe = asyncio.subprocess.PIPE
        command = [sys.executable, str(WORKER), *map(str, arguments)]
        return cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=1 << 20), name)

    async def hear(self, timeout_s: float = START_TIMEOUT_S) -> Any:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), timeout_s)
        if not line:
            raise RuntimeError(f"{self.name} ended with exit code {await self.process.wait()}")
        return json.loads(line)

    def tell(self, what: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n".encode())

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def end(self) -> int:
        """Tell it to end; the exit code, or -9 when it had to be killed."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            return await asyncio.wait_for(self.process.wait(), END_TIMEOUT_S)
        except TimeoutError:
            await self.kill()
            return -9


class Soak:
    """All processes, and what is wrong with them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._is_over = False
        self.watched: list[Watched] = []
        self.kills = self.ends = self.pings = 0
        self.problems: list[str] = []
        self.results: list[dict[str, Any]] = []
        self.readers: list[dict[str, Any]] = []
        self.rest_before: dict[str, Rest] = {}
        self.rest_after: dict[str, Rest] = {}
        self.start_s = time.monotonic()
        self.warm_s = WARM_UP * options.seconds

    def watch(self, worker: Worker) -> Worker:
        self.watched.append(Watched(worker.name, psutil.Process(worker.process.pid)))
        return worker

    async def sample(self) -> None:
        while not self._is_over:
            now_s = time.monotonic() - self.start_s
            for watched in self.watched:
                watched.sample(now_s)
            await asyncio.sleep(SAMPLE_S)

    async def replace(self, number: int, where: list[object]) -> None:
        """A process that is killed, or ends, and is replaced, again and again."""
        worker = None
        try:
            while not self._is_over:
                worker = await Worker.start(f"churning {number}", "churning", *where, "--number", number)
                await worker.hear()
                # The last one is waited for.
                await asyncio.sleep(random.uniform(1.0, min(8.0, 1.0 + self._options.seconds)))
                if random.random() < 0.8:
                    await worker.kill()
                    self.kills += 1
                else:
                    if code := await worker.end():
                        self.problems.append(f"{worker.name} ended with exit code {code}")
                    self.ends += 1
                if self.kills + self.ends == WARM_UP_REPLACED:
                    self.warm_s = max(self.warm_s, time.monotonic() - self.start_s)
        except Exception as error:
            self.problems.append(f"churning {number}: {error!r}")
        finally:
            if worker is not None:
                await worker.kill()

    async def ping(self, address: list[Any]) -> None:
        """Ask those that stay, all along, from here."""
        from ezmsg.core.graphcontext import GraphContext

        async with GraphContext(tuple(address)) as context:
            while not self._is_over:
                for number in range(self._options.stable):
                    try:
                        await context.process_ping(f"STABLE{number}", timeout=10.0)
                        self.pings += 1
                    except RuntimeError as error:
                        self.problems.append(f"ping of {number}: {error}")
                await asyncio.sleep(0.5)

    @contextlib.asynccontextmanager
    async def server(self) -> AsyncIterator[tuple[Worker, list[Any]]]:
        worker = self.watch(await Worker.start("server", "serve"))
        try:
            yield worker, await worker.hear()
            if code := await worker.end():
                self.problems.append(f"the server ended with exit code {code}")
        finally:
            await worker.kill()

    async def run(self) -> None:
        async with self.server() as (server, address):
            idle = psutil.Process(server.process.pid)
            before = (idle.num_fds(), idle.num_threads())
            where: list[object] = ["--host", address[0], "--port", address[1]]
            workers: list[Worker] = []
            try:
                await self.work(workers, where, address)
            finally:
                for worker in workers:
                    await worker.kill()
            after = await self.settled(idle, before)
            if after != before:
                self.problems.append(
                    f"the server has (descriptors, threads) {after}, and had {before} in the beginning"
                )

    async def settled(self, process: psutil.Process, wanted: tuple[int, int]) -> tuple[int, int]:
        """Descriptors and threads, as soon as they are as wanted, or after a while."""
        found = (0, 0)
        for _ in range(50):
            found = (process.num_fds(), process.num_threads())
            if found == wanted:
                break
            await asyncio.sleep(0.1)
        return found

    async def work(self, workers: list[Worker], where: list[object], address: list[Any]) -> None:
        options = self._options
        shared = ["--stable", options.stable, "--topics", options.topics]
        if options.age is not None:
            shared += ["--age", options.age]
        stable = [
            await Worker.start(f"stable {number}", "stable", *where, *shared, "--number", number)
            for number in range(options.stable)
        ]
        workers += stable
        for worker in stable:
            await worker.hear()
            self.watch(worker)
        readers: list[Worker] = []
        for kind, pause_s in READERS:
            name = f"reader of {kind}, every {pause_s:g} s" if pause_s < 1e6 else f"reader of {kind} that stands still"
            readers.append(await Worker.start(name, "reader", *where, "--kind", kind, "--pause", pause_s))
        workers += readers
        for worker in readers:
            await worker.hear()
            self.watch(worker)
        for worker in stable:
            worker.tell("go")
        self.rest_before = await self.at_rest()
        for worker in stable:
            worker.tell("churn")
        self.start_s = time.monotonic()
        meanwhile = [asyncio.create_task(self.sample()), asyncio.create_task(self.ping(address))]
        meanwhile += [asyncio.create_task(self.replace(number, where)) for number in range(options.churning)]
        await asyncio.sleep(options.seconds)
        self._is_over = True
        await asyncio.gather(*meanwhile)
        for worker in stable:
            worker.tell("quiet")
        for worker in stable:
            await worker.hear()
        self.rest_after = await self.at_rest(self.rest_before)
        await self.count(stable, readers)

    async def at_rest(self, before: dict[str, Rest] | None = None) -> dict[str, Rest]:
        """Descriptors and threads of each process that stays, once they are those of `before`, or do not change."""
        seen: dict[str, Rest] = {}
        same = 0
        end_s = time.monotonic() + REST_S
        while same < REST_SAMPLES and time.monotonic() < end_s:
            await asyncio.sleep(SAMPLE_S)
            now = {
                one.name: {"descriptors": one.process.num_fds(), "threads": one.process.num_threads()}
                for one in self.watched
            }
            same = same + 1 if now == seen else 0
            seen = now
            if before is not None and not more(before, now):
                break
        return seen

    async def count(self, stable: list[Worker], readers: list[Worker]) -> None:
        """Let those that stay say what they sent, then what they received, and end."""
        for worker in stable:
            worker.tell("stop")
        published: dict[str, int] = {}
        for worker in stable:
            published |= await worker.hear()
        for worker in stable:
            worker.tell(json.dumps(published))
        for worker in stable:
            self.results.append(await worker.hear())
        for worker in readers:
            worker.tell("stop")
            self.readers.append({"name": worker.name} | await worker.hear())
        for worker in stable:
            await worker.hear()
        for worker in [*stable, *readers]:
            if code := await worker.end():
                self.problems.append(f"{worker.name} ended with exit code {code}")


def more(before: dict[str, Rest], after: dict[str, Rest]) -> list[str]:
    """What processes have more of than they may, at rest."""
    return [
        f"{name}: {after[name][what]} {what} at rest, and {count} before anything came and went"
        for name, rest in before.items()
        for what, count in rest.items()
        if name in after and after[name][what] > count + MOST_MORE
    ]


def verdict(soak: Soak, seconds: float) -> list[str]:
    """What is not as wanted."""
    problems = list(soak.problems)
    for number, result in enumerate(soak.results):
        problems += [f"stable {number}: {failure}" for failure in result["failures"]]
        problems += [
            f"stable {number}: {result[what]} messages {what}" for what in ("lost", "repeated") if result[what]
        ]
    for reader in soak.readers:
        problems += [f"{reader['name']}: {failure}" for failure in reader["failures"]]
        if reader["wrong"]:
            problems.append(f"{reader['name']}: {reader['wrong']} gaps that it was not told of")
    problems += more(soak.rest_before, soak.rest_after)
    if (judged_s := judged(soak, seconds)) < JUDGED_S:
        return problems
    for watched in soak.watched:
        growth = slope(*watched.after(soak.warm_s, "rss_kib")) * judged_s
        if growth > MOST_RSS_KIB:
            problems.append(f"{watched.name}: resident memory grows by {growth:,.0f} KiB in {judged_s:.0f} s")
    return problems


def judged(soak: Soak, seconds: float) -> float:
    """For how long growth was looked at."""
    return seconds - soak.warm_s if soak.kills + soak.ends >= WARM_UP_REPLACED else 0.0


def table(watched: Iterable[Watched], warm_s: float) -> str:
    """Text for people."""
    lines = [
        f"{'process':<38}{'RSS MiB':>9}{'at end':>9}{'KiB/min':>9}{'fds':>6}{'at end':>8}{'threads':>9}{'at end':>8}"
    ]
    for one in watched:
        times_s, rss = one.after(warm_s, "rss_kib")
        _, descriptors = one.after(warm_s, "descriptors")
        _, threads = one.after(warm_s, "threads")
        if not rss:
            lines.append(f"{one.name:<38}  not sampled")
            continue
        lines.append(
            f"{one.name:<38}{rss[0] / 1024:>9.1f}{rss[-1] / 1024:>9.1f}{slope(times_s, rss) * 60:>9.1f}"
            f"{descriptors[0]:>6.0f}{descriptors[-1]:>8.0f}{threads[0]:>9.0f}{threads[-1]:>8.0f}"
        )
    return "".join(line + "\n" for line in lines)


def shared_memory() -> set[str]:
    return set(os.listdir(SHARED_MEMORY)) if SHARED_MEMORY.exists() else set()


def report(soak: Soak, options: argparse.Namespace) -> None:
    print(table(soak.watched, soak.warm_s))
    received = sum(result["received"] for result in soak.results)
    sessions = sum(result["sessions"] for result in soak.results)
    print(f"{received:,} messages on {options.topics} stable edges, {sessions:,} sessions opened and closed,")
    print(f"{soak.kills} processes killed and {soak.ends} ended in order, {soak.pings:,} pings answered")
    for reader in soak.readers:
        print(f"{reader['name']}: {reader['read']:,} events, told of {reader['missed']:,} that it missed")
    judged_s = judged(soak, options.seconds)
    print(f"growth was judged for {judged_s:.0f} s" if judged_s >= JUDGED_S else "too short to judge growth")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("SOAK_SECONDS") or 300))
    parser.add_argument("--stable", type=int, default=12, help="processes that stay")
    parser.add_argument("--churning", type=int, default=8, help="processes that are killed and replaced")
    parser.add_argument("--topics", type=int, default=200, help="stable edges, each with two topics")
    parser.add_argument("--age", type=int, help="endpoints that come and go before it begins")
    return parser.parse_args(arguments)


def main() -> int:
    options = parse()
    for name in [name for name in os.environ if name.startswith(("EZMSG_", "OTEL_"))]:
        del os.environ[name]
    os.environ |= ENVIRONMENT | {"EZMSG_AUTHKEY": secrets.token_hex(32)}
    before = shared_memory()
    soak = Soak(options)
    asyncio.run(soak.run())
    # Only ours: others may be at work on this machine.
    if left := sorted(name for name in shared_memory() - before if "ezmsg" in name):
        soak.problems.append(f"left in {SHARED_MEMORY}: {', '.join(left)}")
    report(soak, options)
    problems = verdict(soak, options.seconds)
    for problem in problems:
        print(f"PROBLEM  {problem}")
    print("FAILED" if problems else "passed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
