"""One call of an operator: its stages on the core, from the caller's arrays to the caller's arrays."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sepconv import _core
from sepconv.graph import Pair, Shape

from .arguments import MAX_SIZE, Layout, Window, check_activation, thread_count, window
from .arrays import FLOAT32, Taken, as_float32, give, overlaps_itself, take
from .prepared import Prepared

MAX_ELEMENTS = 1 << 31  # of an image
_PLANS_KEPT = 32  # for each prepared weight


@dataclass(frozen=True)
class LastCall:
    """What the last call of an operator did, on the thread that asks.

    operator: the function's name. isa: the instruction set. kernels: what ran, in order.
    packed: the arguments that were packed by the call, because they were not prepared.
    copied: the arguments that were copied, with the reason: ``{"x": "float64"}``.
    """

    operator: str
    isa: str
    kernels: tuple[str, ...]
    packed: tuple[str, ...]
    copied: dict[str, str] = field(default_factory=dict)


_thread = threading.local()


def last_call() -> LastCall | None:
    """What this thread's last call of an operator packed, copied and ran; None before the first."""
    call: LastCall | None = getattr(_thread, "last_call", None)
    return call


@dataclass(frozen=True)
class Stage:
    """One convolution of an operator."""

    argument: str  # of its weight
    weights: Prepared
    packed: bool
    window: Window | None  # None for pointwise
    activation: str
    out: Shape


class Call:
    """An operator call as it is put together: the image, then stage after stage, then run()."""

    def __init__(self, operator: str, x: Any, layout: Layout) -> None:
        self.operator = operator
        self.layout = layout
        self.taken = take("x", x)
        if self.taken.values.ndim != 4 or 0 in self.taken.values.shape[1:]:
            axes = "(n, h, w, c)" if layout == "NHWC" else "(n, c, h, w)"
            raise ValueError(f"x had shape {self.taken.values.shape}, must have {axes} with h, w, c of at least 1")
        self.x = self._nhwc(self.taken.values)
        _check_size("x", self.x.shape)
        self.stages: list[Stage] = []
        self._sources: list[Any] = [self.taken.values]
        self.copied: dict[str, str] = {}

    @property
    def shape(self) -> Shape:
        """Of the last stage's output, an image."""
        return self.stages[-1].out if self.stages else self.x.shape[1:]

    def depthwise(
        self, argument: str, weights: Prepared, raw: Any, stride: Any, padding: Any, dilation: Any, activation: str
    ) -> None:
        """Add a depthwise convolution. Raises TypeError and ValueError that name the argument."""
        h, w, c = self.shape
        if weights.channels not in (None, c) or weights.outputs % c:
            have = f"{weights.outputs} output channels" if weights.channels is None else f"{weights.channels} channels"
            raise ValueError(f"{argument} had {have}, must fit the {c} channels that it is applied to")
        self._windowed(argument, weights, raw, window((h, w), weights.kernel, stride, padding, dilation), activation)

    def dense(
        self, argument: str, weights: Prepared, raw: Any, stride: Any, padding: Any, dilation: Any, activation: str
    ) -> None:
        """Add a convolution over all channels, or groups of them."""
        self._check_channels(argument, weights)
        h, w, _ = self.shape
        self._windowed(argument, weights, raw, window((h, w), weights.kernel, stride, padding, dilation), activation)

    def pointwise(self, argument: str, weights: Prepared, raw: Any, activation: str) -> None:
        """Add a 1×1 convolution."""
        self._check_channels(argument, weights)
        h, w, _ = self.shape
        self._add(argument, weights, raw, None, activation, (h, w))

    def _check_channels(self, argument: str, weights: Prepared) -> None:
        if weights.channels != self.shape[2]:
            raise ValueError(
                f"{argument} had {weights.channels} input channels, must have the {self.shape[2]} that it is applied to"
            )

    def _windowed(self, argument: str, weights: Prepared, raw: Any, at: Window, activation: str) -> None:
        self._add(argument, weights, raw, at, activation, at.out)

    def _add(self, argument: str, weights: Prepared, raw: Any, at: Window | None, activation: str, size: Pair) -> None:
        packed = raw is not weights
        self.stages.append(Stage(argument, weights, packed, at, activation, (*size, weights.outputs)))

    def run(self, residual: Any, out: Any, threads: int | None) -> Any:
        """The result, as the caller's kind of array or in ``out``."""
        count = thread_count(threads)
        shape = (len(self.x), *self.shape)
        for stage in self.stages:
            _check_size("the result", (1, *stage.out))
        addend = None if residual is None else self._residual(residual, shape)
        target = None if out is None else self._out(out, shape)
        image = self._float32("x", self.x)
        result = _on_core(self.stages, image, addend, count)
        kernels = tuple(stage.weights.kind for stage in self.stages)
        packed = tuple(stage.argument for stage in self.stages if stage.packed)
        given = self._give(result) if target is None else None
        if target is not None:
            target[...] = result
            self.copied["out"] = "from where the core wrote it"
        _thread.last_call = LastCall(self.operator, _core.isa(), kernels, packed, self.copied)
        return given if target is None else out

    def _float32(self, argument: str, values: NDArray[Any]) -> NDArray[np.float32]:
        if values.dtype != FLOAT32 or not values.flags.aligned:
            self.copied[argument] = "unaligned" if values.dtype == FLOAT32 else str(values.dtype)
        return as_float32(values)

    def _residual(self, residual: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
        values = self._nhwc_checked("residual", take("residual", residual), shape)
        return self._float32("residual", values)

    def _out(self, out: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        values = self._nhwc_checked("out", take("out", out), shape)
        if not values.flags.writeable:
            raise ValueError("out was read-only, must be writable")
        if overlaps_itself(values):
            raise ValueError(f"out had strides {values.strides}, must not share memory between its elements")
        return values

    def _nhwc_checked(self, argument: str, taken: Taken, shape: tuple[int, ...]) -> NDArray[Any]:
        n, h, w, c = shape
        want = shape if self.layout == "NHWC" else (n, c, h, w)
        if taken.values.shape != want:
            raise ValueError(f"{argument} had shape {taken.values.shape}, must have the result's, {want}")
        return self._nhwc(taken.values)

    def _nhwc(self, values: NDArray[Any]) -> NDArray[Any]:
        return values if self.layout == "NHWC" else values.transpose(0, 2, 3, 1)

    def _give(self, result: NDArray[np.float32]) -> Any:
        if self.layout == "NCHW":
            result = result.transpose(0, 3, 1, 2)
            if not _channels_last(self.x):
                result = np.ascontiguousarray(result)
        return give(result, self.taken)


def _channels_last(x: NDArray[Any]) -> bool:
    """Whether channels, the last axis, lie together: what a result in NCHW is laid out like."""
    return x.shape[3] > 1 and x.strides[3] == x.itemsize and (x.shape[2] == 1 or x.strides[2] != x.itemsize)


def _check_size(what: str, shape: tuple[int, ...]) -> None:
    _, h, w, c = shape
    if max(h, w, c) > MAX_SIZE or h * w * c > MAX_ELEMENTS:
        raise ValueError(
            f"{what} is {h}x{w} with {c} channels, must be at most {MAX_SIZE} each way and {MAX_ELEMENTS} numbers"
        )


def check_activations(**activations: Any) -> None:
    """ValueError that names the argument unless each is the name of an activation."""
    for argument, activation in activations.items():
        check_activation(argument, activation)


def _on_core(
    stages: Sequence[Stage], x: NDArray[np.float32], residual: NDArray[np.float32] | None, threads: int
) -> NDArray[np.float32]:
    """[n, h, w, c] of the stages on x, the residual added before the last activation."""
    if len(x) == 0:
        return np.empty((0, *stages[-1].out), np.float32)
    last = stages[-1].weights
    if last.groups > 1:
        return _grouped(stages[-1], x, threads)
    key = (x.shape[1:], residual is not None, *((s.weights, s.window, s.activation) for s in stages))
    plans = last.__dict__.setdefault("_plans", {})
    plan = plans.get(key)
    if plan is None:
        if len(plans) >= _PLANS_KEPT:
            plans.clear()
        plan = plans[key] = _compile(stages, x.shape[1:], residual is not None)
    inputs = (
        [np.ascontiguousarray(x)] if residual is None else [np.ascontiguousarray(x), np.ascontiguousarray(residual)]
    )
    result: NDArray[np.float32] = plan.run(inputs, threads)[0]
    return result


def _compile(stages: Sequence[Stage], shape: Shape, residual: bool) -> _core.Plan:
    graph = _core.Graph()
    node = graph.input("x", shape)
    for stage in stages:
        weights, final = stage.weights, stage is stages[-1]
        at = stage.window or Window((1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), stage.out[:2])
        activation = "none" if final and residual else stage.activation
        add = graph.depthwise_conv2d if weights.kind == "depthwise" else graph.conv2d
        weight = weights._weight
        if weights.kind == "depthwise":
            weight = weight.reshape(*weights.kernel, graph.shape(node)[2], -1)
        node = add(stage.argument, node, weight, weights._bias, None, at.stride, at.padding, at.dilation, activation)
        if final and residual:
            node = graph.add("residual", node, graph.input("addend", stage.out), stage.activation)
    graph.output(node)
    return _core.Plan(graph)


def _grouped(stage: Stage, x: NDArray[np.float32], threads: int) -> NDArray[np.float32]:
    weights = stage.weights
    size, outputs = weights._weight.shape[2], weights.outputs // weights.groups
    parts = []
    for g in range(weights.groups):
        inside, outside = slice(g * size, (g + 1) * size), slice(g * outputs, (g + 1) * outputs)
        bias = None if weights._bias is None else weights._bias[outside]
        part = Prepared("conv", weights._weight[..., outside], bias, size, 1)
        one = Stage(stage.argument, part, True, stage.window, stage.activation, (*stage.out[:2], outputs))
        parts.append(_on_core([one], x[..., inside], None, threads))
    return np.concatenate(parts, axis=3)
