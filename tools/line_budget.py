"""Print the lines of each folder against its budget; fail above one, or where a file is longer than a sitting.

Every line counts, blank ones and comments too. Raising a budget is a decision: do it in the change that needs it.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = {".h", ".cpp", ".py", ".pyi", ".cmake", ".toml", ".md"}
NAMES = {"CMakeLists.txt", "aarch64", "run"}
FILE_LIMIT = 400

BUDGET = {
    "csrc/base": 300,
    "csrc/cpu": 350,
    "csrc/simd": 700,
    "csrc/kernels": 1905,
    "csrc/isa": 250,
    "csrc/pack": 385,
    "csrc/runtime": 750,
    "csrc/ops": 2400,
    "csrc/grad": 800,
    "csrc/graph": 2000,
    "csrc/eager": 1300,
    "csrc/ref": 900,
    "csrc/nd": 2010,
    "csrc/bind": 2020,
    "python": 25000,
    "tests/cpp": 5860,
    "tests/trust": 3000,
    "tests/python": 20100,
    "bench": 880,
    "tools": 1200,
    "cmake": 150,
    ".ci": 400,
    "docs": 1300,
}
# What a newcomer reads in an afternoon to follow one kernel from its interface to its caller.
READING_PATH = [
    "csrc/kernels/table.h",
    "csrc/simd/avx2.h",
    "csrc/kernels/gemm.h",
    "csrc/isa/avx2.cpp",
    "csrc/pack",
    "csrc/ops/pointwise.h",
    "csrc/ops/pointwise.cpp",
]
READING_BUDGET = 1300


def lines_of(path: Path) -> dict[Path, int]:
    """Return the number of lines of each counted file at or under path; empty where there is none."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    counted = (f for f in files if f.is_file() and (f.suffix in SUFFIXES or f.name in NAMES))
    return {f: len(f.read_text(encoding="utf-8").splitlines()) for f in counted}


def main() -> int:
    problems: list[str] = []
    used_total = 0
    print(f"{'folder':<16}{'files':>7}{'lines':>8}{'budget':>8}")
    for folder, budget in BUDGET.items():
        counts = lines_of(ROOT / folder)
        used = sum(counts.values())
        used_total += used
        print(f"{folder:<16}{len(counts):>7}{used:>8}{budget:>8}")
        if used > budget:
            problems.append(f"{folder}: {used} lines; its budget is {budget}")
        problems += [
            f"{path.relative_to(ROOT)}: {count} lines; a file must have at most {FILE_LIMIT}"
            for path, count in counts.items()
            if count > FILE_LIMIT
        ]
    print(f"{'total':<16}{'':>7}{used_total:>8}{sum(BUDGET.values()):>8}")
    reading = sum(sum(lines_of(ROOT / part).values()) for part in READING_PATH)
    print(f"{'reading path':<16}{'':>7}{reading:>8}{READING_BUDGET:>8}")
    if reading > READING_BUDGET:
        problems.append(f"the reading path has {reading} lines; its budget is {READING_BUDGET}")
    folders = sorted(f"csrc/{path.name}" for path in (ROOT / "csrc").iterdir())
    problems += [f"{folder}: has no budget" for folder in folders if folder not in BUDGET]
    print("\n".join(problems) or "within the budget")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
