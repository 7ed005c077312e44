"""What ran where: the lines that every result needs beside it."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from sepconv._version import __version__
from sepconv.bench.contenders import KINDS

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 1 << 10, "M": 1 << 20}
# By the controllers of /proc/self/cgroup: the limit, what is used, and of that the files that nobody uses.
_CGROUP_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def describe() -> dict[str, Any]:
    """Processor, cores, caches, memory and system; parts that the system does not tell are left out."""
    described: dict[str, Any] = {"processor": processor(), "architecture": platform.machine(), "cores": os.cpu_count()}
    described["caches"] = cache_bytes()
    with contextlib.suppress(ValueError, OSError):
        described["memory"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    described["system"] = f"{platform.system()} {platform.release()}"
    return described


def processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cache_bytes() -> dict[str, int]:
    """Bytes of the first core's caches for data: {"L1": ..., "L2": ..., "L3": ...}, where the system tells."""
    sizes: dict[str, int] = {}
    for index in sorted(_CACHES.glob("index*")):
        with contextlib.suppress(OSError, ValueError, KeyError):
            if (index / "type").read_text().strip() == "Instruction":
                continue
            size = (index / "size").read_text().strip()
            sizes[f"L{(index / 'level').read_text().strip()}"] = int(size[:-1]) * _UNITS[size[-1]]
    return sizes


def cpus() -> int:
    """How many this process may use: of its affinity, and its cgroup's quota."""
    from sepconv import _core

    return _core.default_threads()


def available_bytes(root: Path = Path("/")) -> int | None:
    """Bytes of memory that are free or can be made so, here and in our cgroups; None where the system does not tell."""
    found = _left_in_cgroups(root)
    with contextlib.suppress(OSError, KeyError, ValueError):
        found.append(1024 * _numbers(root / "proc/meminfo")["MemAvailable:"])
    return max(0, min(found)) if found else None


def _left_in_cgroups(root: Path) -> list[int]:
    """Of our cgroup and of each above it that is limited (v2 and v1): the limit less what it holds and must keep."""
    left: list[int] = []
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            top, limit, used, cache = (root / "sys/fs/cgroup" / controllers, *_CGROUP_FILES[controllers])
            group = top / path.lstrip("/")
            for folder in (group, *group.parents):
                with contextlib.suppress(OSError, KeyError, ValueError):  # as "max", which is no limit
                    most, held = (int((folder / name).read_text()) for name in (limit, used))
                    left.append(most - held + _numbers(folder / "memory.stat")[cache])
                if folder == top:
                    break
    return left


def _numbers(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    lines = path.read_text(encoding="ascii").splitlines()
    return {words[0]: int(words[1]) for words in map(str.split, lines) if len(words) > 1}


def versions(kinds: Sequence[str]) -> dict[str, str]:
    """Versions of Python and of these contenders' packages, where installed."""
    found = {"python": platform.python_version(), "sepconv": __version__}
    for kind in kinds:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.setdefault(kind, metadata.version(KINDS[kind].distribution))
    return found


def load_average() -> tuple[float, float, float] | None:
    with contextlib.suppress(OSError, AttributeError):
        return os.getloadavg()
    return None


def now() -> str:
    """The time of day in UTC, to the minute, as ISO 8601."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes")
