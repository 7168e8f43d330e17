"""How much memory this process may still fill, by what the system and its control groups say.

Asked before shared memory is reserved: nothing bounds a memfd but the memory itself, so the system would end processes
where an error is due.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_MEMINFO = "proc/meminfo"
_GROUPS = "proc/self/cgroup"
# Of version 2 and version 1: where the groups are, and what they call limit, usage, and what is reclaimed at need.
_V2 = ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
_V1 = ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def free_memory_bytes(root: Path = Path("/")) -> int | None:
    """An estimate from above; None where the system does not tell (macOS).

    Args:
        root: Where `proc` and `sys` are; only tests give it.
    """
    return min([*_of_system(root), *_of_groups(root)], default=None)


def _of_system(root: Path) -> Iterator[int]:
    kilobytes = _numbers(root / _MEMINFO)
    if "MemAvailable:" in kilobytes:
        yield (kilobytes["MemAvailable:"] + kilobytes.get("SwapFree:", 0)) << 10


def _of_groups(root: Path) -> Iterator[int]:
    for line in _lines(root / _GROUPS):
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount, limit_file, usage_file, reclaimable = _V1 if controllers else _V2
        # A limit of any ancestor holds. A container may see its own group as the top one.
        path = PurePosixPath(group)
        for ancestor in (path, *path.parents):
            directory = root / mount / str(ancestor).lstrip("/")
            limit, usage = _number(directory / limit_file), _number(directory / usage_file)
            if limit is not None and usage is not None:
                yield max(0, limit - usage + _numbers(directory / "memory.stat").get(reclaimable, 0))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, ValueError):
        return []


def _number(path: Path) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdecimal() else None  # "max": no limit


def _numbers(path: Path) -> dict[str, int]:
    words = (line.split() for line in _lines(path))
    return {name: int(value) for name, value, *_ in (word for word in words if len(word) > 1) if value.isdecimal()}
