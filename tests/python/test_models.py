"""The model builders as lists of layers: tables and arguments."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sepconv.conventions import TIMM
from sepconv.graph import (
    Add,
    Convolution,
    DepthwiseConv2d,
    Layer,
    infer_shapes,
    outputs,
)
from sepconv.models import efficientnet_lite0_layers, mobilenet_v1_layers, mobilenet_v2_layers, named_weights
from sepconv.models.builder import round_to_eight

BUILDERS: dict[str, Callable[..., list[Layer]]] = {
    "mobilenet_v1": mobilenet_v1_layers,
    "mobilenet_v2": mobilenet_v2_layers,
    "efficientnet_lite0": efficientnet_lite0_layers,
}
every_builder = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)


# --- The tables


def test_mobilenet_v1_is_the_papers_table() -> None:
    layers = mobilenet_v1_layers()
    shapes = infer_shapes(layers)
    blocks = [f"block{n}" for n in range(1, 14)]
    halves = [f"{block}.{half}" for block in blocks for half in ("depthwise", "pointwise")]
    assert [layer.name for layer in layers] == ["input", "stem", *halves, "pool", "classifier"]
    assert [shapes[f"{block}.pointwise"][::2] for block in blocks] == [
        (112, 64), (56, 128), (56, 128), (28, 256), (28, 256), *[(14, 512)] * 6, (7, 1024), (7, 1024)
    ]  # fmt: skip
    assert outputs(layers) == ("classifier",)
    assert shapes["classifier"] == (1, 1, 1000)
    assert {layer.activation for layer in layers if isinstance(layer, Convolution)} == {"relu6"}


def test_mobilenet_v1_variants() -> None:
    full = mobilenet_v1_layers(variant="full")
    assert not any(isinstance(layer, DepthwiseConv2d) for layer in full)
    assert infer_shapes(full)["block13.conv"] == (7, 7, 1024)
    shallow = mobilenet_v1_layers(variant="shallow")
    assert len(mobilenet_v1_layers()) - len(shallow) == 2 * 5
    assert infer_shapes(shallow)["block8.pointwise"] == (7, 7, 1024)


def test_mobilenet_v2_is_the_papers_table() -> None:
    layers = mobilenet_v2_layers()
    shapes = infer_shapes(layers)
    projections = [shapes[f"block{n}.project"] for n in range(1, 18)]
    assert [shape[2] for shape in projections] == [16, *[24] * 2, *[32] * 3, *[64] * 4, *[96] * 3, *[160] * 3, 320]
    assert [shape[0] for shape in projections] == [112, *[56] * 2, *[28] * 3, *[14] * 7, *[7] * 4]
    assert sum(isinstance(layer, Add) for layer in layers) == 10
    assert {layer.activation for layer in layers if layer.name.endswith((".project", ".add"))} == {"none"}  # type: ignore[attr-defined]
    assert shapes["head"] == (7, 7, 1280)


def test_efficientnet_lite0_is_the_papers_table() -> None:
    layers = efficientnet_lite0_layers()
    shapes = infer_shapes(layers)
    projections = [shapes[f"block{n}.project"] for n in range(1, 17)]
    assert [s[2] for s in projections] == [16, *[24] * 2, *[40] * 2, *[80] * 3, *[112] * 3, *[192] * 4, 320]
    kernels = [layer.weight.shape[0] for layer in layers if isinstance(layer, DepthwiseConv2d)]  # type: ignore[union-attr]
    assert kernels == [3, *[3] * 2, *[5] * 2, *[3] * 3, *[5] * 3, *[5] * 4, 3]


@pytest.mark.parametrize(
    "channels, expected",
    [(32 * 0.35, 16), (24 * 0.35, 8), (96 * 0.35, 32), (3, 8), (12, 16), (28, 32), (11, 16), (44.9, 48)],
)
def test_round_to_eight(channels: float, expected: int) -> None:
    assert round_to_eight(channels) == expected


def test_width_multipliers() -> None:
    v1, v2 = infer_shapes(mobilenet_v1_layers(0.3)), infer_shapes(mobilenet_v2_layers(0.35))
    assert (v1["stem"][2], v1["block1.pointwise"][2], v1["block13.pointwise"][2]) == (9, 19, 307)
    assert (v2["stem"][2], v2["block1.project"][2], v2["block17.project"][2], v2["head"][2]) == (16, 8, 112, 1280)
    assert infer_shapes(mobilenet_v2_layers(1.4))["head"][2] == 1792


# --- Arguments


@every_builder
@pytest.mark.parametrize("resolution", [*range(33, 71, 2), 32, 64, 224, 225])
def test_any_resolution_builds(build: Callable[..., list[Layer]], resolution: int) -> None:
    layers = build(resolution=resolution)
    shapes = infer_shapes(layers)
    # SAME at each of the five strides of 2: the ceiling.
    assert shapes[layers[-3].name][0] == math.ceil(resolution / 32)
    assert infer_shapes(build(resolution=resolution, padding="torch")) == shapes


def test_rho_is_another_name_for_resolution() -> None:
    expected = infer_shapes(mobilenet_v1_layers(resolution=160))
    assert infer_shapes(mobilenet_v1_layers(rho=5 / 7)) == expected
    assert infer_shapes(mobilenet_v1_layers(resolution=160, rho=0.714)) == expected
    two: Any = np.uint8(2)
    assert infer_shapes(mobilenet_v1_layers(rho=two)) == infer_shapes(mobilenet_v1_layers(resolution=448))
    with pytest.raises(ValueError, match=r"resolution was 192 beside rho = 0.5, must be left out or 112"):
        mobilenet_v1_layers(resolution=192, rho=0.5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"alpha": 0}, "alpha was 0, must be a positive number of at most 10"),
        ({"alpha": float("nan")}, "alpha was nan"),
        ({"alpha": 0.01}, "alpha was 0.01, must leave at least 1 of 32 channels"),
        ({"resolution": 31}, "resolution was 31, must be an integer of at least 32"),
        ({"resolution": 224.0}, "resolution was 224.0"),
        ({"rho": -1.0}, "rho was -1.0"),
        ({"rho": 1e300}, "rho was 1e"),
        ({"rho": 1.0, "resolution": np.ones(2)}, "resolution was array"),
        ({"variant": np.ones(2)}, "variant was array"),
        ({"rho": 0.1}, "resolution was 22, must be"),
        ({"classes": 0}, "classes was 0"),
        ({"seed": -1}, "seed was -1"),
        ({"seed": 0.5}, "seed was 0.5"),
        ({"variant": "deep"}, "variant was 'deep', must be one of separable, full, shallow"),
        ({"padding": "valid"}, "padding was 'valid', must be None, 'same' or 'torch'"),
        ({"batch_norm_epsilon": -1.0}, "batch_norm_epsilon was -1.0"),
        (
            {"weights": {"a": np.ones(1)}},
            "weights held a, must hold the stem as stem.weight or conv_stem.weight",
        ),
    ],
)
def test_rejects_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mobilenet_v1_layers(**arguments)


def test_rejects_other_types_of_weights() -> None:
    with pytest.raises(TypeError, match="weights was int, must be None, a path or a mapping"):
        mobilenet_v1_layers(weights=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="weights held the name 1, must have non-empty strings"):
        mobilenet_v1_layers(weights={1: 2})  # type: ignore[dict-item]
    for name in ("", "\ud800"):
        with pytest.raises(ValueError, match=re.escape(f"weights held the name {name!r}, must have non-empty strings")):
            mobilenet_v1_layers(weights={name: np.ones(1)})
    arrays = {**named_weights(mobilenet_v1_layers(0.25)), "stem.weight": np.array("text")}
    with pytest.raises(TypeError, match=r"weights\['stem.weight'\] was of dtype <U4"):
        mobilenet_v1_layers(0.25, weights=arrays)
    arrays["stem.weight"] = [[1], [1, 2]]
    with pytest.raises(TypeError, match=r"weights\['stem.weight'\] was no array that NumPy can read: .*inhomogeneous"):
        mobilenet_v1_layers(0.25, weights=arrays)


def test_names_of_weights_are_escaped_and_cut() -> None:
    arrays = {"\x1b[2J": np.ones(1), "long" * 1000: np.ones(1)}
    with pytest.raises(ValueError, match=r"weights held \\x1b\[2J, (long){40}, must hold"):
        mobilenet_v1_layers(weights=arrays)
    with pytest.raises(ValueError, match=r"2 unexpected: \\x1b\[2J, (long){40}$"):
        mobilenet_v1_layers(0.25, weights={**named_weights(mobilenet_v1_layers(0.25)), **arrays})


# --- Models


@pytest.mark.parametrize("name", BUILDERS)
def test_models_compile_the_layers(name: str) -> None:
    models = pytest.importorskip("sepconv.models")
    pytest.importorskip("sepconv.threads", reason="the compiled core is not built")
    model = getattr(models, name)(resolution=33, classes=7, convention=TIMM)
    assert (model.name, model.convention) == (f"{name}_{'' if 'lite' in name else '1.0_'}33", TIMM)
    logits = model(np.random.default_rng(0).standard_normal((2, 33, 33, 3), dtype=np.float32))
    assert logits.shape == (2, 7)
    assert np.all(np.isfinite(logits))
    assert np.all(np.std(logits, axis=1) > 0)
