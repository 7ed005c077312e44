"""Modules on sepconv's convolutions, for training and inference. Parameters are named and laid out as torch's own."""

from __future__ import annotations

from typing import Any

from torch import nn

from sepconv.graph.base import is_integer
from sepconv.ops.arguments import check_activation
from sepconv.torch.arithmetic import same_sides
from sepconv.torch.functional import PaddingLike, PairLike, depthwise_conv2d, pointwise_conv2d, separable_conv2d
from sepconv.torch.parse import ACTIVATIONS
from sepconv.torch.watched import hooked

Tensor = Any


class DepthwiseConv2d(nn.Conv2d):
    """``nn.Conv2d(channels, channels * multiplier, kernel_size, ..., groups=channels)``, run by sepconv.

    Args:
        channels, multiplier: channels of the input, and output channels for each of them.
        kernel_size, stride, padding, dilation, bias: as of ``nn.Conv2d``.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: PairLike = 3,
        *,
        multiplier: int = 1,
        stride: PairLike = 1,
        padding: PaddingLike = 0,
        dilation: PairLike = 1,
        bias: bool = True,
    ) -> None:
        outputs = channels * multiplier
        super().__init__(channels, outputs, kernel_size, stride, padding, dilation, groups=channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[n, C*M, oh, ow] of x [n, C, h, w]; see :func:`sepconv.torch.depthwise_conv2d`."""
        return depthwise_conv2d(
            x, self.weight, self.bias, stride=self.stride, padding=_padding(self), dilation=self.dilation
        )


class PointwiseConv2d(nn.Conv2d):
    """``nn.Conv2d(channels, outputs, 1)``, run by sepconv."""

    def __init__(self, channels: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__(channels, outputs, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[n, N, h, w] of x [n, C, h, w]; see :func:`sepconv.torch.pointwise_conv2d`."""
        return pointwise_conv2d(x, self.weight, self.bias)


class SeparableConv2d(nn.Module):
    """Depthwise, then pointwise convolution in one operator, with activations and a residual.

    Its parameters are those of two convolutions: ``depthwise.weight`` [C*M, 1, kh, kw], ``depthwise.bias`` [C*M],
    ``pointwise.weight`` [N, C*M, 1, 1], ``pointwise.bias`` [N], initialised as ``nn.Conv2d`` initialises them. So a
    ``state_dict`` also fits an ``nn.Sequential`` of two ``nn.Conv2d`` named depthwise and pointwise. Where one of the
    two has hooks, which pruning computes its weights in, they are called one after the other, and torch does the rest.

    Args:
        channels, outputs: C and N.
        kernel_size, stride, padding, dilation: of the depthwise convolution, as of ``nn.Conv2d``.
        multiplier: M.
        bias: whether both convolutions have one.
        middle_activation, activation: after the depthwise, after the pointwise convolution; see
            :func:`sepconv.torch.separable_conv2d`.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        kernel_size: PairLike = 3,
        *,
        stride: PairLike = 1,
        padding: PaddingLike = 0,
        dilation: PairLike = 1,
        multiplier: int = 1,
        bias: bool = True,
        middle_activation: str = "none",
        activation: str = "none",
    ) -> None:
        super().__init__()
        check_activation("middle_activation", middle_activation)
        check_activation("activation", activation)
        self.depthwise = DepthwiseConv2d(
            channels,
            kernel_size,
            multiplier=multiplier,
            stride=stride,
            padding=padding,
            dilation=dilation,
            bias=bias,
        )
        self.pointwise = PointwiseConv2d(channels * multiplier, outputs, bias=bias)
        self.middle_activation = middle_activation
        self.activation = activation

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """[n, N, oh, ow] of x [n, C, h, w]; ``residual`` is added before the last activation."""
        first, second = self.depthwise, self.pointwise
        if hooked(first) or hooked(second):
            return self._one_by_one(x, residual)
        return separable_conv2d(
            x,
            first.weight,
            second.weight,
            first.bias,
            second.bias,
            stride=first.stride,
            padding=_padding(first),
            dilation=first.dilation,
            middle_activation=self.middle_activation,
            activation=self.activation,
            residual=residual,
        )

    def _one_by_one(self, x: Tensor, residual: Tensor | None) -> Tensor:
        check_activation("middle_activation", self.middle_activation)
        check_activation("activation", self.activation)
        y = self.pointwise(_activated(self.middle_activation, self.depthwise(x)))
        if residual is None:
            return _activated(self.activation, y)
        if residual.shape != y.shape:
            raise ValueError(f"residual had shape {tuple(residual.shape)}, must have the result's, {tuple(y.shape)}")
        return _activated(self.activation, y + residual)

    def extra_repr(self) -> str:
        return f"middle_activation={self.middle_activation!r}, activation={self.activation!r}"


class InvertedResidual(nn.Module):
    """MobileNet V2's block: expand, depthwise, project, each with BatchNorm, ReLU6 after the first two; plus the input.

    Parameters have torchvision's names, so that its weights load: ``conv.0.0.weight`` [E, C, 1, 1] and ``conv.0.1.*``,
    ``conv.1.0.weight`` [E, 1, kh, kw] and ``conv.1.1.*``, ``conv.2.weight`` [N, E, 1, 1] and ``conv.3.*``; without an
    expansion the first two are not there, and the rest count from 0.

    For inference, :func:`sepconv.torch.optimize` makes one fused step of it.

    Args:
        channels, outputs: C and N. The input is added where they are equal and ``stride`` is 1.
        stride: of the depthwise convolution.
        expansion: E is ``channels * expansion``; 1 for a block that does not expand.
        kernel_size: an odd number; the depthwise convolution is padded by half of it.
    """

    def __init__(
        self, channels: int, outputs: int, *, stride: int = 1, expansion: int = 6, kernel_size: int = 3
    ) -> None:
        super().__init__()
        if not is_integer(kernel_size):
            raise TypeError(f"kernel_size was {kernel_size!r}, must be an odd int")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size was {kernel_size}, must be odd")
        hidden = channels * expansion
        self.residual = stride == 1 and channels == outputs
        expand = [_normed(PointwiseConv2d(channels, hidden, bias=False), hidden)] if expansion != 1 else []
        depthwise = DepthwiseConv2d(hidden, kernel_size, stride=stride, padding=kernel_size // 2, bias=False)
        self.conv = nn.Sequential(
            *expand,
            _normed(depthwise, hidden),
            PointwiseConv2d(hidden, outputs, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[n, N, oh, ow] of x [n, C, h, w]."""
        return x + self.conv(x) if self.residual else self.conv(x)


def _activated(activation: str, x: Tensor) -> Tensor:
    if activation in ("gelu", "gelu_tanh"):
        return nn.functional.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")
    return x if activation == "none" else ACTIVATIONS[activation][0](x)


def _padding(convolution: DepthwiseConv2d) -> PaddingLike:
    """In numbers: a traced module's weight, from whose shape "same" would follow, has none."""
    if convolution.padding != "same":
        padding: PaddingLike = convolution.padding
        return padding
    return same_sides(convolution.kernel_size, convolution.dilation)


def _normed(convolution: nn.Module, channels: int) -> nn.Module:
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU6(inplace=True))
