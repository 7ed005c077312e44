"""Sliding windows as ONNX describes them, resolved to explicit numbers an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sepconv.onnx.ir import Node, NotNativeError

MAX_SIZE = 2**31 - 1
_Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Windows:
    """A number for each axis of space; ``begin`` and ``end`` are the padding. ``extra``: what ceil_mode adds to end."""

    sizes: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    out: tuple[int, ...]
    extra: tuple[int, ...]

    @property
    def numbers(self) -> tuple[_Sizes, _Sizes, _Sizes, _Sizes, _Sizes, _Sizes]:
        """In the order in which the core's operators take them: out, kernel, stride, begin, end, dilation."""
        return self.out, self.kernel, self.stride, self.begin, self.end, self.dilation


def windows(node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> Windows:
    """The windows of a convolution or pooling over an image of these sizes. ValueError says what does not fit."""
    rank = len(sizes)
    stride = _numbers(node, "strides", [1] * rank)
    dilation = _numbers(node, "dilations", [1] * rank)
    pads = _numbers(node, "pads", [0] * 2 * rank)
    declared = node.attribute("kernel_shape")
    if declared is not None and list(declared) != list(kernel):
        raise ValueError(f"kernel_shape is {list(declared)}, must be the weight's {list(kernel)}")
    for name, numbers in (("strides", stride), ("dilations", dilation), ("kernel_shape", kernel)):
        if len(numbers) != rank or min(numbers) < 1 or max(numbers) > MAX_SIZE:
            raise ValueError(f"{name} is {list(numbers)}, must be {rank} numbers of at least 1")
    if len(pads) != 2 * rank or min(pads) < 0 or max(pads) > MAX_SIZE:
        raise ValueError(f"pads is {pads}, must be {2 * rank} numbers of at least 0")
    ceil = bool(node.attribute("ceil_mode", 0))
    auto = node.attribute("auto_pad", "NOTSET")
    begin, end, out, extra = [], [], [], []
    for axis in range(rank):
        extent = (kernel[axis] - 1) * dilation[axis] + 1
        size, step = sizes[axis], stride[axis]
        before, after = pads[axis], pads[axis + rank]
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            count = -(-size // step)
            total = max((count - 1) * step + extent - size, 0)
            before = total // 2 if auto == "SAME_UPPER" else total - total // 2
            after = total - before
        elif auto == "VALID":
            before = after = 0
        elif auto != "NOTSET":
            raise ValueError(f"auto_pad is {auto!r}, must be one of NOTSET, SAME_UPPER, SAME_LOWER, VALID")
        room = size + before + after - extent
        # A pooling may have no window at all, or just the one that ceil_mode adds.
        if room < 0 and (node.op == "Conv" or room + step < 0):
            raise ValueError(f"the padded size {size + before + after} is below the window's {extent}")
        count = room // step + 1
        # A window that ceil_mode adds must begin inside the image or the padding before it.
        if ceil and room % step and count * step < size + before:
            count += 1
        begin.append(before)
        end.append(after)
        out.append(count)
        extra.append(max((count - 1) * step + extent - (size + before + after), 0))
    return Windows(
        tuple(sizes), tuple(kernel), tuple(stride), tuple(dilation), tuple(begin), tuple(end), tuple(out), tuple(extra)
    )


def transposed_windows(node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> Windows:
    """Those of a ConvTranspose over an input of these sizes; ``begin`` and ``end`` are what its output is cut by."""
    rank = len(sizes)
    stride = _numbers(node, "strides", [1] * rank)
    dilation = _numbers(node, "dilations", [1] * rank)
    extra = _numbers(node, "output_padding", [0] * rank)
    pads = _numbers(node, "pads", [0] * 2 * rank)
    shape = node.attribute("output_shape")
    auto = node.attribute("auto_pad", "NOTSET")
    begin, end, out = [], [], []
    for axis in range(rank):
        extent = (kernel[axis] - 1) * dilation[axis] + 1
        full = stride[axis] * (sizes[axis] - 1) + extra[axis] + extent
        before, after = pads[axis], pads[axis + rank]
        wanted = shape[axis - rank] if shape is not None else None
        if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
            wanted = sizes[axis] * stride[axis]
        if wanted is not None:
            total = max(full - wanted, 0)
            # The odd element is cut after for SAME_UPPER, else before.
            before = total // 2 if auto == "SAME_UPPER" else total - total // 2
            after = full - wanted - before
        begin.append(before)
        end.append(after)
        out.append(full - before - after)
    if min(out) < 1:
        raise ValueError(f"the output would have the sizes {out}, must be at least 1")
    return Windows(
        tuple(sizes), tuple(kernel), tuple(stride), tuple(dilation), tuple(begin), tuple(end), tuple(out), (0,) * rank
    )


def kernel_of(node: Node) -> list[int]:
    """A pooling's window."""
    kernel = node.attribute("kernel_shape")
    if kernel is None:
        raise NotNativeError("it has no kernel_shape")
    return list(kernel)


def _numbers(node: Node, name: str, default: list[int]) -> list[int]:
    values = node.attribute(name)
    return default if values is None or not len(values) else list(values)
