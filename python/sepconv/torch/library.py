"""The operators ``torch.ops.sepconv.*``: schemas, what they do on the CPU, what shapes they give, their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from sepconv import _core, ops
from sepconv.torch import arithmetic
from sepconv.torch.arithmetic import CLAMPS, Array, Window
from sepconv.torch.forward_mode import refuse_tangents
from sepconv.torch.workspace import workspace

Tensor = Any
Results = tuple[Tensor, ...]

_WINDOW = "int[2] stride, int[4] padding, int[2] dilation"
_BLOCK = (
    "Tensor x, Tensor depthwise_weight, Tensor? depthwise_bias, Tensor pointwise_weight, Tensor? pointwise_bias, "
    f"Tensor? residual, {_WINDOW}, str middle_activation, str activation"
)


def _operator(name: str, schema: str) -> Callable[[Callable[..., Any]], Any]:
    def register(function: Callable[..., Any]) -> Any:
        return torch.library.custom_op(f"sepconv::{name}", function, mutates_args=(), schema=schema, device_types="cpu")

    return register


# --- Between torch and numpy


def _threads() -> int:
    return min(int(torch.get_num_threads()), _core.MAX_THREADS)


def _computed(*tensors: Tensor | None) -> Any:
    """The type to compute in: float64 for float64, float32 for the rest. TypeError where tensors differ or are none.

    An empty batch, the first tensor's, goes through float32.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    kinds = {tensor.dtype for tensor in given}
    if len(kinds) > 1 or not kinds <= {torch.float32, torch.float64, torch.float16, torch.bfloat16}:
        names = ", ".join(sorted(str(kind) for kind in kinds))
        raise TypeError(f"inputs were of {names}, must all be of one of float16, bfloat16, float32, float64")
    return torch.float64 if torch.float64 in kinds and len(given[0]) > 0 else torch.float32


def _single(function: Callable[..., Array], x: Tensor, /, *weights: Tensor | None, **options: Any) -> Tensor:
    """The result of one of sepconv's functions in float32, in x's type and memory format; tensors are read in place.

    Of float64 only an empty batch is computed: that checks the arguments, as the oracles do not.
    """
    x = x[:0] if x.dtype == torch.float64 and 0 not in x.shape else x
    arrays = [None if t is None else t.detach().to(torch.float32).numpy() for t in (x, *weights)]
    y = torch.from_numpy(function(*arrays, layout="NCHW", threads=_threads(), **options))
    return y.to(x.dtype).contiguous(memory_format=_format(x))


def _options(window: Window) -> dict[str, Any]:
    return dict(zip(("stride", "padding", "dilation"), window, strict=True))


def _image(tensor: Tensor, dtype: Any, out: Array | None = None) -> Array:
    """[n, c, h, w] as a contiguous NHWC array: in place where it is channels_last, else perhaps in ``out``."""
    tensor = tensor.detach().to(dtype)
    n, c, h, w = tensor.shape
    planes = tensor.is_contiguous() and not tensor.is_contiguous(memory_format=torch.channels_last)
    if planes and dtype == torch.float32:
        into = None if out is None else out.reshape(n, h * w, c)
        return _core.transposed(tensor.numpy().reshape(n, c, h * w), _threads(), into).reshape(n, h, w, c)
    array: Array = tensor.permute(0, 2, 3, 1).contiguous().numpy()
    return array


def _array(tensor: Tensor | None, dtype: Any) -> Any:
    return None if tensor is None else tensor.detach().to(dtype).contiguous().numpy()


def _format(like: Tensor) -> Any:
    """The memory format of results: channels_last where x is that and not contiguous."""
    last = like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _tensor(array: Array | None, like: Tensor, *, image: bool = False) -> Tensor:
    """An array as a tensor of ``like``'s type, an NHWC image as [n, c, h, w] in its format; None as an empty tensor."""
    if array is None:
        return like.new_empty(0)
    if image and array.dtype == np.float32 and _format(like) == torch.contiguous_format and 0 not in array.shape:
        n, h, w, c = array.shape
        array = _core.transposed(np.ascontiguousarray(array).reshape(n, h * w, c), _threads()).reshape(n, c, h, w)
        return torch.from_numpy(array).to(like.dtype)
    tensor = torch.from_numpy(np.ascontiguousarray(array)).to(like.dtype)
    return tensor.permute(0, 3, 1, 2).contiguous(memory_format=_format(like)) if image else tensor


def _window(stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]) -> Window:
    for name, values, least in (("stride", stride, 1), ("dilation", dilation, 1), ("padding", padding, 0)):
        if min(values) < least:
            raise ValueError(f"{name} was {list(values)}, must be at least {least}")
    top, bottom, left, right = padding
    return (stride[0], stride[1]), ((top, bottom), (left, right)), (dilation[0], dilation[1])


def _empty(x: Tensor, shape: Sequence[Any]) -> Tensor:
    return torch.empty(tuple(shape), dtype=x.dtype, device=x.device, memory_format=_format(x))


def _check(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if tensor.dim() != 4:
            raise ValueError(f"{name} had {tensor.dim()} dimensions, must have 4")


def _positions(x: Tensor, weight: Tensor, window: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    """Height and width of a convolution's result, also of sizes that are symbols."""
    stride, (top, bottom, left, right), dilation = window
    kh, kw = weight.shape[2:]
    height = (x.shape[2] + top + bottom - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    width = (x.shape[3] + left + right - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    return height, width


def _needed(gradient: Tensor, needed: bool) -> Tensor | None:
    return gradient if needed else None


# --- Depthwise


@_operator("depthwise_conv2d", f"(Tensor x, Tensor weight, Tensor? bias, {_WINDOW}) -> Tensor")
def depthwise_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], dilation: list[int]
) -> Tensor:
    _check(x=x, weight=weight)
    dtype = _computed(x, weight, bias)
    window = _window(stride, padding, dilation)
    single = _single(ops.depthwise_conv2d, x, weight, bias, **_options(window))
    if dtype == torch.float32:
        return single
    y = arithmetic.depthwise(_image(x, dtype), _array(weight, dtype), _array(bias, dtype), window, "none", _threads())
    return _tensor(y, x, image=True)


@depthwise_conv2d.register_fake
def _depthwise_fake(x: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any) -> Tensor:
    return _empty(x, (x.shape[0], weight.shape[0], *_positions(x, weight, (stride, padding, dilation))))


@_operator(
    "depthwise_conv2d_backward",
    f"(Tensor dy, Tensor x, Tensor weight, {_WINDOW}, bool[2] needs) -> (Tensor, Tensor, Tensor)",
)
def depthwise_conv2d_backward(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, needs: list[bool]
) -> Results:
    if len(x) == 0:
        return torch.empty_like(x), torch.zeros_like(weight), weight.new_zeros(len(weight))
    dtype = _computed(dy, x, weight)
    arrays = _image(x, dtype), _array(weight, dtype), _image(dy, dtype)
    window = _window(stride, padding, dilation)
    dx, dweight, dbias = arithmetic.depthwise_grad(*arrays, window, (needs[0], needs[1]), _threads())
    return _gradients(dx, dweight, dbias, x, needs)


@depthwise_conv2d_backward.register_fake
def _depthwise_backward_fake(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, needs: Any
) -> Results:
    return _gradients_fake(x, weight, needs)


def _gradients(dx: Any, dweight: Any, dbias: Any, x: Tensor, needs: Sequence[bool]) -> Results:
    """What is not needed is an empty tensor."""
    return (
        _tensor(dx if needs[0] else None, x, image=True),
        _tensor(dweight if needs[1] else None, x),
        _tensor(dbias if needs[1] else None, x),
    )


def _gradients_fake(x: Tensor, weight: Tensor, needs: Any) -> Results:
    return (
        _empty(x, x.shape) if needs[0] else x.new_empty(0),
        torch.empty(weight.shape, dtype=weight.dtype, device=weight.device) if needs[1] else weight.new_empty(0),
        weight.new_empty(weight.shape[0]) if needs[1] else weight.new_empty(0),
    )


def _depthwise_context(ctx: Any, inputs: Any, output: Tensor) -> None:
    x, weight, _, *ctx.window = inputs
    ctx.save_for_backward(x, weight)


def _depthwise_derivative(ctx: Any, dy: Tensor) -> Any:
    x, weight = ctx.saved_tensors
    needs = ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:3])
    dx, dweight, dbias = torch.ops.sepconv.depthwise_conv2d_backward(dy, x, weight, *ctx.window, needs)
    wanted = ctx.needs_input_grad
    return _needed(dx, wanted[0]), _needed(dweight, wanted[1]), _needed(dbias, wanted[2]), None, None, None


depthwise_conv2d.register_autograd(_depthwise_derivative, setup_context=_depthwise_context)


# --- Pointwise


@_operator("pointwise_conv2d", "(Tensor x, Tensor weight, Tensor? bias) -> Tensor")
def pointwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    _check(x=x, weight=weight)
    dtype = _computed(x, weight, bias)
    single = _single(ops.pointwise_conv2d, x, weight, bias)
    if dtype == torch.float32:
        return single
    y = arithmetic.pointwise(_image(x, dtype), _array(weight, dtype), _array(bias, dtype), None, "none", _threads())
    return _tensor(y, x, image=True)


@pointwise_conv2d.register_fake
def _pointwise_fake(x: Tensor, weight: Tensor, bias: Any) -> Tensor:
    return _empty(x, (x.shape[0], weight.shape[0], *x.shape[2:]))


@_operator(
    "pointwise_conv2d_backward", "(Tensor dy, Tensor x, Tensor weight, bool[2] needs) -> (Tensor, Tensor, Tensor)"
)
def pointwise_conv2d_backward(dy: Tensor, x: Tensor, weight: Tensor, needs: list[bool]) -> Results:
    if len(x) == 0:
        return torch.empty_like(x), torch.zeros_like(weight), weight.new_zeros(len(weight))
    dtype = _computed(dy, x, weight)
    arrays = _image(x, dtype), _array(weight, dtype), _image(dy, dtype)
    dx, dweight, dbias = arithmetic.pointwise_grad(*arrays, (needs[0], needs[1]), _threads())
    return _gradients(dx, dweight, dbias, x, needs)


@pointwise_conv2d_backward.register_fake
def _pointwise_backward_fake(dy: Tensor, x: Tensor, weight: Tensor, needs: Any) -> Results:
    return _gradients_fake(x, weight, needs)


def _pointwise_context(ctx: Any, inputs: Any, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _pointwise_derivative(ctx: Any, dy: Tensor) -> Any:
    x, weight = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    needs = wanted[0], wanted[1] or wanted[2]
    dx, dweight, dbias = torch.ops.sepconv.pointwise_conv2d_backward(dy, x, weight, needs)
    return _needed(dx, wanted[0]), _needed(dweight, wanted[1]), _needed(dbias, wanted[2])


pointwise_conv2d.register_autograd(_pointwise_derivative, setup_context=_pointwise_context)


# --- Both, with activations and a residual


@_operator("separable_conv2d", f"({_BLOCK}) -> Tensor")
def separable_conv2d(
    x: Tensor,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor | None,
    pointwise_weight: Tensor,
    pointwise_bias: Tensor | None,
    residual: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    middle_activation: str,
    activation: str,
) -> Tensor:
    _check(x=x, depthwise_weight=depthwise_weight, pointwise_weight=pointwise_weight)
    tensors = depthwise_weight, depthwise_bias, pointwise_weight, pointwise_bias
    dtype = _computed(x, *tensors, residual)
    window = _window(stride, padding, dilation)
    given = x, depthwise_weight, pointwise_weight, depthwise_bias, pointwise_bias
    options = {**_options(window), "middle_activation": middle_activation, "activation": activation}
    if dtype == torch.float32:
        addition = None if residual is None else residual.detach().to(dtype).numpy()
        return _single(ops.separable_conv2d, *given, residual=addition, **options)
    shape = (len(x), *_single(ops.separable_conv2d, *given, **options).shape[1:])
    if residual is not None and residual.shape != shape:
        raise ValueError(f"residual had shape {tuple(residual.shape)}, must have the result's, {shape}")
    weights = [_array(tensor, dtype) for tensor in tensors]
    addend = None if residual is None else _image(residual, dtype)
    y = arithmetic.separable(_image(x, dtype), weights, addend, window, (middle_activation, activation), _threads())
    return _tensor(y, x, image=True)


@separable_conv2d.register_fake
def _separable_fake(x: Tensor, depthwise_weight: Tensor, _b: Any, pointwise_weight: Tensor, *rest: Any) -> Tensor:
    positions = _positions(x, depthwise_weight, rest[2:5])
    return _empty(x, (x.shape[0], pointwise_weight.shape[0], *positions))


@_operator(
    "separable_conv2d_backward",
    f"(Tensor dy, Tensor y, {_BLOCK}, bool[4] needs) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def separable_conv2d_backward(
    dy: Tensor,
    y: Tensor,
    x: Tensor,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor | None,
    pointwise_weight: Tensor,
    pointwise_bias: Tensor | None,
    residual: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    middle_activation: str,
    activation: str,
    needs: list[bool],
) -> Results:
    """What lies between the two convolutions is computed again rather than kept from the forward pass.

    needs: of x, of the depthwise weight and bias, of the pointwise weight and bias, of the residual.
    """
    if len(x) == 0:
        weights = (depthwise_weight, pointwise_weight)
        grads = [g for w in weights for g in (torch.zeros_like(w), w.new_zeros(len(w)))]
        return torch.empty_like(x), *grads, x.new_empty(0) if residual is None else torch.empty_like(residual)
    dtype = _computed(dy, x, depthwise_weight, pointwise_weight)
    threads, at = _threads(), _window(stride, padding, dilation)
    filters, bias, matrix = (_array(t, dtype) for t in (depthwise_weight, depthwise_bias, pointwise_weight))
    through = needs[0] or needs[1]
    n, outputs, height, width = dy.shape
    outer, inner = (n, height, width, outputs), (n, height, width, len(filters))
    shapes = outer, inner, inner, (n, *x.shape[2:], x.shape[1]), outer
    with workspace(*shapes) if dtype == torch.float32 else nullcontext((None,) * len(shapes)) as scratch:
        image, gradient = _image(x, dtype, scratch[3]), _image(dy, dtype, scratch[4])
        middle = arithmetic.depthwise(image, filters, bias, at, middle_activation, threads, scratch[1])
        if activation in CLAMPS:
            value = _image(y, dtype, scratch[0])
        else:
            addend = None if residual is None else _image(residual, dtype)
            last_bias = _array(pointwise_bias, dtype)
            value = arithmetic.pointwise(middle, matrix, last_bias, addend, "none", threads, scratch[0])
        gradient = arithmetic.activation_grad(activation, value, gradient, threads, scratch[0])
        dmiddle, dmatrix, dbias = arithmetic.pointwise_grad(
            middle, matrix, gradient, (through, needs[2]), threads, scratch[2]
        )
        dx = dfilters = dmiddle_bias = None
        if through and dmiddle is not None:
            if middle_activation not in CLAMPS:
                middle = arithmetic.depthwise(image, filters, bias, at, "none", threads, scratch[1])
            before = arithmetic.activation_grad(middle_activation, middle, dmiddle, threads, scratch[2])
            dx, dfilters, dmiddle_bias = arithmetic.depthwise_grad(
                image, filters, before, at, (needs[0], needs[1]), threads
            )
        of_residual = gradient.copy() if needs[3] else None
    return (
        *_gradients(dx, dfilters, dmiddle_bias, x, needs),
        *_gradients(None, dmatrix, dbias, x, (False, needs[2]))[1:],
        _tensor(of_residual, x, image=True),
    )


@separable_conv2d_backward.register_fake
def _separable_backward_fake(
    dy: Tensor, y: Tensor, x: Tensor, depthwise_weight: Tensor, _b: Any, pointwise_weight: Tensor, *rest: Any
) -> Results:
    needs = rest[-1]
    dx, dfilters, dmiddle_bias = _gradients_fake(x, depthwise_weight, (needs[0], needs[1]))
    _, dmatrix, dbias = _gradients_fake(x, pointwise_weight, (False, needs[2]))
    return dx, dfilters, dmiddle_bias, dmatrix, dbias, _empty(x, y.shape) if needs[3] else x.new_empty(0)


def _separable_context(ctx: Any, inputs: Any, output: Tensor) -> None:
    ctx.options = inputs[6:]
    ctx.save_for_backward(output, *inputs[:6])


def _separable_derivative(ctx: Any, dy: Tensor) -> Any:
    y, *tensors = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    needs = wanted[0], wanted[1] or wanted[2], wanted[3] or wanted[4], wanted[5]
    gradients = torch.ops.sepconv.separable_conv2d_backward(dy, y, *tensors, *ctx.options, needs)
    return *(_needed(g, want) for g, want in zip(gradients, wanted[:6], strict=True)), *(None for _ in ctx.options)


separable_conv2d.register_autograd(_separable_derivative, setup_context=_separable_context)


# Under autocast inputs of several types come together. What computes in float32 takes them all as that.
for _each in (depthwise_conv2d, pointwise_conv2d, separable_conv2d):
    _each.register_autocast("cpu", torch.float32)
    refuse_tangents(_each)
for _each in (depthwise_conv2d_backward, pointwise_conv2d_backward, separable_conv2d_backward):
    refuse_tangents(_each)
