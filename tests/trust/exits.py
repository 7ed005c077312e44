"""Interpreters that end while daemon threads are in the middle of runs: by themselves, by an exception, by a signal."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from row import Settings, require

PROGRAM = """
import os, signal, sys, threading, time
import numpy as np, sepconv
images, seconds, threads, end = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
model = sepconv.models.mobilenet_v1(alpha=0.25, resolution=64, classes=10)
x = np.ones((images, 64, 64, 3), np.float32)
def work():
    while True:
        model(x, threads=threads)
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(seconds)
if end == "exception":
    raise SystemExit(7)
if end == "terminated":
    os.kill(os.getpid(), signal.SIGTERM)
if end == "interrupted":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
"""
ENDS = {"return": (0,), "exception": (7,), "terminated": (-signal.SIGTERM,), "interrupted": (-signal.SIGINT, 130)}
LIMIT = 120  # seconds until a process counts as hung


def run(settings: Settings) -> str:
    count = settings.count(24, 500)
    with ThreadPoolExecutor(4) as pool:
        problems = [problem for problem in pool.map(one_exit, range(count)) if problem]
    require(not problems, "\n".join(problems))
    return f"{count} interpreters ended in the middle of runs, 0 hung, crashed or complained"


def one_exit(index: int) -> str:
    """What was wrong with one, or ""."""
    end = list(ENDS)[index % len(ENDS)]
    images, seconds, threads = (1, 100)[index // 4 % 2], 0.02 + 0.003 * (index % 29), 1 + index // 8 % 3
    command = [sys.executable, "-c", PROGRAM, str(images), str(seconds), str(threads), end]
    start = time.monotonic()
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return f"{index}: hung, {end}"
    if result.returncode not in ENDS[end]:
        return f"{index}: {end} gave {result.returncode} after {time.monotonic() - start:.1f} s: {result.stderr}"
    if result.stderr and "KeyboardInterrupt" not in result.stderr:
        return f"{index}: {end} wrote {result.stderr}"
    return ""
