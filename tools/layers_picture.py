"""Draws docs/architecture/layers.svg from the layers that import-linter checks: `python tools/layers_picture.py`.

The colours and names of the bands are said here; which modules there are, and in which order, is the contract in
pyproject.toml. A module without a band, or a band whose module is gone, is an error.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PICTURE = REPOSITORY / "docs/architecture/layers.svg"

# From the top: name of a band, its colour, and the first layer in it.
BANDS = (
    ("command line", "#7c8798", "__main__"),
    ("without asyncio", "#5b8def", "sync"),
    ("running units in processes", "#3f9c6b", "backend"),
    ("declaring units", "#8bb34a", "relay"),
    ("control plane: clients", "#d99a2b", "graphcontext"),
    ("control plane: server", "#c9663d", "graphserver"),
    ("telemetry: consumers", "#a6569d", "telemetry"),
    ("data plane: publishers, channels, subscribers", "#4f7fbf", "pubclient"),
    ("transports, shared memory, sockets", "#39849b", "transport"),
    ("without input and output: caches, codecs, recorder, wire", "#6d7f54", "messagecache"),
    ("vocabulary", "#8a7560", "settingsmeta"),
)
WIDTH, ROW, GAP, LEFT, PADDING, LETTER = 960, 30, 6, 300, 9, 7.4


def layers() -> list[list[str]]:
    """The modules of each layer, from the top, as import-linter is told."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (contract,) = (contract for contract in settings["contracts"] if contract["id"] == "layers")
    return [[name.strip(" ()") for name in layer.split("|")] for layer in contract["layers"]]


def banded() -> list[tuple[str, str, list[list[str]]]]:
    """Name and colour of each band, and its layers."""
    found: list[tuple[str, str, list[list[str]]]] = []
    todo = list(BANDS)
    for layer in layers():
        if todo and todo[0][2] in layer:
            name, colour, _ = todo.pop(0)
            found.append((name, colour, []))
        found[-1][2].append(layer)
    if todo:
        raise ValueError(f"no layer begins with {todo[0][2]}: mend BANDS in {Path(__file__).name}")
    return found


def picture() -> str:
    """The whole picture, as text."""
    parts: list[str] = []
    top = 10
    for name, colour, rows in banded():
        height = len(rows) * ROW + GAP
        parts.append(
            f'<rect x="10" y="{top}" width="{WIDTH - 20}" height="{height}" rx="6" fill="{colour}" opacity="0.16"/>'
        )
        parts.append(
            f'<text x="24" y="{top + 21}" font-size="13" font-weight="600" fill="{colour}">{_wrapped(name, top)}</text>'
        )
        for number, row in enumerate(rows):
            parts += _boxes(row, top + number * ROW + GAP, colour)
        top += height + GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 30}" width="{WIDTH}" '
        'font-family="ui-monospace, Menlo, Consolas, monospace" role="img" '
        'aria-label="The layers of ezmsg.core: a module may import from the rows below its own">'
    )
    rule = "a module imports from the rows below its own, never from above; boxes of a row do not import each other"
    note = f'<text x="24" y="{top + 14}" font-size="12" fill="#7c8798">{rule}</text>'
    ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join(
        ["<!-- Made by tools/layers_picture.py; a test compares them. -->", head, ground, *parts, note, "</svg>", ""]
    )


def _wrapped(name: str, top: float) -> str:
    """On two lines, if it is long."""
    words, lines = name.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 32:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "".join(f'<tspan x="24" y="{top + 21 + 16 * number}">{line}</tspan>' for number, line in enumerate(lines))


def _boxes(names: list[str], top: float, colour: str) -> list[str]:
    parts = []
    left = float(LEFT)
    for name in names:
        width = len(name) * LETTER + 2 * PADDING
        parts.append(
            f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{ROW - GAP}" rx="4" fill="{colour}"/>'
            f'<text x="{left + PADDING:.1f}" y="{top + 16}" font-size="12" fill="#ffffff">{name}</text>'
        )
        left += width + GAP
    return parts


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
