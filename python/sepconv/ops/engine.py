"""One call of an operator: its stages on the core, from the caller's arrays to the caller's arrays."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from sepconv import _core
from sepconv.graph import Shape
from sepconv.threads import thread_count

from .arguments import MAX_SIZE, Layout, Window, check_activation, window
from .arrays import FLOAT32, Taken, as_float32, give, note_change, overlaps_itself, store, take
from .prepared import Prepared

MAX_ELEMENTS = 1 << 31  # of an image
_CALLS_KEPT = 64  # for each prepared weight
POINTWISE = Window((1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), (0, 0))


@dataclass(frozen=True)
class LastCall:
    """What the last call of an operator did, on the thread that asks.

    operator: the function's name. isa: the instruction set. kernels: what ran, in order.
    packed: the arguments that were packed by the call, because they were not prepared.
    copied: the arguments that were copied, with the reason: ``{"x": "float64"}``; "by its library" where an array with
        ``__dlpack__`` says that it gave a copy of itself.
    """

    operator: str
    isa: str
    kernels: tuple[str, ...]
    packed: tuple[str, ...]
    copied: dict[str, str] = field(default_factory=dict)


_thread = threading.local()
Key = tuple[Any, ...]


def recall(weights: Any, key: Key, x: Any, residual: Any, out: Any, threads: SupportsIndex | None) -> Any:
    """The result where an earlier call with this key was checked, and the arrays are plain; None: go the long way."""
    try:
        kept = weights.calls.get(key)
    except TypeError:  # a list somewhere
        return None
    if kept is None:
        return None
    block, channels_first, record, checked = kept
    count = 0 if threads is None else thread_count(threads)
    result = block.call(x, residual, out, channels_first, count, key, checked)
    if result is not None:
        _thread.last_call = record
    return result


def plain(*arrays: Any) -> bool:
    """Whether each is a numpy array, not of a subclass, or None."""
    return all(array is None or type(array) is np.ndarray for array in arrays)


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
    def pixels(self) -> int:
        """Of one image; 0 where there are several, for each of which weights would be packed again."""
        n, h, w, _ = self.x.shape
        return h * w if n == 1 else 0

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
        self._add(argument, weights, raw, window((h, w), weights.kernel, stride, padding, dilation), activation)

    def dense(
        self, argument: str, weights: Prepared, raw: Any, stride: Any, padding: Any, dilation: Any, activation: str
    ) -> None:
        """Add a convolution over all channels, or groups of them."""
        self._check_channels(argument, weights)
        h, w, _ = self.shape
        self._add(argument, weights, raw, window((h, w), weights.kernel, stride, padding, dilation), activation)

    def pointwise(self, argument: str, weights: Prepared, raw: Any, activation: str) -> None:
        """Add a 1×1 convolution."""
        self._check_channels(argument, weights)
        self._add(argument, weights, raw, None, activation)

    def _check_channels(self, argument: str, weights: Prepared) -> None:
        if weights.channels != self.shape[2]:
            raise ValueError(
                f"{argument} had {weights.channels} input channels, must have the {self.shape[2]} that it is applied to"
            )

    def _add(self, argument: str, weights: Prepared, raw: Any, at: Window | None, activation: str) -> None:
        h, w = self.shape[:2] if at is None else at.out
        self.stages.append(Stage(argument, weights, raw is not weights, at, activation, (h, w, weights.outputs)))

    def run(self, residual: Any, out: Any, threads: SupportsIndex | None, recall: Key | None = None) -> Any:
        """The result, as the caller's kind of array or in ``out``; ``recall`` keeps the block for calls like it."""
        count = thread_count(threads)
        shape = (len(self.x), *self.shape)
        for stage in self.stages:
            _check_size("the result", (1, *stage.out))
        x = self._float32("x", self.x, self.taken)
        addend = None if residual is None else self._residual(residual, shape)
        target = None if out is None else self._out(out, shape)
        block = self._block()
        if target is None:
            result = self._new(shape)
        elif target.dtype != FLOAT32 or not target.flags.aligned:
            result = self._copied_out(shape, _reason(target))
        elif any(np.may_share_memory(target, source) for source in (x, addend) if source is not None) or any(
            stage.packed and stage.weights.may_share_memory(target) for stage in self.stages
        ):
            result = self._copied_out(shape, "may share memory with an input")
        else:
            result = target
        if out is not None:
            note_change(out)  # before it, as Ctrl-C may end the run halfway
        block.call_into(x, addend, result, count)
        if target is not None and result is not target:
            store(result, target)
        packed = tuple(stage.argument for stage in self.stages if stage.packed)
        record = LastCall(self.operator, _core.isa(), tuple(block.kernels), packed, self.copied)
        _thread.last_call = record
        if recall is not None and not packed and not self.copied:
            calls = self.stages[-1].weights.calls
            if len(calls) >= _CALLS_KEPT:
                calls.clear()
            with contextlib.suppress(TypeError):  # a list somewhere, for which recall() does not look
                calls[recall] = (block, self.layout == "NCHW", record, recall)
        if target is not None:
            return out
        return give(result if self.layout == "NHWC" else result.transpose(0, 3, 1, 2), self.taken)

    def _block(self) -> _core.Block:
        """The core's operator for these stages, kept with prepared weights."""
        *first, last = self.stages
        if any(stage.packed for stage in self.stages):
            return self._new_block()
        blocks = last.weights.blocks
        # Without the last weights, which hold the block: as part of the key they would never be freed but by the
        # collector of cycles, and with them the arrays that they were packed from.
        key = (
            self.x.shape[1:],
            *((stage.weights, stage.window, stage.activation) for stage in first),
            last.window,
            last.activation,
        )
        block = blocks.get(key)
        if block is None:
            if len(blocks) >= _CALLS_KEPT:
                blocks.clear()
            block = blocks[key] = self._new_block()
        return block

    def _new_block(self) -> _core.Block:
        stages = [
            (stage.weights.packed, at.stride, at.padding, at.dilation, stage.activation)
            for stage, at in ((stage, stage.window or POINTWISE) for stage in self.stages)
        ]
        return _core.Block(self.x.shape[1:], stages)

    def _new(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """An array for the result, NHWC in its axes, and in memory as x is."""
        if self.layout == "NHWC" or _channels_last(self.x):
            return _core.empty(shape)
        n, h, w, c = shape
        return _core.empty((n, c, h, w)).transpose(0, 2, 3, 1)

    def _copied_out(self, shape: tuple[int, ...], reason: str) -> NDArray[np.float32]:
        self.copied["out"] = reason
        return self._new(shape)

    def _float32(self, argument: str, values: NDArray[Any], taken: Taken) -> NDArray[np.float32]:
        if values.dtype != FLOAT32 or not values.flags.aligned:
            self.copied[argument] = _reason(values)
        elif taken.copied:
            self.copied[argument] = "by its library"
        return as_float32(values)

    def _residual(self, residual: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
        taken = take("residual", residual)
        return self._float32("residual", self._nhwc_checked("residual", taken, shape), taken)

    def _out(self, out: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        taken = take("out", out)
        values = self._nhwc_checked("out", taken, shape)
        if taken.mute:
            raise ValueError(
                f"out was a {type(out).__name__}, whose DLPack is older than 1.0 and does not tell whether it may be "
                "written to, must be an array that does, or numpy's"
            )
        if taken.copied:
            raise ValueError(
                f"out was a {type(out).__name__} that gave a copy of its memory, must give the memory itself"
            )
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


def _channels_last(x: NDArray[Any]) -> bool:
    """Whether channels, the last axis, lie together: what a result in NCHW is laid out like."""
    return x.shape[3] > 1 and x.strides[3] == x.itemsize and (x.shape[2] == 1 or x.strides[2] != x.itemsize)


def _reason(values: NDArray[Any]) -> str:
    """Why values that are not aligned float32 are copied."""
    if values.dtype == FLOAT32:
        return "unaligned"
    return "bfloat16" if values.dtype == np.uint16 else str(values.dtype)


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
