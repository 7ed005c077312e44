"""Random calls of the operators against torch in float64 and float32, and onnxruntime: within the stated bound.

Shapes, windows, paddings by number and by rule, groups, activations, residuals, layouts, kinds of memory, threads,
weights prepared or not, results given or made, numpy's arrays and torch's tensors are all drawn. Needs torch and
onnxruntime.
"""

from __future__ import annotations

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from row import Settings, require, run_worker

PROCESSES = 2
NEEDED = ("torch", "onnx", "onnxruntime")


def run(settings: Settings) -> str:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    require(not missing, f"needs {', '.join(missing)}, not installed")
    count = settings.count(300, 4_000) // PROCESSES
    with ThreadPoolExecutor(PROCESSES) as pool:
        jobs = [pool.submit(run_worker, Path(__file__), str(seed), str(count)) for seed in range(PROCESSES)]
        calls = sum(int(job.result().split()[-1]) for job in jobs)
    return f"{calls} random calls of five operators, each held against torch and onnxruntime, 0 beyond the bound"


def main() -> int:
    import onnx
    import onnxruntime
    import torch
    from counterparts import compare
    from op_problems import OPERATORS

    torch.set_num_threads(1)
    first, count = int(sys.argv[1]) << 40, int(sys.argv[2])
    calls = 0
    for seed in range(first, first + count):
        for operator in OPERATORS:
            try:
                compare(operator, seed, torch, onnx, onnxruntime)
            except BaseException:
                print(f"{operator}, seed {seed}", flush=True)
                raise
            calls += 1
    print(calls)
    return 0


if __name__ == "__main__":
    sys.exit(main())
