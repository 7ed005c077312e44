"""Model.__call__ in one call into the core: what it gives, or raises, is that of the way through ``prepared``."""

from __future__ import annotations

import copy
import enum
import sys
import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_model import small_layers, unaligned

from sepconv.model import Model

Array = Any
SHAPE = (2, 5, 6, 3)
MODELS = [Model(small_layers(), name="small", outputs=[output]) for output in ("logits", "conv")]


def the_long_way(model: Model) -> Model:
    model = copy.copy(model)
    model._plan = SimpleNamespace(call=lambda *_: None, run=model._plan.run)  # type: ignore[assignment]
    return model


PAIRS = [(model, the_long_way(model)) for model in MODELS]


class Subclass(np.ndarray[Any, Any]):
    pass


class Two(enum.IntEnum):
    two = 2


def odd_strides(x: Array) -> Array:
    """The first image, whose batch of one has a stride that no number of floats makes."""
    return np.lib.stride_tricks.as_strided(x, (1, *x.shape[1:]), (7, *x.strides[1:]))


CHANGES: list[Callable[[Array], Any]] = [
    lambda x: x,
    lambda x: x.view(Subclass),
    np.ma.masked_array,
    lambda x: x.view(np.recarray),
    lambda x: x.view(np.dtype(np.float32, metadata={"unit": "m"})),
    lambda x: x.view(x.dtype.newbyteorder()),
    lambda x: x.view([("value", np.float32)]),
    lambda x: x.view(np.int32),
    lambda x: x.astype(np.float64),
    np.asfortranarray,
    lambda x: x[::-1],
    lambda x: x[:0],
    lambda x: x[0],
    lambda x: x[..., :2],
    lambda x: np.broadcast_to(x[:1], x.shape),
    lambda x: x.tolist(),
    memoryview,
    odd_strides,
    unaligned,
]
COUNTS = [None, 1, 2, 1024, 0, -1, 1025, 2**70, -(2**70)]
OTHERS: list[Any] = [True, np.True_, np.int64(2), np.uint8(0), Two.two, 2.0, "2", []]


def outcome(model: Model, x: Any, threads: Any) -> Any:
    try:
        result = model(x, threads=threads)
    except (TypeError, ValueError) as error:
        return type(error), str(error)
    flags = {name: result.flags[name] for name in ("C", "F", "W", "A", "X")}
    return type(result), result.dtype, result.shape, result.strides, flags, result.tobytes()


@given(st.sampled_from(PAIRS), st.sampled_from(CHANGES), st.sampled_from(COUNTS + OTHERS), st.booleans())
def test_both_ways_give_the_same(
    pair: tuple[Model, Model], change: Callable[[Array], Any], threads: Any, writable: bool
) -> None:
    x = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    x.flags.writeable = writable
    quick, slow = (outcome(model, change(x), threads) for model in pair)
    assert quick == slow


def test_a_plain_call_is_one_into_the_core() -> None:
    """Else both ways are the long one."""
    model = copy.copy(MODELS[0])
    model._plan = SimpleNamespace(call=model._plan.call)  # type: ignore[assignment]
    assert model(np.ones(SHAPE, np.float32)).shape == (2, 4)


@pytest.mark.parametrize("threads", [1, 0])
def test_calls_keep_nothing(threads: int) -> None:
    x = np.ones(SHAPE, np.float32)
    outcome(MODELS[0], x, threads)
    references = sys.getrefcount(x)
    tracemalloc.start()
    try:
        outcome(MODELS[0], x, threads)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(300):
            outcome(MODELS[0], x, threads)
        assert tracemalloc.get_traced_memory()[0] - before < 300 * 16
    finally:
        tracemalloc.stop()
    assert sys.getrefcount(x) == references
