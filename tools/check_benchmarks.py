"""Fail where a kernel of csrc/kernels/table.h has no benchmark in the program given: sepconv_bench."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TABLE = Path(__file__).resolve().parent.parent / "csrc" / "kernels" / "table.h"


def kernels(header: str) -> list[str]:
    """The fields of KernelTable that are kernels: all whose names end in their type."""
    table = header[header.index("struct KernelTable {") :]
    code = re.sub(r"//.*", "", table[: table.index("\n};")])
    return sorted(set(re.findall(r"\b\w+_f32\b", code)))


def main() -> int:
    found = kernels(TABLE.read_text(encoding="utf-8"))
    command = [sys.argv[1], "--benchmark_list_tests"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    timed = {name.split("__")[0] for name in listed}
    missing = [name for name in found if not any(t == name or t.startswith(f"{name}_") for t in timed)]
    print(f"{len(found)} kernels, {len(listed)} benchmarks; without one: {', '.join(missing) or 'none'}")
    return 1 if missing or not found else 0


if __name__ == "__main__":
    sys.exit(main())
