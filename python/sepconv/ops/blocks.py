"""Blocks of convolutions in one call: the activations in between never leave the caches."""

from __future__ import annotations

from typing import Any, SupportsIndex

import numpy as np

from .arguments import Layout, PaddingLike, PairLike, check_layout
from .engine import Call, check_activations, plain, recall
from .prepared import Prepared, prepared


def separable_conv2d(
    x: Any,
    depthwise_weight: Any,
    pointwise_weight: Any,
    depthwise_bias: Any = None,
    pointwise_bias: Any = None,
    *,
    stride: PairLike = 1,
    padding: PaddingLike = 0,
    dilation: PairLike = 1,
    middle_activation: str = "none",
    activation: str = "none",
    residual: Any = None,
    layout: Layout = "NHWC",
    out: Any = None,
    threads: SupportsIndex | None = None,
) -> Any:
    """Depthwise, then pointwise convolution, each with its bias and activation.

    MobileNet V1 has ReLU at both places; TensorFlow's and Keras's separable convolutions have nothing in the middle.

    In torch, with ``layout="NCHW"``::

        filtered = F.conv2d(x, depthwise_weight, depthwise_bias, stride, padding, dilation, groups=x.shape[1])
        F.conv2d(filtered, pointwise_weight, pointwise_bias)

    In TensorFlow, with ``layout="NHWC"``, ``padding="same"`` and without biases::

        tf.nn.separable_conv2d(x, depthwise_weight, pointwise_weight, [1, stride, stride, 1], "SAME")

    Args:
        x: [n, h, w, C] in layout "NHWC", [n, C, h, w] in "NCHW"; types as for :func:`depthwise_conv2d`.
        depthwise_weight: [kh, kw, C, M] in "NHWC", [C*M, 1, kh, kw] in "NCHW", or from ``prepare(w, "depthwise")``.
        pointwise_weight: [1, 1, C*M, N] in "NHWC", [N, C*M, 1, 1] in "NCHW", or from ``prepare(w, "pointwise")``.
        depthwise_bias: [C*M], or None; None where the weight is prepared.
        pointwise_bias: [N], or None; None where the weight is prepared.
        middle_activation: after the depthwise convolution; activation: after the pointwise one.
        residual: None, or an array of the result's shape that is added before the last activation.
        stride, padding, dilation: of the depthwise convolution, as for :func:`depthwise_conv2d`.
        layout, out, threads: as for :func:`depthwise_conv2d`.

    Returns, raises:
        As :func:`depthwise_conv2d`, with N channels.
    """
    key = None
    ready = type(depthwise_weight) is Prepared and type(pointwise_weight) is Prepared
    unbiased = depthwise_bias is None and pointwise_bias is None
    if ready and unbiased and type(x) is np.ndarray and plain(residual, out):
        key = (depthwise_weight, x.shape, stride, padding, dilation, middle_activation, activation, layout)
        result = recall(pointwise_weight, key, x, residual, out, threads)
        if result is not None:
            return result
    check_layout(layout)
    check_activations(middle_activation=middle_activation, activation=activation)
    call = Call("separable_conv2d", x, layout)
    middle = prepared("depthwise_weight", depthwise_weight, "depthwise", "depthwise_bias", depthwise_bias, layout)
    last = prepared(
        "pointwise_weight", pointwise_weight, "pointwise", "pointwise_bias", pointwise_bias, layout, pixels=call.pixels
    )
    call.depthwise("depthwise_weight", middle, depthwise_weight, stride, padding, dilation, middle_activation)
    call.pointwise("pointwise_weight", last, pointwise_weight, activation)
    return call.run(residual, out, threads, key)


def inverted_residual(
    x: Any,
    expand_weight: Any,
    depthwise_weight: Any,
    project_weight: Any,
    expand_bias: Any = None,
    depthwise_bias: Any = None,
    project_bias: Any = None,
    *,
    stride: PairLike = 1,
    padding: PaddingLike = 0,
    dilation: PairLike = 1,
    activation: str = "relu6",
    project_activation: str = "none",
    residual: Any = None,
    layout: Layout = "NHWC",
    out: Any = None,
    threads: SupportsIndex | None = None,
) -> Any:
    """MobileNet V2's block: pointwise to more channels, depthwise, pointwise to fewer, and a residual.

    In torch, with ``layout="NCHW"`` and ``residual=x``::

        expanded = F.relu6(F.conv2d(x, expand_weight, expand_bias))
        groups = expanded.shape[1]
        filtered = F.relu6(F.conv2d(expanded, depthwise_weight, depthwise_bias, stride, padding, dilation, groups))
        F.conv2d(filtered, project_weight, project_bias) + x

    In TensorFlow, with ``layout="NHWC"``, ``padding="same"``, ``residual=x`` and without biases::

        expanded = tf.nn.relu6(tf.nn.conv2d(x, expand_weight, 1, "SAME"))
        filtered = tf.nn.relu6(tf.nn.depthwise_conv2d(expanded, depthwise_weight, [1, 1, 1, 1], "SAME"))
        tf.nn.conv2d(filtered, project_weight, 1, "SAME") + x

    Args:
        x: [n, h, w, C] in layout "NHWC", [n, C, h, w] in "NCHW"; types as for :func:`depthwise_conv2d`.
        expand_weight: [1, 1, C, E] in "NHWC", [E, C, 1, 1] in "NCHW", or from ``prepare(w, "pointwise")``; None for a
            block that does not expand, as MobileNet V2's first.
        depthwise_weight: [kh, kw, E, M] in "NHWC", [E*M, 1, kh, kw] in "NCHW", or from ``prepare(w, "depthwise")``.
        project_weight: [1, 1, E*M, N] in "NHWC", [N, E*M, 1, 1] in "NCHW", or from ``prepare(w, "pointwise")``.
        expand_bias, depthwise_bias, project_bias: one value an output channel, or None; None beside prepared ones.
        activation: after the expansion and after the depthwise convolution.
        project_activation: at the end, after the residual.
        residual: None, or an array of the result's shape that is added: x itself in a network's blocks at stride 1.
        stride, padding, dilation: of the depthwise convolution, as for :func:`depthwise_conv2d`.
        layout, out, threads: as for :func:`depthwise_conv2d`.

    Returns, raises:
        As :func:`depthwise_conv2d`, with N channels.
    """
    key = None
    ready = type(depthwise_weight) is Prepared and type(project_weight) is Prepared
    ready = ready and (expand_weight is None or type(expand_weight) is Prepared)
    unbiased = expand_bias is None and depthwise_bias is None and project_bias is None
    if ready and unbiased and type(x) is np.ndarray and plain(residual, out):
        settings = (stride, padding, dilation, activation, project_activation, layout)
        key = (expand_weight, depthwise_weight, x.shape, *settings)
        result = recall(project_weight, key, x, residual, out, threads)
        if result is not None:
            return result
    check_layout(layout)
    check_activations(activation=activation, project_activation=project_activation)
    call = Call("inverted_residual", x, layout)
    if expand_weight is not None:
        first = prepared("expand_weight", expand_weight, "pointwise", "expand_bias", expand_bias, layout)
        call.pointwise("expand_weight", first, expand_weight, activation)
    elif expand_bias is not None:
        raise ValueError("expand_bias was given without expand_weight, must be None")
    middle = prepared("depthwise_weight", depthwise_weight, "depthwise", "depthwise_bias", depthwise_bias, layout)
    last = prepared("project_weight", project_weight, "pointwise", "project_bias", project_bias, layout)
    call.depthwise("depthwise_weight", middle, depthwise_weight, stride, padding, dilation, activation)
    call.pointwise("project_weight", last, project_weight, project_activation)
    return call.run(residual, out, threads, key)
