"""What the benchmark takes the machine to have: memory that is free, here and in a container."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("sepconv.threads", reason="needs the built engine")
from sepconv import _core
from sepconv.bench import machine, peaks


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_the_memory_that_is_free_is_the_least_that_anything_leaves(tmp_path: Path) -> None:
    assert machine.available_bytes(tmp_path) is None
    write(tmp_path, {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:  5000 kB\n"})
    assert machine.available_bytes(tmp_path) == 5000 << 10
    group = "sys/fs/cgroup/a/b"
    limited = {f"{group}/memory.current": "900", f"{group}/memory.stat": "anon 500\ninactive_file 300\n"}
    write(tmp_path, {"proc/self/cgroup": "0::/a/b\n", **limited, f"{group}/memory.max": "max\n"})
    assert machine.available_bytes(tmp_path) == 5000 << 10
    write(tmp_path, {f"{group}/memory.max": "1000\n"})
    assert machine.available_bytes(tmp_path) == 400
    above = {"memory.max": "2000", "memory.current": "1990", "memory.stat": "inactive_file 0"}
    write(tmp_path, {f"sys/fs/cgroup/a/{name}": text for name, text in above.items()})
    assert machine.available_bytes(tmp_path) == 10


@pytest.mark.parametrize("inside", ["", "here/"])
def test_the_memory_that_a_container_of_old_leaves(inside: str, tmp_path: Path) -> None:
    """Version 1; without ``inside`` the path is the host's, of which only the last folder is to be seen."""
    group = f"sys/fs/cgroup/memory/{inside}"
    files = {"memory.limit_in_bytes": "1000", "memory.usage_in_bytes": "1200", "memory.stat": "total_inactive_file 250"}
    write(tmp_path, {group + name: text for name, text in files.items()})
    write(tmp_path, {"proc/self/cgroup": "5:cpu:/x\n4:memory:/here\n0::/\n"})
    assert machine.available_bytes(tmp_path) == 50


def test_measuring_memory_takes_a_quarter_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def read(isa: str, size: int, threads: int, seconds: float) -> list[float]:
        taken.append(size * threads)
        return [1.0]

    monkeypatch.setattr(_core, "measure_read", read)
    monkeypatch.setattr(machine, "cpus", lambda: 32)
    monkeypatch.setattr(machine, "cache_bytes", dict)
    monkeypatch.setattr(_core, "l2_bytes", lambda: 1 << 19)
    monkeypatch.setattr(machine, "available_bytes", lambda: 1 << 30)
    peaks.measure(32, seconds=0.001)
    assert max(taken) <= 1 << 28
