"""A separable convolution as TensorFlow's, in a program of plain NumPy that has the weights of a Keras model.

    python examples/tensorflow_layer.py

Before, ``features`` held

    y = tf.nn.separable_conv2d(x, depthwise, pointwise, [1, stride, stride, 1], "SAME")
    y = tf.nn.relu6(tf.nn.bias_add(y, bias))

sepconv takes the arrays as they are: NHWC images, weights [kh, kw, C, M] and [1, 1, C*M, N]. TensorFlow isn't needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import sepconv

Array = NDArray[np.float32]
Weights = tuple[Array, Array, Array]  # depthwise, pointwise, bias, as keras.layers.SeparableConv2D.get_weights() gives


def features(x: Array, weights: Weights, stride: int) -> Any:
    """[n, ceil(h/stride), ceil(w/stride), N] of [n, h, w, C]."""
    depthwise, pointwise, bias = weights
    return sepconv.separable_conv2d(
        x, depthwise, pointwise, pointwise_bias=bias, stride=stride, padding="same", activation="relu6"
    )


class Prepared:
    """The same for many calls: weights are packed once, and each call writes into one array."""

    def __init__(self, weights: Weights, stride: int) -> None:
        depthwise, pointwise, bias = weights
        self.depthwise = sepconv.prepare(depthwise, "depthwise")
        self.pointwise = sepconv.prepare(pointwise, "pointwise", bias)
        self.stride = stride

    def __call__(self, x: Array, out: Array | None = None) -> Any:
        return sepconv.separable_conv2d(
            x, self.depthwise, self.pointwise, stride=self.stride, padding="same", activation="relu6", out=out
        )


def by_hand(x: Array, weights: Weights, stride: int) -> NDArray[np.float64]:
    """What TensorFlow's documentation says that it computes, in a few lines of NumPy and in float64."""
    depthwise, pointwise, bias = (array.astype(np.float64) for array in weights)
    kh, kw, channels, multiplier = depthwise.shape
    pads = [(0, 0)]
    for size, kernel in ((x.shape[1], kh), (x.shape[2], kw)):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads.append((total // 2, total - total // 2))  # an odd zero comes after
    padded = np.pad(x.astype(np.float64), [*pads, (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), axis=(1, 2))[:, ::stride, ::stride]
    middle = np.einsum("nhwcij,ijcm->nhwcm", windows, depthwise).reshape(*windows.shape[:3], channels * multiplier)
    return np.clip(middle @ pointwise[0, 0] + bias, 0.0, 6.0)


def main() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((4, 57, 56, 32), dtype=np.float32)
    shapes = ((3, 3, 32, 1), (1, 1, 32, 64), (64,))
    depthwise, pointwise, bias = (random.standard_normal(shape, dtype=np.float32) for shape in shapes)
    weights = depthwise, pointwise, bias

    expected = by_hand(x, weights, stride=2)
    result = features(x, weights, stride=2)
    layer, out = Prepared(weights, stride=2), np.empty_like(result)
    assert layer(x, out=out) is out
    print(f"{result.shape} {result.dtype}, at most {np.abs(result - expected).max():.1e} from float64")
    print("prepared weights give the same bits:", np.array_equal(out, result))
    call = sepconv.last_call()
    print("copied on the way:", ", ".join(call.copied if call else ()) or "nothing")


if __name__ == "__main__":
    main()
