"""Random configurations of every operator, on every ISA, against the oracle in float64: within the stated bound.

Shapes, kernels, strides, dilations, paddings, multipliers, activations, BatchNorm, batches, threads and fusion are all
drawn. The bound of a sum of K products is (K + 4) · 2^-24 · Σ|x·w| plus one unit in the last place; the others are in
tests/python/oracle.py. A quarter goes through the functions that take anyone's arrays.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import numpy as np
from row import Settings, run_worker

PROCESSES = 2


def run(settings: Settings) -> str:
    count = settings.count(4_000, 220_000) // PROCESSES
    with ThreadPoolExecutor(PROCESSES) as pool:
        jobs = [pool.submit(run_worker, Path(__file__), str(seed), str(count)) for seed in range(PROCESSES)]
        found = np.array([[int(number) for number in job.result().split()[-2:]] for job in jobs]).sum(axis=0)
    return f"{found[0]} random configurations, {found[1]} runs on the ISAs of this machine, 0 beyond the bound"


def main() -> int:
    from op_problems import OPERATORS as FUNCTIONS
    from op_problems import check as check_call
    from op_problems import random_problem
    from oracle import ISAS
    from test_operators import COUNTS, EXACT, OPERATORS, Draw, check
    from test_ops import random_call

    names = [name for name in OPERATORS for _ in range(COUNTS.get(name, 100) // 100)]
    first, count = int(sys.argv[1]) << 40, int(sys.argv[2])
    runs = 0
    for seed in range(first, first + count):
        random = Random(seed)
        name = random.choice(names)
        exact = random.random() < 0.2 and name in EXACT
        try:
            if seed % 4 == 0:
                problem = random_problem(random, random.choice(FUNCTIONS))
                check_call(problem, random_call(problem, random))
            else:
                check(OPERATORS[name], Draw(random, integers=exact), ISAS, exact=exact)
        except BaseException:
            print(f"{name}, seed {seed}", flush=True)
            raise
        runs += 1 if seed % 4 == 0 else len(ISAS)
        if (seed - first) % 10_000 == 9_999:
            print(seed - first + 1, "configurations", flush=True)
    print(count, runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
