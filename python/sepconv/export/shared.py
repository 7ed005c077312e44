"""What the writers of all formats share."""

from __future__ import annotations

from sepconv.graph.base import MAX_ELEMENTS, are_integers


def check_batch(batch: int) -> None:
    """Raise ValueError for what is no number of images that a file can hold."""
    if not are_integers((batch,), 1, minimum=1):
        raise ValueError(f"batch was {batch!r}, must be a whole number from 1 to {MAX_ELEMENTS}")
