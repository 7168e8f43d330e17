"""What the how-to about terminals tells is there: programs, options, keys and pictures."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from examples.profiling_tui import ProfilingApp
from ezmsg.core.command import build_parser
from ezmsg.tui.table import COLUMNS

ROOT = Path(__file__).parents[2]
HOWTO = ROOT / "docs/howto/terminals.md"
TEXT = HOWTO.read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_exists(line: str) -> None:
    words = line.split()
    if words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]) is not None
    elif words[0] == "ezmsg":
        assert build_parser().parse_args(words[1:]).command == words[1]
    else:
        assert words == ["pip", "install", "'PATH_OF_THE_CLONE[tui]'"]


def test_pictures_and_links_are_there_and_small() -> None:
    targets = re.findall(r"\]\((\S+?)\)", TEXT)
    assert any(target.endswith(".png") for target in targets)
    for target in targets:
        path = HOWTO.parent / target
        assert path.exists(), target
        assert path.stat().st_size < 200_000


def test_columns_and_keys_are_those_of_the_programs() -> None:
    for column in COLUMNS:
        if not column.from_width:
            assert f"`{column.title}`" in TEXT
    for binding in ProfilingApp.BINDINGS:
        assert f"`{binding.key}`" in TEXT  # type: ignore[union-attr]
