"""Every code block of the documentation does what its page says. `make docs-test`; not a part of `make test`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import severalhosts
from tests.docs.blocks import REPOSITORY, Reader, blocks_of, pages

TUTORIAL = [page for page in pages() if page.parent.name == "tutorial"]
OTHERS = [page for page in pages() if page not in TUTORIAL and any(b.is_ours for b in blocks_of(page.read_text()))]


@pytest.mark.timeout(300)
def test_the_tutorial_does_what_it_says_from_its_first_page_to_its_last(tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        for page in TUTORIAL:
            reader.read(page.name, blocks_of(page.read_text(encoding="utf-8")))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", OTHERS, ids=[str(page.relative_to(REPOSITORY)) for page in OTHERS])
def test_a_page_does_what_it_says(tmp_path: Path, page: Path) -> None:
    with Reader(tmp_path) as reader:
        reader.read(page.name, blocks_of(page.read_text(encoding="utf-8")))


@pytest.mark.timeout(180)
def test_a_publisher_of_one_host_reaches_another_as_told(tmp_path: Path) -> None:
    assert severalhosts.follow(tmp_path) == "got a sample\n"
