"""One call of an operator, for tests of the arrays that it takes: what it must give, and what it copied."""

from __future__ import annotations

from typing import Any

import numpy as np

import sepconv

X = np.random.default_rng(0).standard_normal((2, 6, 7, 5), dtype=np.float32)
WEIGHT = np.random.default_rng(1).standard_normal((3, 3, 5, 1), dtype=np.float32)
WANT = sepconv.depthwise_conv2d(X, WEIGHT, padding=1)


def call(x: Any, **more: Any) -> Any:
    return sepconv.depthwise_conv2d(x, WEIGHT, padding=1, **more)


def copied() -> dict[str, str]:
    record = sepconv.last_call()
    assert record is not None
    return record.copied
