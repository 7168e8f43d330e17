"""The documentation is whole: navigation, links, reference, and who runs which block."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ezmsg.core.command import build_parser
from ezmsg.core.commands.checks.environment import known_variables
from tests.docs.blocks import IN_TERMINAL, REPOSITORY, RUNNABLE, blocks_of, matches, pages

DOCS = REPOSITORY / "docs"
MARKS = ("", "goes on", "fails", "after Ctrl-C in", "again until it prints this", IN_TERMINAL)
# Those that need Docker, and hooks from elsewhere.
NOT_RUN = 2
LINK = re.compile(r"(?<!!)\[[^\]\[]*\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
PUBLIC_MODULES = (
    "ezmsg.core",
    "ezmsg.core.addressable",
    "ezmsg.core.backend",
    "ezmsg.core.collection",
    "ezmsg.core.component",
    "ezmsg.core.dag",
    "ezmsg.core.errors",
    "ezmsg.core.graphcontext",
    "ezmsg.core.graphmeta",
    "ezmsg.core.graphserver",
    "ezmsg.core.netprotocol",
    "ezmsg.core.processclient",
    "ezmsg.core.profiling",
    "ezmsg.core.settings",
    "ezmsg.core.settingsmeta",
    "ezmsg.core.state",
    "ezmsg.core.stream",
    "ezmsg.core.sync",
    "ezmsg.core.unit",
    "ezmsg.otel",
    "ezmsg.util.debuglog",
    "ezmsg.util.gen_to_unit",
    "ezmsg.util.generator",
    "ezmsg.util.messagecodec",
    "ezmsg.util.messagegate",
    "ezmsg.util.messagelogger",
    "ezmsg.util.messagequeue",
    "ezmsg.util.messagereplay",
    "ezmsg.util.messages.axisarray",
    "ezmsg.util.messages.chunker",
    "ezmsg.util.messages.key",
    "ezmsg.util.messages.modify",
    "ezmsg.util.messages.util",
    "ezmsg.util.rate",
    "ezmsg.util.terminate",
)
"""Those programs import from. Publisher and Subscriber are names of `ezmsg.core`."""


def entries(nav: list[Any]) -> Iterator[str]:
    for entry in nav:
        for value in entry.values():
            if isinstance(value, str):
                yield value
            else:
                yield from entries(value)


def test_every_page_is_in_the_navigation_once() -> None:
    nav = tomllib.loads((REPOSITORY / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    listed = list(entries(nav))
    there = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")]
    missing = sorted(set(there) - set(listed))
    assert missing == [], "add to nav in zensical.toml: " + ", ".join(f'{{ "TITLE" = "{name}" }}' for name in missing)
    assert sorted(listed) == sorted(there), "nav in zensical.toml names pages that are not there, or one twice"


@pytest.mark.parametrize("page", [page for page in pages() if DOCS not in page.parents], ids=lambda page: page.name)
def test_links_of_pages_outside_the_site_lead_somewhere(page: Path) -> None:
    """Those of the site are checked when it is built."""
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_block_is_executed_or_says_why_not() -> None:
    unknown = []
    not_run = 0
    for page in pages():
        for block in blocks_of(page.read_text(encoding="utf-8")):
            if block.language not in RUNNABLE:
                continue
            if block.mark.startswith("executed by "):
                path = block.mark.removeprefix("executed by ")
                if not (REPOSITORY / path).exists():
                    unknown.append(f"{page.name}:{block.line}: there is no {path}")
            elif block.mark.startswith("not run: "):
                not_run += 1
            elif block.command not in MARKS:
                unknown.append(f"{page.name}:{block.line}: <!-- {block.mark} --> means nothing")
    assert unknown == []
    assert not_run <= NOT_RUN, "less of the documentation is run than was"


def public_names(module: Any) -> Iterator[str]:
    """What `__all__` says, else classes, functions and types that are defined there and not private."""
    if hasattr(module, "__all__"):
        yield from module.__all__
        return
    for node in ast.parse(inspect.getsource(module)).body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                pass
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)) if (
                not name.isupper()
            ):
                pass
            case _:
                continue
        if not name.startswith("_") and name != "logger":
            yield name


@pytest.fixture(scope="module")
def documented() -> dict[str, Any]:
    """What the reference says something about, by the name it uses."""
    text = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    found: dict[str, Any] = {}
    for path, members in re.findall(
        r"^::: ([\w.]+)\n(?:    options:\n(?:      members: \[(.*)\])?)?", text, re.MULTILINE
    ):
        try:
            found[path] = importlib.import_module(path)
            names = members.split(", ") if members else public_names(found[path])
            found |= {f"{path}.{name}": getattr(found[path], name) for name in names}
        except ModuleNotFoundError:
            module, _, name = path.rpartition(".")
            found[path] = getattr(importlib.import_module(module), name)
    return found


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_every_public_name_is_in_the_reference(name: str, documented: dict[str, Any]) -> None:
    """Itself or with its module, by whatever name."""
    module = importlib.import_module(name)
    values = {id(value) for value in documented.values()}
    names = [public for public in public_names(module) if not inspect.ismodule(getattr(module, public))]
    missing = [f"::: {name}.{public}" for public in names if id(getattr(module, public)) not in values]
    assert missing == [], "add to a page in docs/reference"


def test_every_variable_that_is_read_is_in_the_reference() -> None:
    text = (DOCS / "reference/environment.md").read_text(encoding="utf-8")
    internal = {"EZMSG_", "EZMSG_SERVE_IN_BACKGROUND"}
    assert sorted(name for name in known_variables() - internal if f"`{name}`" not in text) == []


def test_every_command_is_in_the_reference() -> None:
    text = (DOCS / "reference/command-line.md").read_text(encoding="utf-8")
    (commands,) = (action.choices for action in build_parser()._actions if action.dest == "command")
    assert [name for name in commands or () if f"`ezmsg {name}`" not in text] == []


def test_the_files_that_contributing_names_are_there() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = re.findall(r"`((?:core|otel|src|tests|tools|docs|benchmarks)/[\w./]+)`", text)
    assert len(names) > 30
    examples = {"core/transport/NAME.py", "tests/core/x/test_y.py", "src/ezmsg/core/x/y.py"}
    there = {name for name in names for base in ("", "src/ezmsg") if (REPOSITORY / base / name).exists()}
    assert set(names) - examples - there == set()


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\nb\n", "a\n", False),
        ("a ... c\n", "a 17 c\n", True),
        ("a\n...\nz\n", "a\nb\nc\nz\n", True),
        ("...\nz\n", "z\n", True),
        ("a\n...\n", "b\n", False),
    ],
)
def test_dots_stand_for_what_is_different_each_time(expected: str, printed: str, same: bool) -> None:
    assert matches(expected, printed) is same
