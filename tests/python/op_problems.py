"""Random calls of the operators, in every layout, and what they must give: for the tests of sepconv's functions."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from oracle import UNIT, Float32, Float64, expected

import sepconv
from sepconv import graph

ACTIVATIONS = ("none", "relu", "relu6", "hard_swish", "hard_sigmoid", "sigmoid", "silu", "gelu", "gelu_tanh")
# Around the vector widths 4, 8 and 16, the panels of two vectors, and pixels whose rows alias in L1.
CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 40, 48, 64, 65)
OPERATORS = ("depthwise_conv2d", "pointwise_conv2d", "conv2d", "separable_conv2d", "inverted_residual")


@dataclass
class Problem:
    """One call. Arrays are in NHWC and in TensorFlow's order of weights; layers are for the oracle."""

    operator: str
    x: Float32
    layers: list[graph.Convolution]
    residual: Float32 | None
    geometry: dict[str, Any] = field(default_factory=dict)
    activations: dict[str, str] = field(default_factory=dict)
    groups: int = 1

    def weights(self, layout: str) -> list[Float32]:
        """As the function takes them."""
        return [weight_in(layout, layer) for layer in self.layers]

    def biases(self) -> list[Float32 | None]:
        return [None if layer.bias is None else np.asarray(layer.bias) for layer in self.layers]

    def call(self, x: Any, layout: str, residual: Any = None, *, prepared: bool = False, **more: Any) -> Any:
        """The function's result, on x as given."""
        weights: list[Any] = list(self.weights(layout))
        biases: list[Any] = list(self.biases())
        if prepared:
            kinds = [kind_of(layer, self.operator) for layer in self.layers]
            groups = {"groups": self.groups} if self.groups > 1 else {}
            weights = [
                sepconv.prepare(weight, kind, bias, layout=layout, **groups)  # type: ignore[arg-type]
                for weight, kind, bias in zip(weights, kinds, biases, strict=True)
            ]
            biases = [None for _ in biases]
        arguments: dict[str, Any] = {**self.geometry, **self.activations, "layout": layout, **more}
        if residual is not None:
            arguments["residual"] = residual
        if self.groups > 1:
            arguments["groups"] = self.groups
        return getattr(sepconv, self.operator)(x, *weights, *biases, **arguments)

    def __str__(self) -> str:
        shapes = [(np.shape(layer.weight), layer.bias is not None) for layer in self.layers]
        residual = self.residual is not None
        return f"{self.operator} of {self.x.shape} with {shapes}, {self.geometry}, {self.activations}, {residual=}"


def kind_of(layer: graph.Convolution, operator: str) -> str:
    if isinstance(layer, graph.DepthwiseConv2d):
        return "depthwise"
    return "conv" if operator == "conv2d" else "pointwise"


def weight_in(layout: str, layer: graph.Convolution) -> Float32:
    weight = np.asarray(layer.weight)
    if layout == "NHWC":
        return weight
    if isinstance(layer, graph.DepthwiseConv2d):
        return weight.reshape(*weight.shape[:2], 1, -1).transpose(3, 2, 0, 1)
    return weight.transpose(3, 2, 0, 1)


def random_problem(random: Random, operator: str, *, integers: bool = False, large: bool = False) -> Problem:
    """Sizes around those of vectors and tiles; ``integers``: sums without rounding."""
    generator = np.random.default_rng(random.getrandbits(32))

    def array(*shape: int) -> Float32:
        if integers:
            return generator.integers(-4, 5, shape).astype(np.float32)
        return generator.standard_normal(shape, dtype=np.float32)

    def activation() -> Any:
        return random.choice(("none", "relu", "relu6") if integers else ACTIVATIONS)

    def layer(kind: type[graph.Convolution], inputs: int, outputs: int, act: Any, **window: Any) -> graph.Convolution:
        kernel = window.pop("kernel", (1, 1))
        depthwise = kind is graph.DepthwiseConv2d
        bias = array(inputs * outputs if depthwise else outputs) if random.random() < 0.6 else None
        return kind(
            name="y", inputs=("x",), weight=array(*kernel, inputs, outputs), bias=bias, activation=act, **window
        )

    most = 40 if large else 18
    n, h, w = random.choice((1, 1, 1, 2, 3)), random.randint(1, most), random.randint(1, most)
    c = random.choice(CHANNELS)
    x = array(n, h, w, c)
    kernel, stride, padding, dilation = random_window(random, h, w)
    window: dict[str, Any] = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    geometry = {"stride": stride, "padding": padding, "dilation": dilation}
    multiplier = random.choice((1, 1, 1, 1, 2, 3))
    last = random.choice(CHANNELS)
    layers: list[graph.Convolution] = []
    names: dict[str, str] = {}
    if operator == "depthwise_conv2d":
        names["activation"] = activation()
        layers.append(layer(graph.DepthwiseConv2d, c, multiplier, names["activation"], **window))
    elif operator == "pointwise_conv2d":
        names["activation"], geometry = activation(), {}
        layers.append(layer(graph.Conv2d, c, last, names["activation"]))
    elif operator == "conv2d":
        names["activation"] = activation()
        layers.append(layer(graph.Conv2d, c, last, names["activation"], **window))
    else:
        inner = c
        if operator == "inverted_residual":
            names["activation"], names["project_activation"] = activation(), activation()
            inner = random.choice(CHANNELS)
            layers.append(layer(graph.Conv2d, c, inner, names["activation"]))
        else:
            names["middle_activation"], names["activation"] = activation(), activation()
        middle, final = list(names.values())
        layers.append(layer(graph.DepthwiseConv2d, inner, multiplier, middle, **window))
        layers.append(layer(graph.Conv2d, inner * multiplier, last, final))
    problem = Problem(operator, x, layers, None, geometry, names)
    if operator not in ("depthwise_conv2d", "conv2d") and random.random() < 0.4:
        problem.residual = array(*want(problem)[0].shape)
    return problem


def random_window(random: Random, h: int, w: int) -> tuple[Any, Any, Any, Any]:
    """Kernel, stride, padding and dilation that fit an image of h×w."""
    square = random.choice((1, 2, 3, 3, 3, 3, 5, 5, 7))
    kernel = (square, square) if random.random() < 0.8 else (random.randint(1, 6), random.randint(1, 6))
    both = random.choice((1, 1, 1, 2, 2, 3))
    stride = (both, both) if random.random() < 0.85 else (random.randint(1, 3), random.randint(1, 3))
    dilation = (1, 1) if random.random() < 0.8 else (random.randint(1, 3), random.randint(1, 3))
    sides = []
    for axis, size in ((0, h), (1, w)):
        extent = (kernel[axis] - 1) * dilation[axis] + 1
        limit = extent // 2 if random.random() < 0.85 else extent + 2
        before, after = random.randint(0, limit), random.randint(0, limit)
        missing = extent - size - before - after
        if missing > 0:
            before, after = before + missing // 2, after + missing - missing // 2
        sides.append((before, after))
    return kernel, stride, (sides[0], sides[1]), dilation


def want(problem: Problem) -> tuple[Float64, Float64]:
    """The result in float64, [n, h, w, c], and by how much float32 may miss it."""
    results = [_want_image(problem, i) for i in range(len(problem.x))]
    return np.stack([result for result, _ in results]), np.stack([bound for _, bound in results])


def _want_image(problem: Problem, image: int) -> tuple[Float64, Float64]:
    value = problem.x[image].astype(np.float64)
    error = np.zeros_like(value)
    for layer in problem.layers:
        final = layer is problem.layers[-1]
        residual = problem.residual if final else None
        plain = dataclasses.replace(layer, activation="none")
        result, bound = expected(plain, [value])
        if error.any():
            spread = dataclasses.replace(plain, weight=np.abs(np.asarray(layer.weight)), bias=None)
            bound = bound + expected(spread, [error])[0] * (1 + 1e-6)
        if residual is not None:
            result = result + residual[image]
            bound = bound + 2 * UNIT * (np.abs(result) + np.abs(residual[image]))
        activation = graph.Activation(name="y", inputs=("x",), activation=layer.activation)
        value, rounding = expected(activation, [result])
        error = 1.5 * bound + rounding + np.spacing(np.abs(value).astype(np.float32))
    return value, error


def check(problem: Problem, result: NDArray[Any], *, exact: bool = False) -> None:
    """That ``result``, NHWC, is within the bound, and finite."""
    value, bound = want(problem)
    assert result.shape == value.shape, str(problem)
    miss = np.abs(result.astype(np.float64) - value)
    allowed = np.zeros_like(bound) if exact else bound
    at = np.unravel_index(np.argmax(miss - allowed), miss.shape)
    assert np.all(miss <= allowed), f"{problem}: at {at} {result[at]!r}, must be {value[at]!r} within {allowed[at]:.3g}"


# --- The same values, otherwise in memory

MEMORY = ("plain", "channels first", "channels last", "sliced", "reversed", "strided", "transposed", "read-only", "odd")


def in_memory(values: Float32, kind: str) -> Float32:
    """A 4-d array of these values, laid out as ``kind`` says."""
    if kind == "channels first":
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    if kind == "channels last":
        return np.ascontiguousarray(values.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    if kind == "sliced":  # part of a larger array, along every axis
        whole = np.full([size + 3 for size in values.shape], np.nan, np.float32)
        view = whole[tuple(slice(1, 1 + size) for size in values.shape)]
    elif kind == "reversed":
        return np.ascontiguousarray(values[::-1, ::-1, ::-1, ::-1])[::-1, ::-1, ::-1, ::-1]
    elif kind == "strided":  # every other pixel
        whole = np.full(
            [values.shape[0], 2 * values.shape[1], 2 * values.shape[2], values.shape[3]], np.nan, np.float32
        )
        view = whole[:, ::2, ::2]
    elif kind == "transposed":  # width before height
        return np.ascontiguousarray(values.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
    elif kind == "odd":  # one byte past a multiple of four
        raw = np.zeros(values.nbytes + 1, np.uint8)
        view = raw[1:].view(np.float32).reshape(values.shape)
    else:
        view = values.copy()
    view[...] = values
    if kind == "read-only":
        view.flags.writeable = False
    return view
