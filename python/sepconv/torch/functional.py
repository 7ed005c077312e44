"""sepconv's convolutions as functions of tensors, with gradients: ``torch.ops.sepconv.*`` with defaults and pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import forward_ad

from sepconv.torch import library  # noqa: F401 - registers the operators

Tensor = Any
PairLike = int | Sequence[int]
PaddingLike = int | Sequence[Any] | str


def depthwise_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: PairLike = 1,
    padding: PaddingLike = 0,
    dilation: PairLike = 1,
) -> Tensor:
    """As ``torch.nn.functional.conv2d(x, weight, bias, stride, padding, dilation, groups=C)``.

    Args:
        x: [n, C, h, w] of float32; float16 and bfloat16 are computed in float32, float64 on the slow oracles.
        weight: [C*M, 1, kh, kw]. Output channel c*M + m is channel c with filter m. bias: [C*M] or None.
        stride, dilation: an int or (height, width).
        padding: zeros: an int, (height, width), ((top, bottom), (left, right)), "valid", or "same" as torch has it.

    Returns:
        [n, C*M, oh, ow], channels_last where x is. On ``torch.get_num_threads()`` threads, the same bits at any number.

    Under ``torch.autocast`` tensors of any of these types may come together, and the result is float32.

    Raises:
        TypeError: tensors are not all of one floating type.
        NotImplementedError: a derivative in forward mode is asked for: only reverse mode has gradients.
        ValueError: shapes do not fit together, or a value is out of its range.
    """
    _no_tangents(x, weight, bias)
    window = _window(stride, padding, dilation, weight)
    return torch.ops.sepconv.depthwise_conv2d(x, weight, bias, *window)


def pointwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As ``torch.nn.functional.conv2d(x, weight, bias)`` with weight [N, C, 1, 1]; see :func:`depthwise_conv2d`."""
    _no_tangents(x, weight, bias)
    return torch.ops.sepconv.pointwise_conv2d(x, weight, bias)


def separable_conv2d(
    x: Tensor,
    depthwise_weight: Tensor,
    pointwise_weight: Tensor,
    depthwise_bias: Tensor | None = None,
    pointwise_bias: Tensor | None = None,
    *,
    stride: PairLike = 1,
    padding: PaddingLike = 0,
    dilation: PairLike = 1,
    middle_activation: str = "none",
    activation: str = "none",
    residual: Tensor | None = None,
) -> Tensor:
    """Depthwise convolution, activation, pointwise convolution, residual, activation, in one.

    What lies in the middle never leaves the caches, and is computed again for the gradient rather than kept.

    Args:
        x, depthwise_weight, depthwise_bias, stride, padding, dilation: as for :func:`depthwise_conv2d`.
        pointwise_weight: [N, C*M, 1, 1]. pointwise_bias: [N] or None.
        middle_activation, activation: "none", "relu", "relu6", "hard_swish", "hard_sigmoid", "sigmoid" or "silu".
        residual: None, or a tensor of the result's shape that is added before the last activation.

    Returns, raises:
        As :func:`depthwise_conv2d`, with N channels.
    """
    _no_tangents(x, depthwise_weight, pointwise_weight, depthwise_bias, pointwise_bias, residual)
    window = _window(stride, padding, dilation, depthwise_weight)
    return torch.ops.sepconv.separable_conv2d(
        x,
        depthwise_weight,
        depthwise_bias,
        pointwise_weight,
        pointwise_bias,
        residual,
        *window,
        middle_activation,
        activation,
    )


def _no_tangents(*tensors: Tensor | None) -> None:
    """NotImplementedError for derivatives in forward mode, which torch would take for zero in operators like these."""
    if forward_ad._current_level < 0:
        return
    if any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors if tensor is not None):
        raise NotImplementedError("a tensor had a tangent: sepconv has gradients in reverse mode, none in forward mode")


def _window(
    stride: PairLike, padding: PaddingLike, dilation: PairLike, weight: Tensor
) -> tuple[list[int], list[int], list[int]]:
    strides, dilations = _pair("stride", stride), _pair("dilation", dilation)
    if padding == "valid":
        return strides, [0, 0, 0, 0], dilations
    if padding == "same":
        if strides != [1, 1]:
            raise ValueError(f"stride was {stride}, must be 1 for padding 'same'")
        total = [(weight.shape[2 + axis] - 1) * dilations[axis] for axis in (0, 1)]
        return strides, [total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2], dilations
    if isinstance(padding, Sequence) and len(padding) == 2 and all(isinstance(side, Sequence) for side in padding):
        return strides, [*_pair("padding", padding[0]), *_pair("padding", padding[1])], dilations
    vertical, horizontal = _pair("padding", padding)
    return strides, [vertical, vertical, horizontal, horizontal], dilations


def _pair(name: str, value: Any) -> list[int]:
    if isinstance(value, int) and not isinstance(value, bool):
        return [value, value]
    if isinstance(value, Sequence) and len(value) == 2 and all(isinstance(n, int) for n in value):
        return list(value)
    raise ValueError(f"{name} was {value!r}, must be an int or a pair of them")
