"""Arguments of the operators that claim more than there is: repeated arrays, and the core's own checks of calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sepconv
from sepconv import _core

X = np.ones((1, 4, 4, 8), np.float32)
NO_PADDING = ((0, 0), (0, 0))


def claim(*shape: int) -> np.ndarray[Any, Any]:
    """One number, repeated."""
    return np.broadcast_to(np.float32(1), shape)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "shape", [(2**20, 2**20, 2**20, 1), (2**20, 2**20, 8, 2**15), (3, 3, 8, 2**24), (3, 3, 8, 2**40), (2**30, 1, 8, 1)]
)
def test_weights_that_claim_more_than_there_is_memory_are_refused(shape: tuple[int, ...], threads: int) -> None:
    with pytest.raises(ValueError, match=r"weight.* must be between 1 and"):
        sepconv.conv2d(X, claim(*shape), threads=threads)


def test_weights_of_blocks_are_named_by_their_argument() -> None:
    depthwise = np.ones((3, 3, 8, 1), np.float32)
    with pytest.raises(ValueError, match="a dimension of pointwise_weight was 4294967296, must be"):
        sepconv.separable_conv2d(X, depthwise, claim(1, 1, 8, 2**32))
    with pytest.raises(ValueError, match="a dimension of depthwise_weight was 8589934592, must be"):
        sepconv.separable_conv2d(X, claim(3, 3, 8, 2**30), claim(1, 1, 8, 8))


STAGE = ((1, 1), NO_PADDING, (1, 1), "none")


def weights(kind: str, *shape: int, groups: int = 1) -> _core.Weights:
    return _core.Weights(kind, np.ones(shape, np.float32), None, groups)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"stride": (0, 1)}, "stride was 0, must"),
        ({"stride": (1, -1)}, "stride was -1, must"),
        ({"dilation": (1, 0)}, "dilation was 0, must"),
        ({"dilation": (2**31 - 1, 1)}, "dilation was 2147483647, must"),
        ({"padding": ((-1, 0), (0, 0))}, "padding was -1, must"),
        ({"padding": ((0, 0), (0, 2**31 - 1))}, "padding was 2147483647, must"),
        ({"dilation": (2, 1)}, "height of the window was 5, must"),
        ({"shape": (4, 4, 7)}, "channels of weight was 8, must be between 7 and 7"),
        ({"shape": (0, 4, 8)}, "dimension of an image was 0, must"),
        ({"shape": (2**20, 2**20, 8)}, "elements of an image was 8796093022208, must"),
        ({"count": 0}, "number of stages was 0, must"),
        ({"count": 2}, "the last but one must"),
        ({"count": 4}, "number of stages was 4, must"),
    ],
)
def test_the_core_refuses_stages_that_do_not_fit(changes: dict[str, Any], match: str) -> None:
    convolution = weights("conv", 3, 3, 8, 8)
    stride, dilation = changes.get("stride", (1, 1)), changes.get("dilation", (1, 1))
    stage = (convolution, stride, changes.get("padding", NO_PADDING), dilation, "none")
    with pytest.raises(ValueError, match=match):
        _core.Block(changes.get("shape", (4, 4, 8)), [stage] * changes.get("count", 1))


def test_the_core_refuses_stages_in_another_order() -> None:
    depthwise, pointwise = weights("depthwise", 3, 3, 8, 1), weights("pointwise", 1, 1, 8, 8)
    _core.Block((4, 4, 8), [(depthwise, *STAGE), (pointwise, *STAGE)])
    for order in ((pointwise, depthwise), (pointwise, pointwise), (depthwise, pointwise, pointwise)):
        with pytest.raises(ValueError, match="the last but one must have the window"):
            _core.Block((4, 4, 8), [(w, *STAGE) for w in order])
    with pytest.raises(ValueError, match="must have none"):
        _core.Block((4, 4, 8), [(pointwise, (2, 2), NO_PADDING, (1, 1), "none")])


@pytest.mark.parametrize(
    ("kind", "shape", "groups", "match"),
    [
        ("pointwise", (3, 3, 8, 8), 1, "window of weight was 3, must"),
        ("depthwise", (3, 3, 8, 2), 1, "last dimension was 2, must"),
        ("depthwise", (3, 3, 8, 1), 2, "groups was 2, must"),
        ("conv", (3, 3, 8, 8), 3, "groups was 3, must divide the 8 outputs"),
        ("conv", (3, 3, 8, 8), -1, "groups was -1, must"),
    ],
)
def test_the_core_refuses_weights_of_another_kind(kind: str, shape: tuple[int, ...], groups: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        weights(kind, *shape, groups=groups)
