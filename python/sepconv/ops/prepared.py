"""Weights packed once, to be used by many calls."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sepconv import _core
from sepconv.graph.base import Pair, is_choice

from .arguments import Layout, check_groups, check_layout
from .arrays import as_float32, take

Kind = Literal["depthwise", "pointwise", "conv"]
KINDS = get_args(Kind)


class Prepared:
    """Weights and bias of one convolution, copied and packed for the kernels; made by :func:`sepconv.prepare`.

    Later changes of the arrays that they came from have no effect. May be shared between threads, and pickled.

    Attributes:
        kind: "depthwise", "pointwise" or "conv".
        kernel: height and width of the window.
        channels: of the input; None for depthwise weights in layout "NCHW", which do not tell.
        outputs: channels of the output.
        groups: of a convolution.
    """

    def __init__(
        self,
        kind: Kind,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        channels: int | None,
        groups: int,
        pixels: int = 0,
    ) -> None:
        """``weight``: aligned, dense [kh, kw, C/groups, N], depthwise [kh, kw, C·M, 1].

        ``pixels``: of the only call that they serve, which may pack them bit by bit; 0 where there may be others.
        """
        self.kind: Kind = kind
        self.kernel: Pair = (weight.shape[0], weight.shape[1])
        self.channels = channels
        self.outputs: int = weight.shape[2] if kind == "depthwise" else weight.shape[3]
        self.groups = groups
        self._weight = weight
        self._bias = bias
        self.packed = _core.Weights(kind, weight, bias, groups, pixels)
        # What calls with these weights went through: kept, so that the next call like it need not be checked.
        self.blocks: dict[Any, _core.Block] = {}
        self.calls: dict[Any, Any] = {}

    def may_share_memory(self, array: NDArray[Any]) -> bool:
        """Whether ``array`` may lie where these weights came from, which a call may pack bit by bit."""
        return np.may_share_memory(array, self._weight)

    def __repr__(self) -> str:
        kh, kw = self.kernel
        return f"<{self.kind} weights {kh}x{kw}, {self.channels or '?'} -> {self.outputs} channels>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Prepared, (self.kind, self._weight, self._bias, self.channels, self.groups)


def prepare(weight: Any, kind: Kind, bias: Any = None, *, layout: Layout = "NHWC", groups: int = 1) -> Prepared:
    """Pack weights once, so that no later call does: pass the result in the weight's place, and no bias.

    Args:
        weight: any array that the functions take, float32, float16, bfloat16 or float64, in the shape that they take:
            depthwise [kh, kw, C, M] in "NHWC", [C·M, 1, kh, kw] in "NCHW"; pointwise [1, 1, C, N] or [N, C, 1, 1];
            conv [kh, kw, C/groups, N] or [N, C/groups, kh, kw].
        kind: "depthwise" for :func:`depthwise_conv2d` and the middle of blocks, "pointwise" for
            :func:`pointwise_conv2d` and the ends of blocks, "conv" for :func:`conv2d`.
        bias: one a channel of the output, or None.
        layout: of the weights alone: prepared weights serve calls of both layouts.
        groups: of a convolution; 1 for the other kinds.

    Raises:
        ValueError, TypeError: an argument is not what it must be; the message names it.
    """
    if not is_choice(kind, KINDS):
        raise ValueError(f"kind was {kind!r}, must be one of {', '.join(KINDS)}")
    check_layout(layout)
    packed = pack("weight", weight, kind, "bias", bias, layout, groups)
    # Copies, for pickling: later changes of the caller's arrays must not come through.
    packed._weight = packed._weight.copy()
    packed._bias = None if packed._bias is None else packed._bias.copy()
    return packed


def prepared(
    argument: str,
    weight: Any,
    kind: Kind,
    bias_argument: str,
    bias: Any,
    layout: Layout,
    groups: int = 1,
    pixels: int = 0,
) -> Prepared:
    """``weight`` where it is prepared, which is checked, else packed for a call of so many pixels."""
    if not isinstance(weight, Prepared):
        return pack(argument, weight, kind, bias_argument, bias, layout, groups, pixels)
    if weight.kind != kind:
        raise ValueError(f"{argument} was prepared as {weight.kind!r}, must be as {kind!r}")
    if bias is not None:
        raise ValueError(f"{bias_argument} was given beside a prepared {argument}, must be given to prepare()")
    check_groups(groups)
    if weight.groups != groups:
        raise ValueError(f"groups was {groups}, must be {weight.groups}, as {argument} was prepared")
    return weight


def pack(
    argument: str,
    weight: Any,
    kind: Kind,
    bias_argument: str,
    bias: Any,
    layout: Layout,
    groups: int = 1,
    pixels: int = 0,
) -> Prepared:
    """Prepared weights of an array. Raises TypeError and ValueError that name the argument."""
    array = take(argument, weight).values
    shapes = {
        "depthwise": ("[kh, kw, C, M]", "[C*M, 1, kh, kw]"),
        "pointwise": ("[1, 1, C, N]", "[N, C, 1, 1]"),
        "conv": ("[kh, kw, C/groups, N]", "[N, C/groups, kh, kw]"),
    }
    must_be = f"must be {shapes[kind][layout == 'NCHW']} in layout {layout}"
    if array.ndim != 4 or 0 in array.shape:
        raise ValueError(f"{argument} had shape {array.shape}, {must_be}")
    if layout == "NCHW":
        array = array.transpose(2, 3, 1, 0)
    kh, kw, inputs, outputs = array.shape
    channels: int | None = inputs
    if kind == "depthwise":
        if layout == "NCHW":
            if inputs != 1:
                raise ValueError(f"{argument} had shape {(outputs, inputs, kh, kw)}, {must_be}")
            channels = None
            array = array.transpose(0, 1, 3, 2)
        else:
            array = array.reshape(kh, kw, inputs * outputs, 1)
        outputs = array.shape[2]
    elif kind == "pointwise" and (kh, kw) != (1, 1):
        raise ValueError(f"{argument} had a window of {kh}x{kw}, {must_be}")
    check_groups(groups)
    if groups < 1 or (kind != "conv" and groups != 1) or (kind == "conv" and outputs % groups):
        raise ValueError(f"groups was {groups}, must be a divisor of {argument}'s {outputs} outputs (1 but for conv)")
    if kind == "conv":
        channels = inputs * int(groups)
    values, shift = as_float32(array), _bias(bias_argument, bias, outputs)
    try:
        return Prepared(kind, values, shift, channels, int(groups), pixels)
    except ValueError as error:  # of the core's, which calls every weight so
        raise ValueError(str(error).replace("weight", argument)) from None


def _bias(argument: str, bias: Any, outputs: int) -> NDArray[np.float32] | None:
    if bias is None:
        return None
    values = take(argument, bias).values
    if values.shape != (outputs,):
        raise ValueError(
            f"{argument} had shape {values.shape}, must have one value for each output channel: ({outputs},)"
        )
    return np.ascontiguousarray(as_float32(values))
