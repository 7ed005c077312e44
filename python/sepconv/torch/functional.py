"""sepconv's convolutions as functions of tensors, with gradients: ``torch.ops.sepconv.*`` with defaults and pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sepconv.ops.arguments import check_activation, padding_sides, pair
from sepconv.torch import library  # noqa: F401 - registers the operators
from sepconv.torch.arithmetic import same_sides
from sepconv.torch.forward_mode import check_tangents

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
        TypeError: tensors are not all of one floating type, or an argument is of the wrong kind.
        NotImplementedError: a derivative in forward mode is asked for: only reverse mode has gradients.
        ValueError: shapes do not fit together, or a value is out of its range.
    """
    _check_tensors(x=x, weight=weight, bias=bias)
    window = _window(stride, padding, dilation, weight=weight)
    return torch.ops.sepconv.depthwise_conv2d(x, weight, bias, *window)


def pointwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As ``torch.nn.functional.conv2d(x, weight, bias)`` with weight [N, C, 1, 1]; see :func:`depthwise_conv2d`."""
    _check_tensors(x=x, weight=weight, bias=bias)
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
        middle_activation, activation: "none", "relu", "relu6", "hard_swish", "hard_sigmoid", "sigmoid", "silu",
            "gelu" or "gelu_tanh".
        residual: None, or a tensor of the result's shape that is added before the last activation.

    Returns, raises:
        As :func:`depthwise_conv2d`, with N channels.
    """
    _check_tensors(
        x=x,
        depthwise_weight=depthwise_weight,
        pointwise_weight=pointwise_weight,
        depthwise_bias=depthwise_bias,
        pointwise_bias=pointwise_bias,
        residual=residual,
    )
    check_activation("middle_activation", middle_activation)
    check_activation("activation", activation)
    window = _window(stride, padding, dilation, depthwise_weight=depthwise_weight)
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


def _check_tensors(**tensors: Any) -> None:
    """TypeError unless these are tensors, or what torch takes for them; biases and residuals may be None."""
    for name, tensor in tensors.items():
        optional = name.endswith(("bias", "residual"))
        if not hasattr(type(tensor), "__torch_function__") and not (optional and tensor is None):
            must = "torch.Tensor or None" if optional else "torch.Tensor"
            raise TypeError(f"{name} was a {type(tensor).__name__}, must be a {must}")
    check_tangents(tensors.values())


def _window(
    stride: PairLike, padding: PaddingLike, dilation: PairLike, **weights: Tensor
) -> tuple[list[int], list[int], list[int]]:
    strides, dilations = list(pair("stride", stride)), list(pair("dilation", dilation))
    if padding == "valid":
        return strides, [0, 0, 0, 0], dilations
    if padding == "same":
        if strides != [1, 1]:
            raise ValueError(f"stride was {stride}, must be 1 for padding 'same'")
        ((name, weight),) = weights.items()
        if issubclass(type(weight), torch.Tensor) and weight.dim() != 4:
            raise ValueError(f"{name} had {weight.dim()} dimensions, must have 4")
        vertical, horizontal = same_sides((weight.shape[2], weight.shape[3]), dilations)
    elif isinstance(padding, str):
        raise ValueError(f"padding was {padding!r}, must be 'valid', 'same' or numbers")
    else:
        vertical, horizontal = padding_sides(padding)
    return strides, [*vertical, *horizontal], dilations
