"""Files mapped into memory, and giving their pages back.

A page of a mapped file that was read counts as memory in use, though the file still has it. While a model packs its
weights, both would add up to twice the weights.
"""

from __future__ import annotations

import mmap
import weakref

# No WeakSet: it may not be gone through while another thread maps a file, or lets one go.
_mapped: set[weakref.ref[mmap.mmap]] = set()


def map_file(descriptor: int) -> mmap.mmap:
    """A whole file, read-only. Raises OSError; ValueError for an empty file."""
    mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    _mapped.add(weakref.ref(mapped, _mapped.discard))
    return mapped


def release_pages() -> None:
    """Gives back what is in memory of all mapped files. Whoever reads them again reads the file."""
    if hasattr(mmap, "MADV_DONTNEED"):
        for reference in _mapped.copy():
            if (mapped := reference()) is not None:
                mapped.madvise(mmap.MADV_DONTNEED)
