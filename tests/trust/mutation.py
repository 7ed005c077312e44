"""Quick random changes to files: bits, bytes, words, tokens of the format, pieces of other files, truncation."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random


def mutate(data: bytes, others: Sequence[bytes], tokens: Sequence[bytes], max_size: int, random: Random) -> bytes:
    """One to four changes to ``data``; pieces come from ``others``."""
    mutant = bytearray(data)
    draw = random.random
    for _ in range((1, 1, 2, 4)[int(draw() * 4)]):
        size = len(mutant)
        if size < 4:
            break
        at, kind = int(draw() * size), int(draw() * 10)
        if kind < 2:
            mutant[at] ^= 1 << int(draw() * 8)
        elif kind < 4:
            mutant[at] = int(draw() * 256)
        elif kind == 4:  # a number nudged
            mutant[at] = (mutant[at] + (-4, -2, -1, 1, 2, 4)[int(draw() * 6)]) & 0xFF
        elif kind < 7:
            token = tokens[int(draw() * len(tokens))]
            if draw() < 0.7:
                at = at & ~3 if len(token) == 4 else at
                mutant[at : at + len(token)] = token
            else:
                mutant[at:at] = token
        elif kind == 7:
            other = others[int(draw() * len(others))]
            start, length = int(draw() * len(other)), (2, 4, 8, 32)[int(draw() * 4)]
            mutant[at : at + length] = other[start : start + length]
        elif kind == 8:
            del mutant[at : at + (1, 2, 4, 16)[int(draw() * 4)]]
        elif draw() < 0.2:
            del mutant[at:]
    return bytes(mutant[:max_size])
