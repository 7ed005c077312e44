"""How many threads to run on."""

from __future__ import annotations

from typing import SupportsIndex

from sepconv import _core
from sepconv.graph.base import is_integer


def set_num_threads(n: SupportsIndex) -> None:
    """Run on so many threads from now on, where a call does not say otherwise: of the whole process.

    Raises:
        TypeError: ``n`` is not an int.
        ValueError: it is not between 1 and 1024.
    """
    if not is_integer(n):
        raise TypeError(f"n was {n!r}, must be an int")
    _core.set_num_threads(_in_range("n", int(n)))


def thread_count(threads: SupportsIndex | None) -> int:
    """How many threads a call runs on; ``sepconv.num_threads()`` for None. Raises as :func:`set_num_threads`."""
    if threads is None:
        return _core.num_threads()
    if type(threads) is not int and not is_integer(threads):
        raise TypeError(f"threads was {threads!r}, must be an int or None")
    return _in_range("threads", int(threads))


def _in_range(argument: str, count: int) -> int:
    if not 1 <= count <= _core.MAX_THREADS:
        raise ValueError(f"{argument} was {count}, must be between 1 and {_core.MAX_THREADS}")
    return count
