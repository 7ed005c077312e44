"""Single convolutions on anyone's arrays."""

from __future__ import annotations

from typing import Any, SupportsIndex

import numpy as np

from .arguments import Layout, PaddingLike, PairLike, check_layout
from .engine import Call, check_activations, plain, recall
from .prepared import Prepared, prepared


def depthwise_conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: PairLike = 1,
    padding: PaddingLike = 0,
    dilation: PairLike = 1,
    activation: str = "none",
    layout: Layout = "NHWC",
    out: Any = None,
    threads: SupportsIndex | None = None,
) -> Any:
    """Convolve each channel with filters of its own.

    In torch, with ``layout="NCHW"``::

        torch.nn.functional.conv2d(x, weight, bias, stride, padding, dilation, groups=x.shape[1])

    In TensorFlow, with ``layout="NHWC"`` and ``padding="same"``::

        tf.nn.depthwise_conv2d(x, weight, [1, stride, stride, 1], "SAME", dilations=[dilation, dilation]) + bias

    Args:
        x: [n, h, w, C] in layout "NHWC", [n, C, h, w] in "NCHW": float32; float16, bfloat16 and float64 are converted
            to float32, computed in it, and the result is converted back. A numpy array of any strides, an array with
            ``__dlpack__`` in memory of the CPU or pinned there for a GPU (torch, JAX), or a buffer. It is read where it
            lies, in any layout; :func:`sepconv.last_call` tells what was copied all the same.
        weight: [kh, kw, C, M] in "NHWC", [C*M, 1, kh, kw] in "NCHW", or from ``prepare(weight, "depthwise")``. Output
            channel c*M + m is channel c with filter m.
        bias: [C*M], or None; None where the weight is prepared.
        stride, dilation: an int or (height, width).
        padding: zeros around the image: an int, (height, width), ((top, bottom), (left, right)), "valid" (none), "same"
            (TensorFlow's rule: ceil(size / stride) outputs, an odd zero after), or "same_lower" (an odd zero before).
        activation: "none", "relu", "relu6", "hard_swish", "hard_sigmoid", "sigmoid", "silu",
            "gelu" or "gelu_tanh".
        out: where to write the result: an array of its shape, of any floating type and strides, not read-only. Where it
            may share memory with an input, the result is copied to it at the end.
        threads: how many to run on; None for :func:`sepconv.num_threads`. The result is the same to the bit.

    Returns:
        ``out`` where given, else an array of x's library and type: [n, oh, ow, C*M] in "NHWC", [n, C*M, oh, ow] in
        "NCHW", with its channels last in memory where x's are. Buffers give a numpy array. Inputs are never written to.

    Raises:
        TypeError: an argument is of another kind, or its numbers of another type, than above.
        ValueError: shapes do not fit together, or a value is out of its range.
        BufferError: an array with ``__dlpack__`` does not give its memory, or is a torch tensor that is not what its
            memory holds: sparse, a negation put off, or one that requires a gradient (but within ``torch.no_grad()``).
        KeyboardInterrupt: Ctrl-C during the run.
    """
    key = None
    if type(x) is np.ndarray and type(weight) is Prepared and bias is None and plain(out):
        key = (x.shape, stride, padding, dilation, activation, layout)
        result = recall(weight, key, x, None, out, threads)
        if result is not None:
            return result
    check_layout(layout)
    check_activations(activation=activation)
    call = Call("depthwise_conv2d", x, layout)
    weights = prepared("weight", weight, "depthwise", "bias", bias, layout)
    call.depthwise("weight", weights, weight, stride, padding, dilation, activation)
    return call.run(None, out, threads, key)


def pointwise_conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    activation: str = "none",
    residual: Any = None,
    layout: Layout = "NHWC",
    out: Any = None,
    threads: SupportsIndex | None = None,
) -> Any:
    """Convolve with a window of 1×1: for each pixel, a matrix product over its channels.

    In torch, with ``layout="NCHW"``::

        torch.nn.functional.conv2d(x, weight, bias)

    In TensorFlow, with ``layout="NHWC"``::

        tf.nn.conv2d(x, weight, 1, "VALID") + bias

    Args:
        x: [n, h, w, C] in layout "NHWC", [n, C, h, w] in "NCHW"; types as for :func:`depthwise_conv2d`.
        weight: [1, 1, C, N] in "NHWC", [N, C, 1, 1] in "NCHW", or from ``prepare(weight, "pointwise")``.
        bias: [N], or None; None where the weight is prepared.
        activation, layout, out, threads: as for :func:`depthwise_conv2d`.
        residual: None, or an array of the result's shape that is added before the activation.

    Returns, raises:
        As :func:`depthwise_conv2d`, with N channels.
    """
    key = None
    if type(x) is np.ndarray and type(weight) is Prepared and bias is None and plain(residual, out):
        key = ("pointwise_conv2d", x.shape, activation, layout)
        result = recall(weight, key, x, residual, out, threads)
        if result is not None:
            return result
    check_layout(layout)
    check_activations(activation=activation)
    call = Call("pointwise_conv2d", x, layout)
    weights = prepared("weight", weight, "pointwise", "bias", bias, layout, pixels=call.pixels)
    call.pointwise("weight", weights, weight, activation)
    return call.run(residual, out, threads, key)


def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: PairLike = 1,
    padding: PaddingLike = 0,
    dilation: PairLike = 1,
    groups: int = 1,
    activation: str = "none",
    layout: Layout = "NHWC",
    out: Any = None,
    threads: SupportsIndex | None = None,
) -> Any:
    """Convolve all channels, or each group of them, with each filter.

    In torch, with ``layout="NCHW"``::

        torch.nn.functional.conv2d(x, weight, bias, stride, padding, dilation, groups)

    In TensorFlow, with ``layout="NHWC"`` and ``padding="same"``::

        tf.nn.conv2d(x, weight, stride, "SAME", dilations=dilation) + bias

    Args:
        x: [n, h, w, C] in layout "NHWC", [n, C, h, w] in "NCHW"; types as for :func:`depthwise_conv2d`.
        weight: [kh, kw, C/groups, N] in "NHWC", [N, C/groups, kh, kw] in "NCHW", or from ``prepare(weight, "conv")``.
        bias: [N], or None; None where the weight is prepared.
        groups: into how many parts channels and filters are divided; each part sees its own. For as many as there are
            channels :func:`depthwise_conv2d` is faster.
        stride, padding, dilation, activation, layout, out, threads: as for :func:`depthwise_conv2d`.

    Returns, raises:
        As :func:`depthwise_conv2d`, with N channels.
    """
    key = None
    if type(x) is np.ndarray and type(weight) is Prepared and bias is None and plain(out):
        key = (x.shape, stride, padding, dilation, groups, activation, layout)
        result = recall(weight, key, x, None, out, threads)
        if result is not None:
            return result
    check_layout(layout)
    check_activations(activation=activation)
    call = Call("conv2d", x, layout)
    weights = prepared("weight", weight, "conv", "bias", bias, layout, groups)
    call.dense("weight", weights, weight, stride, padding, dilation, activation)
    return call.run(None, out, threads, key)
