"""The layer list in torch: channels_last or not, BatchNorm folded, torch's own functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sepconv.export.arrays import float32, folded_channels_first, fully_connected
from sepconv.graph import (
    Activation,
    Add,
    AveragePool2d,
    ChannelShuffle,
    ChannelSlice,
    Concat,
    Convolution,
    FullyConnected,
    GlobalAveragePool,
    Input,
    Layer,
    LayerNorm,
    MaxPool2d,
    Mul,
    Pad,
    Padding,
    PRelu,
    Reshape,
    Softmax,
    Upsample,
    infer_shapes,
)

Tensor = Any  # torch.Tensor, of a package that need not be there
Step = Callable[[list[Tensor]], Tensor]


class TorchNetwork:
    """Call it with a tensor [n, c, h, w]; gives the results of the layers that ``outputs`` names."""

    def __init__(self, layers: Sequence[Layer], outputs: Sequence[str], channels_last: bool = True) -> None:
        import torch

        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._torch: Any = torch
        self._functional: Any = torch.nn.functional
        shapes = infer_shapes(layers)
        self._outputs = tuple(outputs)
        self._steps = [
            (layer.name, layer.inputs, self._step(layer, [shapes[name] for name in layer.inputs]))
            for layer in layers
            if not isinstance(layer, Input)
        ]
        self._input = next(layer.name for layer in layers if isinstance(layer, Input))

    def __call__(self, x: Tensor) -> list[Tensor]:
        values = {self._input: x}
        with self._torch.inference_mode():
            for name, inputs, step in self._steps:
                values[name] = step([values[value] for value in inputs])
        return [values[name] for name in self._outputs]

    def _step(self, layer: Layer, shapes: list[Any]) -> Step:
        torch, functional = self._torch, self._functional
        match layer:
            case Convolution():
                return self._convolution(layer)
            case FullyConnected():
                weight, bias = (torch.from_numpy(array) for array in fully_connected(layer, shapes[0]))
                act = self._activation(layer.activation)
                return lambda x: act(functional.linear(x[0].flatten(1), weight, bias)[:, :, None, None])
            case Add():
                act = self._activation(layer.activation)
                return lambda x: act(x[0] + x[1])
            case Mul():
                act = self._activation(layer.activation)
                return lambda x: act(x[0] * x[1])
            case AveragePool2d() | MaxPool2d():
                return self._pool(layer)
            case GlobalAveragePool():
                return lambda x: x[0].mean((2, 3), keepdim=True)
            case Activation():
                act = self._activation(layer.activation, inplace=False)
                return lambda x: act(x[0])
            case Softmax():
                return lambda x: torch.softmax(layer.beta * x[0], 1)
            case PRelu():
                slope = torch.from_numpy(float32(layer.slope))
                return lambda x: functional.prelu(x[0], slope)
            case LayerNorm():
                return self._layer_norm(layer, shapes[0][2])
            case Reshape():
                h, w, c = layer.shape
                return lambda x: x[0].permute(0, 2, 3, 1).reshape(-1, h, w, c).permute(0, 3, 1, 2)
            case Pad():
                return lambda x: functional.pad(x[0], _torch_pads(layer.padding))
            case Concat():
                return lambda x: torch.cat(x, 1)
            case ChannelSlice():
                return lambda x: x[0][:, layer.begin : layer.end]
            case ChannelShuffle():
                return lambda x: functional.channel_shuffle(x[0], layer.groups)
            case Upsample():
                return lambda x: functional.interpolate(x[0], layer.size)
        raise TypeError(f"layer {layer.name!r} is a {type(layer).__name__}, must be one of the layers of sepconv.graph")

    def _convolution(self, layer: Convolution) -> Step:
        torch, functional = self._torch, self._functional
        kernel, offsets, groups = folded_channels_first(layer)
        weight = torch.from_numpy(kernel).contiguous(memory_format=self._format)
        bias = torch.from_numpy(offsets)
        act = self._activation(layer.activation)
        pads, both = _torch_pads(layer.padding), _symmetric(layer.padding)

        def step(x: list[Tensor]) -> Tensor:
            padded = x[0] if both is not None else functional.pad(x[0], pads)
            return act(functional.conv2d(padded, weight, bias, layer.stride, both or (0, 0), layer.dilation, groups))

        return step

    def _pool(self, layer: AveragePool2d | MaxPool2d) -> Step:
        torch, functional = self._torch, self._functional
        act = self._activation(layer.activation)
        pads = _torch_pads(layer.padding)
        if isinstance(layer, MaxPool2d):
            outside = float("-inf")
            return lambda x: act(
                functional.max_pool2d(functional.pad(x[0], pads, value=outside), layer.kernel, layer.stride)
            )

        def step(x: list[Tensor]) -> Tensor:
            means = functional.avg_pool2d(functional.pad(x[0], pads), layer.kernel, layer.stride)
            if not layer.include_padding:
                ones = functional.pad(torch.ones_like(x[0][:1, :1]), pads)
                means = means / functional.avg_pool2d(ones, layer.kernel, layer.stride)
            return act(means)

        return step

    def _layer_norm(self, layer: LayerNorm, channels: int) -> Step:
        torch, functional = self._torch, self._functional
        scale, bias = (None if a is None else torch.from_numpy(float32(a)) for a in (layer.scale, layer.bias))

        def step(x: list[Tensor]) -> Tensor:
            pixels = x[0].permute(0, 2, 3, 1)
            return functional.layer_norm(pixels, (channels,), scale, bias, layer.epsilon).permute(0, 3, 1, 2)

        return step

    def _activation(self, name: str, inplace: bool = True) -> Callable[[Tensor], Tensor]:
        """In place where the value before it has no other reader."""
        functional = self._functional
        functions: dict[str, Callable[[Tensor], Tensor]] = {
            "none": lambda x: x,
            "relu": lambda x: functional.relu(x, inplace=inplace),
            "relu6": lambda x: functional.relu6(x, inplace=inplace),
            "hard_swish": lambda x: functional.hardswish(x, inplace=inplace),
            "hard_sigmoid": lambda x: functional.hardsigmoid(x, inplace=inplace),
            "sigmoid": self._torch.sigmoid,
            "silu": lambda x: functional.silu(x, inplace=inplace),
            "gelu": functional.gelu,
            "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
        }
        return functions[name]


def to_torch(x: np.ndarray[Any, Any], channels_last: bool = True) -> Tensor:
    """A channels_last tensor [n, c, h, w] over the memory of an array [n, h, w, c]; else a contiguous copy."""
    import torch

    tensor = torch.from_numpy(float32(x)).permute(0, 3, 1, 2)
    return tensor if channels_last else tensor.contiguous()


def _torch_pads(padding: Padding) -> tuple[int, int, int, int]:
    (top, bottom), (left, right) = padding
    return (left, right, top, bottom)


def _symmetric(padding: Padding) -> tuple[int, int] | None:
    (top, bottom), (left, right) = padding
    return (top, left) if top == bottom and left == right else None
