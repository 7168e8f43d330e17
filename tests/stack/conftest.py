"""The real collector and the real Prometheus, with a graph that has been played through them: once for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.testing.binaries import Binaries
from deploy.testing.scenario import Played, play


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test that needs it waits for the whole scenario."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def binaries() -> Binaries:
    """Built by `make stack-test`; tests have another home, where there is none."""
    if not (found := os.environ.get("STACK_BINARIES")):
        pytest.fail("run `make stack-test`, which builds the collector and Prometheus if they are missing")
    return Binaries(Path(found))


@pytest.fixture(scope="session")
def played(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """A graph with faults has run, the collector and Prometheus have crashed meanwhile; Prometheus still answers."""
    with play(binaries, tmp_path_factory.mktemp("stack")) as done:
        yield done
