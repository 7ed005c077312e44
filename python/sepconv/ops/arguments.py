"""The arguments that the operators share, checked: windows, names, groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, SupportsIndex, get_args

from sepconv import _core
from sepconv.graph import ActivationName, Padding, Pair, same_padding
from sepconv.graph.base import is_integer

Layout = Literal["NHWC", "NCHW"]
# One size for both axes or (height, width); integers of Python's or numpy's, pairs as tuples or lists.
PairLike = SupportsIndex | Sequence[SupportsIndex]
# One size for all sides, (height, width), ((top, bottom), (left, right)), or the rule's name.
PaddingLike = SupportsIndex | Sequence[SupportsIndex | Sequence[SupportsIndex]] | Literal["valid", "same", "same_lower"]

MAX_SIZE = 1 << 20  # of a window, stride, dilation or padding
LAYOUTS = get_args(Layout)
ACTIVATIONS = get_args(ActivationName)


@dataclass(frozen=True)
class Window:
    """Where a convolution looks: all of it settled, for one size of image."""

    kernel: Pair
    stride: Pair
    padding: Padding
    dilation: Pair
    out: Pair  # height and width of the output


def window(size: Pair, kernel: Pair, stride: Any, padding: Any, dilation: Any) -> Window:
    """The window over an image of ``size``. Raises TypeError and ValueError that name the argument."""
    given = (stride, padding, dilation)
    try:
        known, checked = _known_window(size, kernel, *given)
    except TypeError:  # a list cannot be looked up; and the message must come from the check itself
        return _window(size, kernel, *given)
    # The cache tells 1 from True, but not (1, 1) from (1, True).
    if tuple in map(type, given) and not _core.same_types(given, checked):
        return _window(size, kernel, *given)
    return known


@lru_cache(maxsize=256, typed=True)
def _known_window(size: Pair, kernel: Pair, *given: Any) -> tuple[Window, Any]:
    return _window(size, kernel, *given), given


def _window(size: Pair, kernel: Pair, stride: Any, padding: Any, dilation: Any) -> Window:
    strides, dilations = pair("stride", stride), pair("dilation", dilation)
    sides = _padding(padding, size, kernel, strides, dilations)
    out = []
    for axis, name in enumerate(("height", "width")):
        extent = (kernel[axis] - 1) * dilations[axis] + 1
        padded = size[axis] + sum(sides[axis])
        if extent > padded:
            raise ValueError(
                f"weight spans a {name} of {extent} with its dilation, must be at most x's with padding, {padded}"
            )
        out.append((padded - extent) // strides[axis] + 1)
    return Window(kernel, strides, sides, dilations, (out[0], out[1]))


def pair(argument: str, value: Any) -> Pair:
    """(height, width) of an int or a pair of them, each at least 1."""
    values = (value, value) if is_integer(value) else value
    if not _is_pair(values) or not all(map(is_integer, values)):
        raise TypeError(f"{argument} was {value!r}, must be an int or a pair of ints")
    if not all(1 <= n <= MAX_SIZE for n in values):
        raise ValueError(f"{argument} was {value!r}, must be between 1 and {MAX_SIZE}")
    return int(values[0]), int(values[1])


def _padding(value: Any, size: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> Padding:
    if isinstance(value, str):
        rule = value.lower()
        if rule == "valid":
            return (0, 0), (0, 0)
        if rule not in ("same", "same_lower"):
            raise ValueError(f"padding was {value!r}, must be 'valid', 'same', 'same_lower' or numbers")
        sides = [same_padding(*axis) for axis in zip(size, kernel, stride, dilation, strict=True)]
        if rule == "same_lower":
            sides = [(after, before) for before, after in sides]
        return sides[0], sides[1]
    return padding_sides(value)


def padding_sides(value: Any) -> Padding:
    """((top, bottom), (left, right)) of an int, a pair of them, or such pairs, each at least 0."""
    values = (value, value) if is_integer(value) else value
    if not _is_pair(values):
        raise TypeError(
            f"padding was {value!r}, must be an int, a pair, ((top, bottom), (left, right)) or a rule's name"
        )
    sides = []
    for side in values:
        both = (side, side) if is_integer(side) else side
        if not _is_pair(both) or not all(map(is_integer, both)):
            raise TypeError(
                f"padding was {value!r}, must be an int, a pair, ((top, bottom), (left, right)) or a rule's name"
            )
        if not all(0 <= n <= MAX_SIZE for n in both):
            raise ValueError(f"padding was {value!r}, must be between 0 and {MAX_SIZE}")
        sides.append((int(both[0]), int(both[1])))
    return sides[0], sides[1]


def check_layout(layout: Any) -> None:
    """ValueError unless it is one of LAYOUTS."""
    if not isinstance(layout, str) or layout not in LAYOUTS:
        raise ValueError(f"layout was {layout!r}, must be 'NHWC' or 'NCHW'")


def check_activation(argument: str, activation: Any) -> None:
    """ValueError unless it is one of ACTIVATIONS."""
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise ValueError(f"{argument} was {activation!r}, must be one of {', '.join(ACTIVATIONS)}")


def check_groups(groups: Any) -> None:
    """TypeError unless it is an int."""
    if type(groups) is not int and not is_integer(groups):
        raise TypeError(f"groups was {groups!r}, must be an int")


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2
