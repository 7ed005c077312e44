"""model.verify: right engines pass, wrong ones are caught in the layer that is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pytest
from oracle import Float32, normal

from sepconv import _core, graph, verify
from sepconv.graph import ActivationName, Input, Layer
from sepconv.lowering import folded_layers
from sepconv.model import Model
from sepconv.models import mobilenet_v1, mobilenet_v2


def every_layer_type(activation: Any = "none") -> list[Layer]:
    norm = graph.BatchNorm(gamma=normal(20), beta=normal(20), mean=normal(20), variance=normal(20) ** 2, epsilon=1e-3)
    window = {"kernel": (3, 2), "stride": (2, 1), "padding": ((1, 1), (0, 1)), "activation": activation}
    return [
        Input(name="a", shape=(6, 5, 20)),
        Input(name="b", shape=(6, 5, 20)),
        graph.Pad(name="pad", inputs=("a",), padding=((1, 1), (1, 1))),
        graph.DepthwiseConv2d(
            name="depthwise", inputs=("pad",), weight=normal(3, 3, 20, 1), batch_norm=norm, activation=activation
        ),
        graph.Conv2d(
            name="conv", inputs=("depthwise",), weight=normal(1, 1, 20, 20), bias=normal(20), activation=activation
        ),
        graph.Add(name="add", inputs=("b", "conv"), activation=activation),
        graph.AveragePool2d(name="average", inputs=("add",), **window),
        graph.MaxPool2d(name="max", inputs=("average",), **window),
        graph.Activation(name="active", inputs=("max",), activation=activation),
        graph.Reshape(name="reshape", inputs=("active",), shape=(5, 2, 20)),
        graph.GlobalAveragePool(name="pool", inputs=("reshape",)),
        graph.FullyConnected(
            name="logits", inputs=("pool",), weight=normal(20, 7), bias=normal(7), activation=activation
        ),
        graph.Softmax(name="shares", inputs=("logits",), beta=1.5),
        graph.LayerNorm(name="norm", inputs=("conv",), scale=normal(20), bias=normal(20), epsilon=1e-3),
        graph.PRelu(name="sloped", inputs=("conv",), slope=normal(20)),
        graph.LayerNorm(name="plain norm", inputs=("logits",)),
        graph.Mul(name="scaled", inputs=("b", "pool"), activation=activation),
        graph.Concat(name="together", inputs=("scaled", "conv")),
        graph.ChannelShuffle(name="mixed", inputs=("together",), groups=8),
        graph.ChannelSlice(name="part", inputs=("mixed",), begin=3, end=23),
        graph.Upsample(name="larger", inputs=("part",), size=(12, 7)),
    ]


@pytest.mark.parametrize("activation", get_args(ActivationName))
def test_every_layer_type_passes(activation: str) -> None:
    layers = every_layer_type(activation)
    for seed in range(5):
        verification = Model(layers, name="all").verify(
            normal(2, 6, 5, 20, seed=seed), normal(2, 6, 5, 20, seed=seed + 9)
        )
        assert verification.ok, str(verification)
        assert verification.fused_matches
        assert [row.name for row in verification.layers] == [layer.name for layer in layers[2:]]
        assert [row.type for row in verification.layers] == [type(layer).__name__ for layer in layers[2:]]


def test_large_and_small_values_pass() -> None:
    model = Model(every_layer_type(), name="all")
    for scale in (1e-38, 1e-20, 1e15, 0.0):
        x = normal(1, 6, 5, 20) * np.float32(scale)
        assert model.verify(x, x).ok


def test_sums_of_denormals_and_products_beyond_float32_pass() -> None:
    weight = np.full((4, 4, 8, 2), 0.02, np.float32)
    layers = [
        Input(name="x", shape=(4, 4, 8)),
        graph.Conv2d(name="conv", inputs=("x",), weight=weight),
        graph.Mul(name="square", inputs=("x", "x")),
        graph.Mul(name="minus", inputs=("square", "x")),
    ]
    model = Model(layers, name="far", outputs=["conv", "minus"])
    for value in (2e-38, 1e20, -1e20):
        verification = model.verify(np.full((1, 4, 4, 8), value, np.float32))
        assert verification.ok, str(verification)


def test_hard_swish_is_allowed_its_slope() -> None:
    """Its slope of 1.5 below 3 carries a convolution's error on: a bound on the sum alone would be too tight."""
    weight, bias = normal(1, 1, 512, 64, seed=3), np.full(64, 2.9, np.float32)
    layers = [
        Input(name="x", shape=(9, 9, 512)),
        graph.Conv2d(name="conv", inputs=("x",), weight=weight * np.float32(1e-3), bias=bias, activation="hard_swish"),
    ]
    assert Model(layers, name="steep").verify(normal(1, 9, 9, 512)).ok


def test_a_batch_norm_is_folded_as_it_is_given() -> None:
    """Its float64 is not rounded before: here a mean and a bias that nearly cancel. Nor does float32 change any bit."""
    mean = 1e3 + np.random.default_rng(1).random(8)
    norm = graph.BatchNorm(gamma=normal(8), beta=normal(8), mean=mean, variance=normal(8) ** 2, epsilon=1e-3)
    for kind, weight in ((graph.Conv2d, normal(3, 3, 4, 8)), (graph.DepthwiseConv2d, normal(3, 3, 4, 2))):
        for bias in (mean + 1e-3, np.float32(mean)):
            conv = kind(name="c", inputs=("x",), weight=weight, bias=bias, batch_norm=norm)
            layers: list[Layer] = [Input(name="x", shape=(5, 5, 4)), conv]
            model, x = Model(layers, name="wide"), normal(1, 5, 5, 4)
            assert model.verify(x).ok
            assert np.array_equal(model(x), Model(folded_layers(layers), name="folded")(x))
    arrays: dict[str, Any] = {part: np.float32(getattr(norm, part)) for part in ("gamma", "beta", "mean", "variance")}
    single = dataclasses.replace(conv, batch_norm=dataclasses.replace(norm, **arrays))
    wide: dict[str, Any] = {part: np.float64(array) for part, array in arrays.items()}
    double = dataclasses.replace(single, batch_norm=dataclasses.replace(norm, **wide))
    same = [Model([layers[0], layer], name="m")(x).tobytes() for layer in (single, double)]
    assert same[0] == same[1]


def test_real_networks_pass() -> None:
    for model in (
        mobilenet_v1(alpha=0.25, resolution=65, classes=9),
        mobilenet_v2(alpha=0.35, resolution=64, classes=9),
    ):
        size = model.inputs[0].shape[1]
        assert size is not None
        verification = model.verify(normal(1, size, size, 3))
        assert verification.ok, str(verification)
        assert len(verification.layers) == len(model.layers) - 1


def test_nan_weights_pass_as_they_should_give_nan() -> None:
    layers = every_layer_type("relu")
    layers[3].weight[0, 0, 4] = np.nan  # type: ignore[attr-defined]
    layers[4].bias[2] = np.inf  # type: ignore[attr-defined]
    assert Model(layers, name="all").verify(normal(1, 6, 5, 20), normal(1, 6, 5, 20)).ok


def test_only_the_first_image_counts() -> None:
    model = mobilenet_v1(alpha=0.25, resolution=32, classes=3)
    x = normal(3, 32, 32, 3)
    first = model.verify(x[:1])
    assert model.verify(x) == first
    assert model.verify(x[::-1]) != first


def test_prints_a_table() -> None:
    text = str(Model(every_layer_type(), name="all").verify(normal(1, 6, 5, 20), normal(1, 6, 5, 20)))
    lines = text.splitlines()
    assert lines[0].split("  ")[0] == "layer"
    assert lines[-1] == "The fused plan gives the same bits as the layers one by one."
    assert sum(line.endswith("ok") for line in lines) == 19
    assert "FAIL" not in text


class Faulty:
    """A plan whose result for one output is a little off."""

    def __init__(self, fault: str, layers: Sequence[Layer]) -> None:
        self._index = [layer.name for layer in layers].index(fault)

    def __call__(self, compiled: _core.Graph, fusion: str) -> Faulty:
        self._plan = _core.Plan(compiled, fusion)
        return self

    def run(self, inputs: Sequence[Float32], threads: int) -> list[Float32]:
        results = self._plan.run(inputs, threads)
        flat = results[self._index].reshape(-1)
        worst = np.argmax(np.abs(flat))
        flat[worst] *= np.float32(1 + 1e-4)
        return results


@pytest.mark.parametrize("fault", [layer.name for layer in every_layer_type()[2:]])
def test_a_wrong_layer_is_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = every_layer_type()
    model = Model(layers, name="all")
    monkeypatch.setattr(verify, "Plan", Faulty(fault, layers))
    verification = model.verify(normal(1, 6, 5, 20), normal(1, 6, 5, 20))
    assert not verification.ok
    assert fault in [row.name for row in verification.layers if not row.ok]
    # A reader's value was computed before the fault was put in, so it may be blamed for not following it.
    assert {row.name for row in verification.layers if not row.ok} <= {fault, *readers(fault, layers)}
    assert f"{fault}  " in next(line for line in str(verification).splitlines() if line.endswith("FAIL"))
    assert verification.fused_matches == (fault not in ("shares", "norm", "sloped", "plain norm", "larger"))


def readers(name: str, layers: Sequence[Layer]) -> set[str]:
    return {layer.name for layer in layers if name in layer.inputs}


def test_other_bits_of_the_fused_plan_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model = mobilenet_v1(alpha=0.25, resolution=32, classes=3)
    x = normal(1, 32, 32, 3)
    right = model(x)
    monkeypatch.setattr(type(model), "__call__", lambda self, x: np.nextafter(right, np.float32(9)))
    verification = model.verify(x)
    assert all(row.ok for row in verification.layers)
    assert not verification.ok
    assert str(verification).endswith("FAIL: other bits than the layers one by one.")


@pytest.mark.parametrize("right, wrong", [(1, np.nan), (1, np.inf), (np.nan, 1), (np.inf, 1), (np.inf, -np.inf)])
def test_nan_and_infinity_must_be_where_the_oracle_has_them(
    right: float, wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers: list[Layer] = [Input(name="x", shape=(2, 2, 3)), graph.Pad(name="y", inputs=("x",), padding=((1, 0),) * 2)]

    class Spoiled(Faulty):
        def run(self, inputs: Sequence[Float32], threads: int) -> list[Float32]:
            results = self._plan.run(inputs, threads)
            assert np.array_equal(results[self._index].reshape(-1)[-1], np.float32(right), equal_nan=True)
            results[self._index].reshape(-1)[-1] = wrong
            return results

    model, x = Model(layers, name="padded"), normal(1, 2, 2, 3)
    x[0, 1, 1, 2] = right
    assert model.verify(x).ok
    monkeypatch.setattr(verify, "Plan", Spoiled("y", layers))
    assert [row.ok for row in model.verify(x).layers] == [False]
