"""Small TFLite files for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from sepconv.export.tflite_builder import TfliteBuilder

RNG = np.random.default_rng(0)
CONV: dict[str, Any] = {"options": "Conv2DOptions", "StrideW": 1, "StrideH": 1}
DEPTHWISE: dict[str, Any] = {"options": "DepthwiseConv2DOptions", "StrideW": 1, "StrideH": 1}
POOL: dict[str, Any] = {"options": "Pool2DOptions", "StrideW": 2, "StrideH": 2, "FilterWidth": 3, "FilterHeight": 2}


def normal(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return RNG.standard_normal(shape, dtype=np.float32)


def small_network(b: TfliteBuilder | None = None, *, families: bool = False) -> bytes:
    """Many operators in a few kilobytes, float and quantised; ``b`` then holds what it was made from.

    families: the operators too that only the later families have.
    """
    b = TfliteBuilder() if b is None else b
    x = b.input((1, 9, 8, 3), "UINT8", scale=0.5, zero_point=3)
    x = b.operator("DEQUANTIZE", [x], (1, 9, 8, 3), "DequantizeOptions")
    paddings = b.constant("paddings", np.array([[0, 0], [1, 0], [2, 1], [0, 0]], np.int32))
    x = b.operator("PAD", [x, paddings], (1, 10, 11, 3), "PadOptions")
    weight = b.constant("w0", RNG.integers(0, 255, (4, 3, 3, 3), np.uint8), scale=0.1, zero_point=7)
    bias = b.constant("b0", RNG.integers(-9, 9, 4, np.int32), scale=0.05, zero_point=0)
    x = b.operator(
        "CONV_2D", [x, weight, bias], (1, 5, 6, 4), "Conv2DOptions", StrideW=2, StrideH=2, FusedActivationFunction=3
    )
    half = b.constant("half", normal(1, 3, 3, 8).astype(np.float16))
    weight = b.operator("DEQUANTIZE", [half], (1, 3, 3, 8))
    x = b.operator(
        "DEPTHWISE_CONV_2D", [x, weight, b.constant("b1", normal(8))], (1, 5, 6, 8), **DEPTHWISE, DepthMultiplier=2
    )
    if families:
        x = _families_operators(b, x)
    y = b.operator("RELU", [x], (1, 5, 6, 8))
    y = b.operator("RELU6", [y], (1, 5, 6, 8))
    x = b.operator("ADD", [x, y], (1, 5, 6, 8), "AddOptions", FusedActivationFunction=1)
    x = b.operator("QUANTIZE", [x], b.tensor("q", (1, 5, 6, 8), "INT8", scale=0.1, zero_point=0), "QuantizeOptions")
    x = b.operator("AVERAGE_POOL_2D", [x], (1, 3, 3, 8), **POOL)
    x = b.operator("MAX_POOL_2D", [x], (1, 1, 1, 8), **POOL, Padding=1)
    x = b.operator(
        "MEAN", [x, b.constant("axes", np.array([2, -3], np.int32))], (1, 1, 1, 8), "ReducerOptions", KeepDims=True
    )
    x = b.operator("SQUEEZE", [x], (1, 8), "SqueezeOptions", SqueezeDims=[1, 2])
    x = b.operator(
        "RESHAPE", [x, b.constant("shape", np.array([-1, 1, 4, 2], np.int32))], (1, 1, 4, 2), "ReshapeOptions"
    )
    weight = b.constant("w2", RNG.integers(-9, 9, (5, 8), np.int8), scale=[0.1, 0.2, 0.3, 0.4, 0.5], zero_point=[0] * 5)
    x = b.operator("FULLY_CONNECTED", [x, weight, -1], (1, 5), "FullyConnectedOptions")
    logits = b.operator("LOGISTIC", [x], (1, 5))
    return b.finish(b.operator("SOFTMAX", [logits], (1, 5), "SoftmaxOptions", Beta=2.0))


def _families_operators(b: TfliteBuilder, x: int) -> int:
    """What MobileNet V3 and ShuffleNet V2 have beside the rest, on [1, 5, 6, 8]."""
    shape = (1, 5, 6, 8)
    axes = b.constant("height and width", np.array([1, 2], np.int32))
    scale = b.operator("MEAN", [x, axes], (1, 1, 1, 8), "ReducerOptions", KeepDims=True)
    three, sixth = (b.constant(str(v), np.array(v, np.float32)) for v in (3.0, 1 / 6))
    scale = b.operator("ADD", [scale, three], (1, 1, 1, 8), "AddOptions", FusedActivationFunction=3)
    scale = b.operator("MUL", [scale, sixth], (1, 1, 1, 8), "MulOptions")
    x = b.operator("MUL", [x, scale], shape, "MulOptions")
    x = b.operator("ADD", [x, b.constant("terms", normal(8))], shape, "AddOptions")
    x = b.operator("HARD_SWISH", [x], shape)
    parts = []
    for begin, size in ((0, 3), (3, -1)):
        start = b.constant(f"begin {begin}", np.array([0, 0, 0, begin], np.int32))
        sizes = b.constant(f"sizes {size}", np.array([1, 5, 6, size], np.int32))
        parts.append(b.operator("SLICE", [x, start, sizes], (1, 5, 6, 3 if begin == 0 else 5), "SliceOptions"))
    x = b.operator("CONCATENATION", parts[::-1], shape, "ConcatenationOptions", Axis=3)
    x = b.operator("RESHAPE", [x, b.constant("rows", np.array([1, 5, 6, 2, 4], np.int32))], (1, 5, 6, 2, 4))
    order = b.constant("order", np.array([0, 1, 2, 4, 3], np.int32))
    x = b.operator("TRANSPOSE", [x, order], (1, 5, 6, 4, 2), "TransposeOptions")
    x = b.operator("RESHAPE", [x, b.constant("row", np.array([1, 5, 6, 8], np.int32))], shape)
    size = b.constant("size", np.array([10, 6], np.int32))
    x = b.operator("RESIZE_NEAREST_NEIGHBOR", [x, size], (1, 10, 6, 8), "ResizeNearestNeighborOptions")
    return b.operator(
        "MAX_POOL_2D", [x], shape, "Pool2DOptions", StrideW=1, StrideH=2, FilterWidth=1, FilterHeight=2, Padding=1
    )


def shared_weights(count: int) -> bytes:
    """Many convolutions with one set of weights: little in the file, gigabytes once each has its own."""
    b = TfliteBuilder()
    x = b.input((1, 1, 1, 256))
    weight = b.constant("w", np.ones((256, 1, 1, 256), np.int8), scale=1.0, zero_point=0)
    for _ in range(count):
        x = b.operator("CONV_2D", [x, weight], (1, 1, 1, 256), **CONV)
    return b.finish(x)


def with_operator(
    kind: str, *, shape: tuple[int, ...] = (1, 4, 4, 2), output: tuple[int, ...] = (1, 4, 4, 2), **options: Any
) -> bytes:
    b = TfliteBuilder()
    return b.finish(b.operator(kind, [b.input(shape)], output, **options))
