"""Elementwise operators, of one array and of several with NumPy's broadcasting."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sepconv import _core
from sepconv.onnx.ir import OWN_DOMAIN, Array, Info, Node
from sepconv.onnx.ops.registry import ANY, BASE, NUMBERS, Call, NotNativeError, dense, native, normal_axis

nd = _core.nd

# Operator → the core's function, its two constants (an attribute with its default, or a number).
_Constant = float | tuple[str, float]
_UNARY: dict[str, tuple[str, _Constant, _Constant]] = {
    "LeakyRelu": ("leaky_relu", ("alpha", 0.01), 0),
    "HardSigmoid": ("hard_sigmoid", ("alpha", 0.2), ("beta", 0.5)),
    "HardSwish": ("hard_swish", 0, 0),
    "Sigmoid": ("sigmoid", 0, 0),
    "Swish": ("swish", ("alpha", 1.0), 0),
    "Tanh": ("tanh", 0, 0),
    "Elu": ("elu", ("alpha", 1.0), 0),
    "Selu": ("selu", ("alpha", 1.67326319217681884765625), ("gamma", 1.05070102214813232421875)),
    "Celu": ("celu", ("alpha", 1.0), 0),
    "Softplus": ("softplus", 0, 0),
    "Mish": ("mish", 0, 0),
    "ThresholdedRelu": ("thresholded_relu", ("alpha", 1.0), 0),
    "Shrink": ("shrink", ("lambd", 0.5), ("bias", 0.0)),
    **{
        name: (name.lower(), 0, 0)
        for name in (
            "Exp", "Reciprocal", "Sqrt", "Log", "Floor", "Ceil", "Round", "Erf", "Softsign", "Sin", "Cos", "Tan",
            "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Sign",
        )
    },
}  # fmt: skip


@native(*_UNARY)
def unary(call: Call) -> list[Array]:
    name, *constants = _UNARY[call.node.op]
    a, b = (call.attribute(*constant) if isinstance(constant, tuple) else constant for constant in constants)
    return [nd.unary(name, call.dense(0), float(a), float(b), call.threads)]


@native("Gelu")
def gelu(call: Call) -> list[Array]:
    return [nd.unary(_gelu_name(call.node), call.dense(0), 0.0, 0.0, call.threads)]


def _gelu_name(node: Node) -> str:
    return "gelu_tanh" if node.attribute("approximate", "none") == "tanh" else "gelu"


_ACTIVATIONS = {"Relu": "relu", "Sigmoid": "sigmoid", "HardSwish": "hard_swish"}


def activation_name(node: Node) -> Any:
    """Which of :data:`sepconv.graph.ActivationName` a node is; None where it is another operator."""
    if node.domain == OWN_DOMAIN and node.op == "Activation":
        return node.attribute("kind")
    return _gelu_name(node) if node.is_op("Gelu") else _ACTIVATIONS.get(node.op) if node.is_op(*_ACTIVATIONS) else None


@native("Activation", domain=OWN_DOMAIN)
def activation(call: Call) -> list[Array]:
    return [activate(call.attribute("kind"), call.dense(0), call.threads)]


def activate(kind: str, x: Array, threads: int) -> Array:
    """One of :data:`sepconv.graph.ActivationName`, as a fused node or our own operator has it."""
    name, a, b = {
        "relu": ("relu", 0.0, 0.0),
        "relu6": ("clip", 0.0, 6.0),
        "hard_swish": ("hard_swish", 0.0, 0.0),
        "hard_sigmoid": ("hard_sigmoid", 1 / 6, 0.5),
        "sigmoid": ("sigmoid", 0.0, 0.0),
        "silu": ("swish", 1.0, 0.0),
        "gelu": ("gelu", 0.0, 0.0),
        "gelu_tanh": ("gelu_tanh", 0.0, 0.0),
    }[kind]
    return nd.unary(name, x, a, b, threads)


@native("Relu", types=NUMBERS)
def relu(call: Call) -> list[Array]:
    x = call.dense(0)
    if x.dtype == np.float32:
        return [nd.unary("relu", x, 0.0, 0.0, call.threads)]
    return [nd.binary("max", x, np.zeros((), x.dtype), call.threads)]


@native("Abs", types=NUMBERS)
def abs_(call: Call) -> list[Array]:
    x = call.dense(0)
    if x.dtype == np.float32:
        return [nd.unary("abs", x, 0.0, 0.0, call.threads)]
    if x.dtype.kind == "u":  # 0 - x wraps around
        return [x]
    return [nd.binary("max", x, nd.binary("sub", np.zeros((), x.dtype), x, call.threads), call.threads)]


@native("Neg", types=NUMBERS)
def neg(call: Call) -> list[Array]:
    x = call.dense(0)
    if x.dtype == np.float32:
        return [nd.unary("neg", x, 0.0, 0.0, call.threads)]
    return [nd.binary("sub", np.zeros((), x.dtype), x, call.threads)]


@native("Not", types=frozenset({"bool"}))
def not_(call: Call) -> list[Array]:
    return [nd.binary("xor", call.dense(0), np.ones((), np.bool_), call.threads)]


@native("IsNaN")
def is_nan(call: Call) -> list[Array]:
    x = call.dense(0)
    return [nd.binary("xor", nd.binary("equal", x, x, call.threads), np.ones((), np.bool_), call.threads)]


@native("Clip", types=NUMBERS)
def clip(call: Call) -> list[Array]:
    x = call.dense(0)
    low, high = call.get(1), call.get(2)
    if call.opset < 11:
        bounds = (call.attribute("min", -math.inf), call.attribute("max", math.inf))
        low, high = (np.asarray(bound, x.dtype) for bound in bounds)
    if x.dtype == np.float32:
        least = -math.inf if low is None else float(low.reshape(())[()])
        most = math.inf if high is None else float(high.reshape(())[()])
        return [nd.unary("clip", x, least, most, call.threads)]
    for name, bound in (("max", low), ("min", high)):
        if bound is not None:
            x = nd.binary(name, x, bound.reshape(()), call.threads)
    return [x]


# --- Several operands

_BINARY = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Equal": "equal", "Less": "less",
    "LessOrEqual": "less_equal", "Greater": "greater", "GreaterOrEqual": "greater_equal",
}  # fmt: skip


def binary_of(name: str, a: Array, b: Array, threads: int) -> Array:
    """One of the core's functions of two arrays, with broadcasting."""
    return nd.binary(name, dense(a, threads), dense(b, threads), threads)


@native(*_BINARY, types=NUMBERS | {"float64"}, typed=2)
def binary(call: Call) -> list[Array]:
    return [binary_of(_BINARY[call.node.op], call[0], second(call), call.threads)]


def second(call: Call) -> Array:
    """The second operand, which opsets before 7 align with an axis of the first."""
    a, b = call[0], call[1]
    if not aligns_by_axis(call.node):
        return b
    return b.reshape(b.shape + (1,) * (a.ndim - normal_axis(int(call.attribute("axis")), a.ndim) - b.ndim))


def aligns_by_axis(node: Node) -> bool:
    """Whether the second operand begins at an axis of the first, rather than ends at its last."""
    return node.opset < 7 and node.attribute("axis") is not None and bool(node.attribute("broadcast", 0))


@native("And", "Or", "Xor", types=frozenset({"bool"}), typed=2)
def logical(call: Call) -> list[Array]:
    return [binary_of(call.node.op.lower(), call[0], call[1], call.threads)]


@native("PRelu")
def prelu(call: Call) -> list[Array]:
    x, slope = call[0], call[1]
    if slope.ndim == 1 and x.ndim > 2 and slope.size == x.shape[1] and call.opset < 7:
        slope = slope.reshape(-1, *(1,) * (x.ndim - 2))
    return [binary_of("prelu", x, slope, call.threads)]


@native("Pow", types=frozenset({"float32", "int32", "int64"}), typed=2)
def pow_(call: Call) -> list[Array]:
    x, exponent = call.dense(0), call.dense(1)
    if x.dtype == np.float32:
        if exponent.size == 1 and float(exponent.reshape(())[()]) == 2.0 and exponent.ndim <= x.ndim:
            return [nd.binary("mul", x, x, call.threads)]
        return [nd.binary("pow", x, nd.cast(exponent, x.dtype, call.threads), call.threads)]
    if exponent.dtype == np.float32:
        wide = nd.cast(x, np.dtype(np.float32), call.threads)
        return [nd.cast(nd.binary("pow", wide, exponent, call.threads), x.dtype, call.threads)]
    return [nd.binary("pow", x, nd.cast(exponent, x.dtype, call.threads), call.threads)]


@native("Mod", types=NUMBERS, typed=2)
def mod(call: Call) -> list[Array]:
    return [binary_of("fmod" if call.attribute("fmod", 0) else "mod", call[0], call[1], call.threads)]


def _folded(name: str, call: Call) -> Array:
    result = call.dense(0)
    for index in range(1, len(call.inputs)):
        result = binary_of(name, result, call[index], call.threads)
    return result


@native("Max", "Min", types=NUMBERS, typed=64)
def extremes(call: Call) -> list[Array]:
    return [_folded(call.node.op.lower(), call)]


@native("Sum", typed=64)
def sum_(call: Call) -> list[Array]:
    return [_folded("add", call)]


@native("Mean", typed=64)
def mean(call: Call) -> list[Array]:
    count = np.full((), len(call.inputs), np.float32)
    return [nd.binary("div", _folded("add", call), count, call.threads)]


@native("Where", types=ANY, typed=3)
def where(call: Call) -> list[Array]:
    condition, a, b = (dense(x, call.threads) for x in np.broadcast_arrays(call[0], call[1], call[2]))
    return [nd.select(condition, a, b, call.threads)]


def cast_target(node: Node) -> np.dtype[Any] | None:
    """The type that a Cast gives; None for one that NumPy or the package onnx does not know."""
    import onnx

    try:
        target: np.dtype[Any] = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(node.attribute("to")))
    except (KeyError, ValueError, TypeError):
        return None
    return target


def _castable(node: Node, _: list[Info]) -> str | None:
    target = cast_target(node)
    if target is None:
        return "its target type is unknown"
    return None if target.name in BASE | {"float64"} else f"its target is {target.name}"


@native("Cast", types=BASE | {"float64"}, check=_castable)
def cast(call: Call) -> list[Array]:
    dtype = cast_target(call.node)
    assert dtype is not None  # see _castable
    return [call[0] if call[0].dtype == dtype else nd.cast(call.dense(0), dtype, call.threads)]


@native("CastLike", types=BASE | {"float64"}, typed=2)
def cast_like(call: Call) -> list[Array]:
    dtype = call[1].dtype
    return [call[0] if call[0].dtype == dtype else nd.cast(call.dense(0), dtype, call.threads)]


def _batch_norm_problem(node: Node, _: list[Info]) -> str | None:
    if not node.attribute("spatial", 1):
        return "its spatial is 0"
    return "it trains, as before opset 14" if trains(node) and node.opset < 14 else None


@native("BatchNormalization", check=_batch_norm_problem)
def batch_normalization(call: Call) -> list[Array]:
    training = trains(call.node)
    if len(call.node.outputs) > 1 and not training:
        raise NotNativeError("it trains")
    shape = (-1, *(1,) * (call[0].ndim - 2))
    x, channels = call.dense(0), call[0].shape[1:2] if call[0].ndim > 1 else (1,)
    if any(call[index].shape != channels for index in range(1, 5)):
        raise ValueError(f"scale, B, mean and var must have the shape {list(channels)}")

    def affine(mean: Array, variance: Array) -> tuple[Array, Array]:
        with np.errstate(all="ignore"):
            scale, shift = batch_norm_factors(call.node, call[1].astype(np.float64), call[2], mean, variance)
            return scale.astype(np.float32), shift.astype(np.float32)

    def normalized(scale: Array, shift: Array) -> Array:
        product = nd.binary("mul", x, scale.reshape(shape), call.threads)
        return nd.binary("add", product, shift.reshape(shape), call.threads)

    if not training:
        known = (call[3].astype(np.float64), call[4].astype(np.float64))
        return [normalized(*call.cached("affine", (1, 2, 3, 4), lambda: affine(*known)))]
    if x.size == 0:
        raise NotNativeError("it trains on nothing")
    axes = (0, *range(2, x.ndim))
    mean = x.mean(axes, np.float64)
    variance = np.square(x - mean.reshape(shape)).mean(axes)
    momentum = float(call.attribute("momentum", 0.9))
    running = [
        (before * momentum + now * (1 - momentum)).astype(np.float32)
        for before, now in ((call[3], mean), (call[4], variance))
    ]
    return [normalized(*affine(mean, variance)), *running][: len(call.node.outputs)]


def batch_norm_factors(node: Node, gamma: Array, beta: Array, mean: Array, variance: Array) -> tuple[Array, Array]:
    """The factor and the term of each channel that a BatchNormalization with these statistics means."""
    scale = gamma / np.sqrt(variance + float(node.attribute("epsilon", 1e-5)))
    return scale, beta - mean * scale


def trains(node: Node) -> bool:
    """Whether a BatchNormalization or Dropout does what it does in training."""
    return bool(node.attribute("training_mode", 0)) or (node.opset < 7 and not node.attribute("is_test", 0))
