"""What this machine can do at most: multiply-adds a second on each ISA, bytes a second from each cache and memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sepconv.bench import machine
from sepconv.bench.statistics import typical_rate

SECONDS = 0.1  # for each number
DRAM_BYTES = 256 << 20  # at least; more than a cache holds, if memory allows
_UNKNOWN = {"L1": 32 << 10, "L2": 1 << 20, "L3": 16 << 20}


@dataclass(frozen=True)
class Peaks:
    """On ``threads`` threads together, of which no more run at a time than there are ``cpus`` for them.

    flops: floating-point operations a second by ISA; a multiply-add is two.
    bandwidth: bytes read a second, by the level that holds them: L1, L2, L3, DRAM.
    sizes: bytes that each running thread finds in a level: a core's own L1 and L2, its share of L3.
    isa: whose loads measured the bandwidth.
    """

    threads: int
    cpus: int
    isa: str
    flops: dict[str, float]
    bandwidth: dict[str, float]
    sizes: dict[str, int]

    def level(self, size: int) -> str:
        """The nearest level in which ``size`` bytes a thread stay."""
        return next((level for level, held in self.sizes.items() if size <= held), "DRAM")

    def seconds(self, isa: str, operations: float, traffic: dict[str, float]) -> tuple[float, str]:
        """The least time for these operations and bytes from each level, overlapped, and which of them sets it."""
        times = {"multiply-adds": operations / self.flops[isa]}
        times |= {level: size / self.bandwidth[level] for level, size in traffic.items() if size}
        return max((time, name) for name, time in times.items())


def measure(threads: int = 1, isa: str | None = None, seconds: float = SECONDS) -> Peaks:
    """Measure; takes about ``seconds`` for each of some eight numbers.

    ``isa``: whose loads to use, None for the one in use. FMA peaks are measured for all that run here. More threads
    than the process has CPUs have the peaks of those: threads that take turns would each seem to have all the time.

    Raises ValueError for an ISA that does not run here.
    """
    from sepconv import _core

    isa = isa or _core.isa()
    found = {**_UNKNOWN, **machine.cache_bytes(), "L2": _core.l2_bytes()}
    cpus = min(threads, machine.cpus())
    found["L3"] = max(found["L3"] // cpus, 2 * found["L2"])
    # Half of a level, so that what else lives there does not push it out; of a large L3 less, for others share it.
    working_sets = {"L1": found["L1"] // 2, "L2": found["L2"] // 2, "L3": min(found["L3"] // 2, 8 * found["L2"])}
    working_sets["DRAM"] = max(DRAM_BYTES, 2 * found["L3"])
    available = machine.available_bytes()
    if available is not None:
        working_sets["DRAM"] = min(working_sets["DRAM"], max(available // (4 * cpus), working_sets["L3"]))
    return Peaks(
        threads,
        cpus,
        isa,
        {name: typical_rate(_core.measure_fma(name, cpus, seconds)) for name in _core.supported_isas()},
        {level: typical_rate(_core.measure_read(isa, size, cpus, seconds)) for level, size in working_sets.items()},
        {level: found[level] for level in ("L1", "L2", "L3")},
    )


def document(peaks: list[Peaks]) -> dict[str, Any]:
    """For ``--json``."""
    return {
        "date": machine.now(),
        "machine": machine.describe(),
        "load_average": machine.load_average(),
        "peaks": [
            {
                "threads": each.threads,
                "isa": each.isa,
                "gflops": {isa: rate / 1e9 for isa, rate in each.flops.items()},
                "gigabytes_a_second": {level: rate / 1e9 for level, rate in each.bandwidth.items()},
            }
            for each in peaks
        ],
    }


def rows(peaks: list[Peaks]) -> list[list[str]]:
    """A row a number, a column a number of threads."""
    table = [[f"FMA {isa}", *(f"{p.flops[isa] / 1e9:.1f} GFLOP/s" for p in peaks)] for isa in peaks[0].flops]
    levels = peaks[0].bandwidth
    return table + [[f"read {name}", *(f"{p.bandwidth[name] / 1e9:.1f} GB/s" for p in peaks)] for name in levels]
