"""The real collector and the real Prometheus, with graphs that have been played through them: once for all tests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy.testing import scenario, troubles
from deploy.testing.binaries import Binaries
from deploy.testing.scenario import Played
from deploy.testing.troubles import Troubled


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test that needs it waits for the whole scenario."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def binaries() -> Binaries:
    """Built by `make stack-test`; tests have another home, where there is none."""
    if not (found := os.environ.get("STACK_BINARIES")):
        pytest.fail("run `make stack-test`, which builds the collector and Prometheus if they are missing")
    return Binaries(Path(found))


@pytest.fixture(scope="session")
def both(
    binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Future[Played], Future[Troubled]]]:
    """Both are played at the same time: they mostly wait."""
    plays = scenario.play(binaries, tmp_path_factory.mktemp("stack"))
    fails = troubles.play(binaries, tmp_path_factory.mktemp("troubles"))
    with ThreadPoolExecutor(2) as pool:
        played, troubled = pool.submit(plays.__enter__), pool.submit(fails.__enter__)
    with contextlib.ExitStack() as ended:
        for context, future in ((plays, played), (fails, troubled)):
            if not future.exception():
                ended.push(context.__exit__)
        yield played, troubled


@pytest.fixture(scope="session")
def played(both: tuple[Future[Played], Future[Troubled]]) -> Played:
    """A graph with faults has run, the collector and Prometheus have crashed meanwhile; Prometheus still answers."""
    return both[0].result()


@pytest.fixture(scope="session")
def troubled(both: tuple[Future[Played], Future[Troubled]]) -> Troubled:
    """What another Prometheus saw of a graph and a collector that failed for good."""
    return both[1].result()
