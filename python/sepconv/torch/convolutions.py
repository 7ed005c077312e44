"""Convolutions, alone or in pairs, and the batch norms that become part of them. See operators.py."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.fx import Node

from sepconv import graph
from sepconv.graph import Padding, Pair
from sepconv.lowering import MAX_GROUPS
from sepconv.torch.arguments import Arguments, only, pair
from sepconv.torch.arithmetic import same_sides
from sepconv.torch.operators import Builder, Operator, Unsupported, Value, Weight, as_image, check


@dataclass(frozen=True)
class Convolve(Operator):
    weight: Weight
    bias: Weight | None
    stride: Pair
    padding: Pair | Padding | str
    dilation: Pair
    groups: int | None  # None: as many as there are channels
    heavy = True

    @property
    def weights(self) -> tuple[Weight, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def lower(self, node: Node, to: Builder, *x: Value) -> Value:
        channels = as_image(x[0]).shape[2]
        weight = to.array(self.weight)
        check(weight.ndim == 4, f"its weight has {weight.ndim} dimensions, not 4")
        outputs, per_group, kh, kw = weight.shape
        common: dict[str, Any] = {
            "name": node.name,
            "inputs": (x[0].layer,),
            "bias": to.optional(self.bias),
            "stride": self.stride,
            "padding": self._padding((kh, kw)),
            "dilation": self.dilation,
        }
        if self.groups == 1:
            return to.add(graph.Conv2d(weight=weight.transpose(2, 3, 1, 0), **common), x[0])
        self.check_groups(per_group)
        if per_group > 1:
            return self._grouped(node, weight, common, to, x[0])
        check(self.groups in (channels, None), f"groups is {self.groups} for {channels} channels")
        check(outputs % channels == 0, f"its {outputs} outputs are no multiple of its {channels} channels")
        spread = weight.reshape(channels, outputs // channels, kh, kw).transpose(2, 3, 0, 1)
        return to.add(graph.DepthwiseConv2d(weight=spread, **common), x[0])

    def check_groups(self, inner: int) -> None:
        """Unsupported where groups of ``inner`` channels are neither single channels nor few.

        Few, of two channels or more, took 0.3 to 1.2 of the time of torch's own convolution, on AVX2.
        """
        fits = inner == 1 or (self.groups is not None and self.groups <= MAX_GROUPS)
        check(fits, f"it has {self.groups} groups of {inner} channels, more than {MAX_GROUPS}")

    def _grouped(self, node: Node, weight: Any, common: dict[str, Any], to: Builder, x: Value) -> Value:
        """One convolution for each group's channels, and their results joined."""
        groups, (outputs, inner) = self.groups or 1, weight.shape[:2]
        bias = common["bias"]
        fits = groups * inner == x.shape[2] and outputs % groups == 0 and (bias is None or bias.shape == (outputs,))
        check(fits, f"its weight is {weight.shape} in {groups} groups, for {x.shape[2]} channels")
        biases = [None] * groups if bias is None else np.split(bias, groups)
        parts = []
        for g, (own, share) in enumerate(zip(np.split(weight, groups), biases, strict=True)):
            name, begin = f"{node.name}.{g}", g * inner
            piece = graph.ChannelSlice(name=f"{name}.in", inputs=(x.layer,), begin=begin, end=begin + inner)
            part = to.add(piece, x)
            arguments = {**common, "name": name, "inputs": (part.layer,), "bias": share}
            parts.append(to.add(graph.Conv2d(weight=own.transpose(2, 3, 1, 0), **arguments), part))
        to.groups[node.name] = groups
        return to.add(graph.Concat(name=node.name, inputs=tuple(part.layer for part in parts)), *parts)

    def _padding(self, kernel: Pair) -> Padding:
        if self.padding == "valid":
            return graph.NO_PADDING
        if isinstance(self.padding, str):
            return same_sides(kernel, self.dilation)
        vertical, horizontal = self.padding
        if isinstance(vertical, int) and isinstance(horizontal, int):
            return (vertical, vertical), (horizontal, horizontal)
        return self.padding  # type: ignore[return-value]


@dataclass(frozen=True)
class Separable(Operator):
    """Depthwise, activation, pointwise, residual (a second input), activation: torch.ops.sepconv.separable_conv2d."""

    depthwise: Convolve
    middle_activation: graph.ActivationName
    pointwise: Convolve
    activation: graph.ActivationName
    heavy = True

    @property
    def weights(self) -> tuple[Weight, ...]:
        return (*self.depthwise.weights, *self.pointwise.weights)

    def lower(self, node: Node, to: Builder, *x: Value) -> Value:
        value = x[0]
        stages = (self.depthwise, "depthwise", self.middle_activation), (self.pointwise, "pointwise", "none")
        for convolution, stage, activation in stages:
            value = self._named(f"{node.name}.{stage}", convolution.lower(node, to, value), to)
            value = self._activated(f"{node.name}.{stage}.activation", activation, value, to)
        if len(x) == 2:
            check(not x[1].flat, "its residual is not [n, c, h, w]")
            value = to.add(graph.Add(name=f"{node.name}.add", inputs=(value.layer, x[1].layer)), value, x[1])
        return self._activated(f"{node.name}.activation", self.activation, value, to)

    def _named(self, name: str, value: Value, to: Builder) -> Value:
        place = to.place(value)
        to.layers[place] = dataclasses.replace(to.layers[place], name=name)
        return dataclasses.replace(value, layer=name)

    def _activated(self, name: str, activation: Any, value: Value, to: Builder) -> Value:
        if activation == "none":
            return value
        return to.add(graph.Activation(name=name, inputs=(value.layer,), activation=activation), value)


@dataclass(frozen=True)
class Normalize(Operator):
    """Batch norm with the statistics that were gathered in training; part of the convolution before it where it can."""

    gamma: Weight | None
    beta: Weight | None
    mean: Weight
    variance: Weight
    epsilon: float
    keeps_first = True

    @property
    def weights(self) -> tuple[Weight, ...]:
        return tuple(w for w in (self.gamma, self.beta, self.mean, self.variance) if w is not None)

    def lower(self, node: Node, to: Builder, *x: Value) -> Value:
        channels = x[0].shape[2]
        check(not x[0].flat or x[0].shape[:2] == (1, 1), "its input is a flattened image")
        arrays = {
            "gamma": np.ones(channels, np.float32) if self.gamma is None else to.array(self.gamma),
            "beta": np.zeros(channels, np.float32) if self.beta is None else to.array(self.beta),
            "mean": to.array(self.mean),
            "variance": to.array(self.variance),
        }
        return _normalized(node, arrays, self.epsilon, to, x[0])


@dataclass(frozen=True)
class PerChannel(Operator):
    """A parameter's factor, or term, for each channel or all; ``shape`` is what the parameter is viewed as."""

    weight: Weight
    shape: tuple[int, ...] | None
    term: bool

    @property
    def weights(self) -> tuple[Weight, ...]:
        return (self.weight,)

    def lower(self, node: Node, to: Builder, *x: Value) -> Value:
        channels = as_image(x[0]).shape[2]
        array = to.array(self.weight)
        given = array.shape if self.shape is None else array.reshape(self.shape).shape
        fits = given[-3:] in ((channels, 1, 1), (1, 1, 1)) and given[:-3] in ((), (1,))
        check(fits, f"{given} are no numbers of {channels} channels")
        zeros, ones = np.zeros(channels, np.float32), np.ones(channels, np.float32)
        own = np.broadcast_to(array.reshape(-1), (channels,))
        gamma, beta = (ones, own) if self.term else (own, zeros)
        return _normalized(node, {"gamma": gamma, "beta": beta, "mean": zeros, "variance": ones}, 0.0, to, x[0])


def _normalized(node: Node, arrays: dict[str, Any], epsilon: float, to: Builder, x: Value) -> Value:
    channels = x.shape[2]
    places = to.convolutions(x, node)
    before: list[Any] = [to.layers[place] for place in places]
    if places and all(layer.batch_norm is None for layer in before):
        fit = all(array.shape == (channels,) for array in arrays.values())
        check(fit, f"its statistics are not of {channels} channels")
        shares = zip(*(np.split(array, len(places)) for array in arrays.values()), strict=True)
        for place, layer, share in zip(places, before, shares, strict=True):
            norm = graph.BatchNorm(epsilon=epsilon, **dict(zip(arrays, share, strict=True)))
            to.layers[place] = dataclasses.replace(layer, batch_norm=norm)
        return x
    weight = np.ones((1, 1, channels, 1), np.float32)
    norm = graph.BatchNorm(epsilon=epsilon, **arrays)
    layer = graph.DepthwiseConv2d(name=node.name, inputs=(x.layer,), weight=weight, batch_norm=norm)
    return to.add(layer, x, flat=x.flat)


# --- From arguments


def convolve(a: Arguments) -> Operator:
    only(a, padding_mode="zeros", transposed=False)
    padding = a.get("padding", 0)
    return Convolve(
        (a["input"],),
        weight=a["weight"],
        bias=a.get("bias"),
        stride=pair(a.get("stride", 1), "stride"),
        padding=padding if padding in ("same", "valid") else pair(padding, "padding"),
        dilation=pair(a.get("dilation", 1), "dilation"),
        groups=a.get("groups", 1),
    )


def own(a: Arguments) -> Operator:
    """Of the operators in torch.ops.sepconv."""
    pointwise = "padding" not in a
    top, bottom, left, right = a.get("padding", (0, 0, 0, 0))
    stride, dilation = (pair(a.get(name, (1, 1)), name) for name in ("stride", "dilation"))
    padding = ((top, bottom), (left, right))
    return Convolve(
        (a["input"],), a["weight"], a.get("bias"), stride, padding, dilation, groups=1 if pointwise else None
    )


def separable(a: Arguments) -> Operator:
    window = {name: a[name] for name in ("input", "stride", "padding", "dilation")}
    first = own({**window, "weight": a["depthwise_weight"], "bias": a.get("depthwise_bias")})
    second = own({"input": a["input"], "weight": a["pointwise_weight"], "bias": a.get("pointwise_bias")})
    if not isinstance(first, Convolve) or not isinstance(second, Convolve):
        raise Unsupported("it has arguments that sepconv does not know")
    inputs = (a["input"],) if a.get("residual") is None else (a["input"], a["residual"])
    return Separable(inputs, first, a["middle_activation"], second, a["activation"])


def normalize(a: Arguments) -> Operator:
    if a.get("training", False) or a.get("running_mean") is None or a.get("running_var") is None:
        raise Unsupported("it takes its statistics from the batch")
    return Normalize(
        (a["input"],), a.get("weight"), a.get("bias"), a["running_mean"], a["running_var"], a.get("eps", 1e-5)
    )


def scaled(a: Arguments) -> Operator:
    return PerChannel((a["input"],), a["weight"], a.get("shape"), term=False)


def shifted(a: Arguments) -> Operator:
    return PerChannel((a["input"],), a["weight"], a.get("shape"), term=True)
