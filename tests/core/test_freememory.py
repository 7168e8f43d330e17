"""How much memory is free, told from what a system shows of itself."""

from __future__ import annotations

from pathlib import Path

from ezmsg.core.freememory import free_memory_bytes


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal: 64 kB\nMemAvailable: 32 kB\nSwapFree: 8 kB\nHugePages_Total: 0\n"}
V2 = "sys/fs/cgroup/"
V1 = "sys/fs/cgroup/memory/"


def test_nothing_is_known_where_the_system_does_not_tell(tmp_path: Path) -> None:
    assert free_memory_bytes(tmp_path) is None


def test_without_limits_it_is_what_is_available_and_may_be_swapped(tmp_path: Path) -> None:
    root = write(tmp_path, **MEMINFO, **{"proc/self/cgroup": "0::/\n"})
    assert free_memory_bytes(root) == 40 << 10


def test_a_group_has_its_limit_without_what_is_used_and_cannot_be_reclaimed(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        **MEMINFO,
        **{
            "proc/self/cgroup": "0::/pod/box\n",
            f"{V2}pod/box/memory.max": "max\n",
            f"{V2}pod/box/memory.current": "100\n",
            f"{V2}pod/memory.max": "1000\n",
            f"{V2}pod/memory.current": "700\n",
            f"{V2}pod/memory.stat": "anon 600\ninactive_file 50\n",
        },
    )
    assert free_memory_bytes(root) == 350


def test_groups_of_the_first_version_count_too_also_as_a_container_sees_them(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        **MEMINFO,
        **{
            "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/docker/0123\n0::/\n",
            f"{V1}memory.limit_in_bytes": "1000\n",
            f"{V1}memory.usage_in_bytes": "1200\n",
        },
    )
    assert free_memory_bytes(root) == 0
