"""Arrays for the time of a call, in memory that the calling thread keeps: new pages would take most of a step."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

MOST_KEPT = 16 << 20  # numbers: 64 MB a thread
_ALIGNMENT = 16  # numbers


class _Kept(threading.local):
    memory: NDArray[np.float32] | None = None


_kept = _Kept()


@contextmanager
def workspace(*shapes: Sequence[int]) -> Iterator[list[NDArray[np.float32]]]:
    """float32 arrays of these shapes, with anything in them, until the block ends. What leaves it must be a copy.

    The memory is the thread's own, and taken away from it meanwhile: a call within the block gets other memory.
    """
    sizes = [math.prod(shape) for shape in shapes]
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + -(-size // _ALIGNMENT) * _ALIGNMENT)
    memory, _kept.memory = _kept.memory, None
    if memory is None or len(memory) < starts[-1]:
        memory = np.empty(starts[-1], np.float32)
    try:
        parts = zip(starts, sizes, shapes, strict=False)
        yield [memory[start : start + size].reshape(shape) for start, size, shape in parts]
    finally:
        if len(memory) <= MOST_KEPT:
            _kept.memory = memory
