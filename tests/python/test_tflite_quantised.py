"""Quantised TFLite files against LiteRT: what the range of an output does to values that leave it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tflite", reason="writing the files needs the packages of the extra bench")
pytest.importorskip("sepconv._core", reason="needs the built engine")
pytest.importorskip("ai_edge_litert", reason="needs the package ai-edge-litert")

from ai_edge_litert.interpreter import Interpreter
from tflite_builder import CONV, DEPTHWISE

import sepconv
from sepconv.export.tflite_builder import TfliteBuilder
from sepconv.io import read_tflite

RNG = np.random.default_rng(5)
SIX, NINE = 6 / 255, 9 / 255


def network(kind: str, dtype: str, scale: float, zero_point: int, **fields: Any) -> bytes:
    """One quantised operator whose real results lie far below 0 and above 9."""
    b = TfliteBuilder()
    lowest = np.iinfo(dtype.lower()).min
    middle: dict[str, Any] = {"type_name": dtype, "scale": 1 / 16, "zero_point": lowest + 128}
    if kind == "QUANTIZE":
        x = b.input((1, 4, 4, 4))
    else:
        x = b.input((1, 1, 1, 4) if kind == "FULLY_CONNECTED" else (1, 4, 4, 4), **middle)
    y = b.tensor("y", (1, 8) if kind == "FULLY_CONNECTED" else (1, 4, 4, 4), dtype, scale=scale, zero_point=zero_point)
    values = RNG.integers(0, 256, (8, 4) if kind == "FULLY_CONNECTED" else (4, 1, 1, 4)) + lowest
    steps = {"scale": 1 / 16, "zero_point": 0 if dtype == "INT8" else 128}
    match kind:
        case "ADD":
            b.operator(kind, [x, x], y, "AddOptions", **fields)
        case "QUANTIZE":
            b.operator(kind, [x], y, "QuantizeOptions")
        case "FULLY_CONNECTED":
            w = b.constant("w", values.astype(dtype.lower()), **steps)
            b.operator(kind, [x, w], y, "FullyConnectedOptions", **fields)
        case _:
            depthwise = kind == "DEPTHWISE_CONV_2D"
            values = values.reshape((1, 2, 2, 4) if depthwise else (4, 1, 1, 4))
            w = b.constant("w", values.astype(dtype.lower()), **steps)
            bias = b.constant("bias", np.zeros(4, np.int32), scale=1 / 256, zero_point=0)
            options = {**DEPTHWISE, "DepthMultiplier": 1} if depthwise else CONV
            b.operator(kind, [x, w, bias], y, **{**options, **fields})
    return b.finish(y)


def both(data: bytes, path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Our result, LiteRT's as real numbers, and one step of its output."""
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    (x,), (y,) = interpreter.get_input_details(), interpreter.get_output_details()
    if x["dtype"] == np.float32:
        values = RNG.uniform(-12, 12, x["shape"]).astype(np.float32)
    else:
        values = RNG.integers(np.iinfo(x["dtype"]).min, np.iinfo(x["dtype"]).max + 1, x["shape"]).astype(x["dtype"])
    interpreter.set_tensor(x["index"], values)
    interpreter.invoke()
    scale, zero_point = y["quantization"]
    expected = (interpreter.get_tensor(y["index"]).astype(np.float32) - zero_point) * np.float32(scale)
    path.write_bytes(data)
    result = sepconv.load(path)(values.reshape(1, 1, 1, -1) if values.ndim == 2 else values)
    return result.reshape(expected.shape), expected, scale


@pytest.mark.parametrize("dtype", ["UINT8", "INT8"])
@pytest.mark.parametrize("scale", [SIX, NINE])
@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "QUANTIZE"])
def test_a_range_from_0_is_an_activation(kind: str, scale: float, dtype: str, tmp_path: Path) -> None:
    data = network(kind, dtype, scale, np.iinfo(dtype.lower()).min)
    result, expected, step = both(data, tmp_path / "q.tflite")
    assert result.min() == 0
    highest = 255 * step
    assert expected.max() == pytest.approx(highest)  # what the range cuts off was there
    within = np.minimum(result, highest)  # what ends elsewhere than at 6 is not cut off
    np.testing.assert_allclose(within, expected, atol=1.01 * step)
    assert (result.max() <= 6) == (scale == SIX)


@pytest.mark.parametrize(
    ("fused", "scale", "zero_point", "expected"),
    [(0, SIX, 0, "relu6"), (0, 6 / 255.49, 0, "relu6"), (0, 6 / 254.4, 0, "relu"), (0, 6 / 255.6, 0, "relu"),
     (0, SIX, 1, "none"), (1, SIX, 0, "relu"), (3, NINE, 0, "relu6")],
)  # fmt: skip
def test_what_a_range_means(fused: int, scale: float, zero_point: int, expected: str) -> None:
    for kind in ("CONV_2D", "ADD"):
        layer: Any = read_tflite(network(kind, "UINT8", scale, zero_point, FusedActivationFunction=fused))[1]
        assert layer.activation == expected


def test_a_quantised_input_keeps_its_range() -> None:
    """Both tensors begin at 0: nothing is left to clamp."""
    b = TfliteBuilder()
    x = b.input((1, 2, 2, 1), "UINT8", scale=1 / 255, zero_point=0)
    y = b.operator("QUANTIZE", [x], b.tensor("y", (1, 2, 2, 1), "INT8", scale=1 / 255, zero_point=-128))
    assert [layer.name for layer in read_tflite(b.finish(b.operator("RELU", [y], (1, 2, 2, 1))))] == ["input", "relu_1"]
