"""Every code block of the documentation does what its page says. `make docs-test`; not a part of `make test`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.docs import severalhosts
from tests.docs.blocks import REPOSITORY, Reader, blocks_of, pages

TUTORIAL = [page for page in pages() if page.parent.name == "tutorial"]
OTHERS = [page for page in pages() if page not in TUTORIAL and any(b.is_ours for b in blocks_of(page.read_text()))]


@pytest.mark.timeout(900)
def test_the_tutorial_does_what_it_says_from_its_first_page_to_its_last(tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        for page in TUTORIAL:
            reader.read(page.name, blocks_of(page.read_text(encoding="utf-8")))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", OTHERS, ids=[str(page.relative_to(REPOSITORY)) for page in OTHERS])
def test_a_page_does_what_it_says(tmp_path: Path, page: Path) -> None:
    with Reader(tmp_path) as reader:
        reader.read(page.name, blocks_of(page.read_text(encoding="utf-8")))


@pytest.mark.timeout(600)
def test_a_publisher_of_one_host_reaches_another_as_told(tmp_path: Path) -> None:
    assert severalhosts.follow(tmp_path) == "got a sample\n"


@pytest.mark.timeout(600)
def test_the_hooks_of_contributors_find_nothing_here_and_something_in_a_commit_that_is_wrong(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    blocks = blocks_of((REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    (commands,) = [block.code for block in blocks if "pre-commit" in block.code]
    run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], tmp_path)
    (clone / ".venv").symlink_to(REPOSITORY / ".venv")
    assert "Failed" not in run(["sh", "-ec", commands], clone).stdout
    (clone / "wrong.py").write_text("import os, sys\n")
    run(["git", "add", "wrong.py"], clone)
    refused = run(["git", "-c", "user.name=A", "-c", "user.email=a@b", "commit", "-m", "Add"], clone, check=False)
    assert refused.returncode
    assert "ruff" in refused.stderr + refused.stdout


def run(command: list[str], where: Path, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PRE_COMMIT_HOME": str(where / "pre-commit")}
    return subprocess.run(command, cwd=where, env=environment, check=check, capture_output=True, text=True, timeout=500)
