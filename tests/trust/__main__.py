"""Tries the worst cases: ``python tests/trust ROW``, a minute at most, or ``--full``, as in docs/testing.md.

A row prints what it found and how long that took, and exits with 1 where a promise does not hold.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

import row

# The function of each: settings -> what was found, as one line.
ROWS = {
    "configurations": "configurations.run",
    "counterparts": "beside.run",
    "special": "special.run",
    "denormals": "special.denormals",
    "bits": "bits.run",
    "mutants": "mutants.run",
    "onnx_mutants": "onnx_mutants.run",
    "readers": "fuzz.readers",
    "operators": "fuzz.operators",
    "asan": "sanitizers.address",
    "tsan": "sanitizers.thread",
    "crowd": "crowd.run",
    "forks": "forks.run",
    "exits": "exits.run",
    "interrupt": "interrupt.run",
    "allocations": "allocations.run_row",
    "soak": "soak.run",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/trust", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("rows", nargs="+", metavar="ROW", choices=(*ROWS, "all"), help=", ".join(("all", *ROWS)))
    parser.add_argument("--full", action="store_true", help="the figures of docs/testing.md; minutes to hours")
    parser.add_argument("--build", type=Path, default=row.ROOT / "build" / "trust", help="folder for builds")
    arguments = parser.parse_args()
    failed = False
    for name in ROWS if "all" in arguments.rows else arguments.rows:
        start = time.monotonic()
        try:
            module, function = ROWS[name].split(".")
            settings = row.Settings(arguments.full, arguments.build)
            found = getattr(importlib.import_module(module), function)(settings)
        except row.RowError as error:
            failed, found = True, f"FAILED: {error}"
        print(f"{name}: {found} ({time.monotonic() - start:.0f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
