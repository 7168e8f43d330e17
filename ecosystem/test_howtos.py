"""What the documentation tells about installing is done as it stands, in an environment of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS, UPSTREAM = "3.9.0+otel.", "3.9.0"


def blocks(page: str) -> list[str]:
    """The blocks of a page that this file executes."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(
        rf"^ *<!-- executed by ecosystem/{Path(__file__).name} -->\n *```sh\n(.*?)^ *```", text, re.M | re.S
    )
    assert found, page
    return [block.replace("PATH_OF_THE_CLONE", str(ROOT)) for block in found]


class Environment:
    """A virtual environment, and a shell in which it is active."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        subprocess.run([sys.executable, "-m", "venv", directory / "venv"], check=True)

    def run(self, commands: str) -> str:
        """What the commands print."""
        environment = {**os.environ, "PATH": f"{self._directory}/venv/bin{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            ["sh", "-ec", commands], cwd=self._directory, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @property
    def version(self) -> str:
        """Of the ezmsg that is there."""
        return self.run("python -c 'import importlib.metadata as m; print(m.version(\"ezmsg\"))'").strip()


@pytest.mark.timeout(600)
def test_one_switches_from_upstream_and_back_and_puts_packages_on_top(tmp_path: Path) -> None:
    switch, with_a_package = blocks("docs/howto/from-ezmsg-3.9.md")
    (constrained,) = blocks("README.md")
    (terminals,) = blocks("docs/howto/terminals.md")
    environment = Environment(tmp_path)
    environment.run(f"pip install --quiet ezmsg=={UPSTREAM}")
    assert f"\nezmsg {OURS}" in environment.run(switch)
    assert environment.version == UPSTREAM
    for commands in (with_a_package, constrained, terminals):
        environment.run(commands)
        assert environment.version.startswith(OURS), commands
    environment.run("python -c 'import ezmsg.sigproc, textual'")
    assert environment.run("pip check") == "No broken requirements found.\n"


@pytest.mark.timeout(900)
def test_the_wheel_of_a_release_is_looked_at_as_contributors_are_told() -> None:
    (check,) = blocks("CONTRIBUTING.md")
    done = subprocess.run(
        ["sh", "-ec", check], cwd=ROOT, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout.endswith("the wheel is good\n"), done.stdout + done.stderr
