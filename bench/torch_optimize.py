"""MobileNetV2 in torch: eager, channels_last, beside sepconv.torch.optimize and torch.compile(backend="sepconv").

    python bench/torch_optimize.py --threads 1,2

Each contender runs in a process of its own, in turn, in several rounds; minimum and 25th percentile of all calls.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

CONTENDERS = ("eager", "optimize", "compile")


def network() -> Any:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "python"))
    import torch
    from torch_networks import MobileNetV2

    torch.manual_seed(0)
    return MobileNetV2().eval()


def measure(contender: str, threads: int, batch: int, calls: int) -> list[float]:
    """Milliseconds of each call, on channels_last input, which is what eager torch is fastest on."""
    import torch

    import sepconv.torch

    torch.set_num_threads(threads)
    module = network()
    makers: dict[str, Any] = {
        "eager": lambda: module.to(memory_format=torch.channels_last),
        "optimize": lambda: sepconv.torch.optimize(module),
        "compile": lambda: torch.compile(module, backend=sepconv.torch.backend),
    }
    run = makers[contender]()
    x = torch.randn(batch, 3, 224, 224).to(memory_format=torch.channels_last)
    times = []
    with torch.inference_mode():
        for _ in range(5):
            run(x)
        for _ in range(calls):
            start = time.perf_counter()
            run(x)
            times.append((time.perf_counter() - start) * 1e3)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", default="1")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--calls", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        print(json.dumps(measure(options.contender, int(options.threads), options.batch, options.calls)))
        return
    print("threads  contender  minimum  25th percentile, ms")
    for threads in options.threads.split(","):
        times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        for _ in range(options.rounds):
            for name in CONTENDERS:
                command = [sys.executable, __file__, "--contender", name, "--threads", threads]
                command += ["--batch", str(options.batch), "--calls", str(options.calls)]
                times[name] += json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for name, found in times.items():
            print(f"{threads:>7}  {name:<9}  {min(found):7.2f}  {np.percentile(found, 25):15.2f}")


if __name__ == "__main__":
    main()
