"""Model: what it accepts, what it gives, and what it tells about itself."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from oracle import every_isa, normal, run

import sepconv
from sepconv import graph
from sepconv.conventions import TIMM
from sepconv.graph import Input, Layer
from sepconv.io.arrays import LazyFloat32
from sepconv.model import Model, Port
from sepconv.models import efficientnet_lite0, mobilenet_v1, mobilenet_v1_layers, mobilenet_v2

BUILDERS: dict[str, Callable[..., Model]] = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v1_full": lambda **arguments: mobilenet_v1(alpha=0.25, variant="full", **arguments),
    "mobilenet_v1_shallow": lambda **arguments: mobilenet_v1(variant="shallow", **arguments),
    "mobilenet_v2": mobilenet_v2,
    "efficientnet_lite0": efficientnet_lite0,
}


def small_layers(**first: Any) -> list[Layer]:
    return [
        Input(name="image", shape=(5, 6, 3), **first),
        graph.Conv2d(name="conv", inputs=("image",), weight=normal(3, 3, 3, 20), bias=normal(20), activation="relu"),
        graph.GlobalAveragePool(name="pool", inputs=("conv",)),
        graph.FullyConnected(name="logits", inputs=("pool",), weight=normal(20, 4), bias=normal(4)),
    ]


@pytest.fixture(scope="module")
def small() -> Model:
    return Model(small_layers(), name="small")


# --- Inputs


@pytest.mark.parametrize(
    "x, error, message",
    [
        (normal(5, 6, 3), ValueError, r"input 'image' had shape \(5, 6, 3\), must have \(n, 5, 6, 3\)"),
        (normal(1, 1, 5, 6, 3), ValueError, r"had shape \(1, 1, 5, 6, 3\)"),
        (normal(1, 5, 6, 4), ValueError, r"had shape \(1, 5, 6, 4\), must have \(n, 5, 6, 3\)"),
        (normal(1, 6, 5, 3), ValueError, r"had shape \(1, 6, 5, 3\)"),
        (normal(1, 3, 5, 6), ValueError, r"had shape \(1, 3, 5, 6\)"),
        (normal(0, 5, 6, 3), ValueError, r"had shape \(0, 5, 6, 3\), must hold at least one image"),
        (normal(1, 0, 6, 3), ValueError, r"had shape \(1, 0, 6, 3\)"),
        (normal(1, 5, 6, 0), ValueError, r"had shape \(1, 5, 6, 0\)"),
        (np.array(1, np.float32), ValueError, r"had shape \(\)"),
        (np.zeros((1, 5, 6, 3)), TypeError, "input 'image' had dtype float64, must have float32"),
        (np.zeros((1, 5, 6, 3), np.float16), TypeError, "had dtype float16"),
        (np.zeros((1, 5, 6, 3), np.uint8), TypeError, "had dtype uint8, must have float32"),
        (np.zeros((1, 5, 6, 3), np.complex64), TypeError, "had dtype complex64"),
        (np.zeros((1, 5, 6, 3), object), TypeError, "had dtype object"),
        (np.zeros((1, 5, 6, 3), np.dtype(np.float32).newbyteorder()), TypeError, "had dtype [<>]f4"),
        (normal(1, 5, 6, 3).tolist(), TypeError, "input 'image' was a list, must be a numpy array"),
        (np.ma.masked_array(normal(1, 5, 6, 3)), TypeError, "input 'image' was a masked array, must be one without"),
        (None, TypeError, "was a NoneType"),
        ("photo.jpg", TypeError, "was a str"),
        (np.float32(1), TypeError, "was a float32"),
    ],
)
def test_rejects_inputs(small: Model, x: Any, error: type[Exception], message: str) -> None:
    for use in (small, small.verify):
        with pytest.raises(error, match=message):
            use(x)


def test_rejects_numbers_of_inputs(small: Model) -> None:
    x = normal(1, 5, 6, 3)
    with pytest.raises(TypeError, match=r"small takes 1 input\(s\), got 0"):
        small()
    with pytest.raises(TypeError, match=r"small takes 1 input\(s\), got 2"):
        small(x, x)


@pytest.mark.parametrize("threads", [0, -1, 1025, 2**40])
def test_rejects_thread_counts(small: Model, threads: int) -> None:
    with pytest.raises(ValueError, match=rf"threads was {threads}, must be between 1 and 1024"):
        small(normal(1, 5, 6, 3), threads=threads)


@pytest.mark.parametrize("threads", [1.0, "2", True, [1]])
def test_rejects_threads_of_other_types(small: Model, threads: Any) -> None:
    with pytest.raises(TypeError, match=r"threads was .*, must be an int or None"):
        small(normal(1, 5, 6, 3), threads=threads)


def unaligned(x: NDArray[np.float32]) -> NDArray[np.float32]:
    view = np.empty(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    view[...] = x
    return view


def test_takes_views_of_any_strides(small: Model) -> None:
    whole = normal(4, 12, 15, 8)
    broadcast = np.broadcast_to(whole[:1, :1, :6, :3], (2, 5, 6, 3))
    views = [
        whole[:, 2:7, 3:9, :3],
        whole[::2, 1::2, ::2, ::3][:, :5, :6],
        whole[::-1, 6:1:-1, 8:2:-1, 2::-1],
        np.asfortranarray(whole[:, :5, :6, :3]),
        whole.transpose(0, 2, 1, 3)[:, :5, :6, 5:],
        np.moveaxis(normal(2, 3, 5, 6), 1, -1),  # NCHW in memory
        broadcast,
        unaligned(whole[:2, :5, :6, :3]),
    ]
    for view in views:
        before = view.copy()
        view.flags.writeable = False
        assert np.array_equal(small(view), small(before))
        assert np.array_equal(view, before)


def test_batches_of_any_size_give_each_image_its_result(small: Model) -> None:
    images = normal(33, 5, 6, 3)
    alone = b"".join(small(image[np.newaxis]).tobytes() for image in images)
    for count in (1, 2, 7, 8, 9, 16, 33):  # the last layers take eight images at a time
        for threads in (1, 3):
            assert small(images[:count], threads=threads).tobytes() == alone[: len(alone) // 33 * count]


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 3)])
def test_strides_over_a_single_pixel_change_nothing_in_a_batch(stride: tuple[int, int]) -> None:
    conv = graph.Conv2d(name="conv", inputs=("pool",), weight=normal(1, 1, 20, 24), stride=stride)
    model = Model(
        [
            Input(name="image", shape=(4, 5, 20)),
            graph.GlobalAveragePool(name="pool", inputs=("image",)),
            conv,
            graph.FullyConnected(name="logits", inputs=("conv",), weight=normal(24, 7)),
        ],
        name="strided",
    )
    images = normal(17, 4, 5, 20)
    alone = np.concatenate([model(images[i : i + 1]) for i in range(len(images))])
    assert model(images).tobytes() == alone.tobytes()


def test_results_are_new_arrays(small: Model) -> None:
    x = normal(2, 5, 6, 3)
    first, second = small(x), small(x)
    assert first.dtype == np.float32
    assert first.flags.c_contiguous
    assert first.flags.writeable
    first[:] = 0
    assert np.all(second != 0)
    assert np.array_equal(small(x), second)


@pytest.mark.parametrize("dtype, zero_point", [("uint8", 128), ("int8", -3), ("int16", 0)])
def test_integers_equal_the_real_numbers_they_stand_for(dtype: str, zero_point: int) -> None:
    scale = 0.007843137718737125
    model = Model(small_layers(dtype=dtype, scale=scale, zero_point=zero_point), name="quantised")
    limits = np.iinfo(dtype)
    integers = np.random.default_rng(0).integers(limits.min, limits.max + 1, (2, 5, 6, 3)).astype(dtype)
    real = (integers.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
    assert model.inputs == (Port("image", (None, 5, 6, 3), dtype),)
    assert model(integers).tobytes() == model(real).tobytes()
    assert model(integers[:, ::-1]).tobytes() == model(real[:, ::-1]).tobytes()
    other = "int8" if dtype == "uint8" else "uint8"
    with pytest.raises(TypeError, match=f"had dtype {other}, must have float32 or {dtype}"):
        model(integers.astype(other))


# --- Weights


@every_isa
def test_nan_weights_give_nan(isa: str) -> None:
    for index in (1, 3):
        layers = small_layers()
        layers[index].weight[..., -1] = np.nan  # type: ignore[attr-defined]
        result = run(layers, [normal(2, 5, 6, 3)], isa)["logits"]
        expected = [True] * 4 if index == 1 else [False, False, False, True]
        assert np.isnan(result).all(axis=(0, 1, 2)).tolist() == expected
        assert np.isnan(result).any(axis=(0, 1, 2)).tolist() == expected


def test_weights_may_change_after_compiling() -> None:
    layers = small_layers()
    model, x = Model(layers, name="small"), normal(1, 5, 6, 3)
    before = model(x)
    layers[1].weight[:] = 0  # type: ignore[attr-defined]
    assert np.array_equal(model(x), before)


# --- What it gives


def test_several_inputs_and_outputs() -> None:
    layers = [
        Input(name="a", shape=(4, 4, 2)),
        Input(name="b", shape=(4, 4, 2)),
        graph.Add(name="sum", inputs=("a", "b")),
        graph.GlobalAveragePool(name="mean", inputs=("a",)),
        graph.Softmax(name="shares", inputs=("mean",)),
    ]
    model = Model(layers, name="two")
    assert model.inputs == (Port("a", (None, 4, 4, 2)), Port("b", (None, 4, 4, 2)))
    assert model.outputs == (Port("sum", (None, 4, 4, 2)), Port("shares", (None, 2)))
    a, b = normal(3, 4, 4, 2), normal(3, 4, 4, 2, seed=1)
    total, shares = model(a, b)
    assert np.array_equal(total, a + b)
    assert shares.shape == (3, 2)
    assert np.allclose(shares.sum(axis=1), 1)
    with pytest.raises(ValueError, match=r"the inputs have batches of \[3, 2\], must be of one length"):
        model(a, b[:2])
    chosen = Model(layers, name="two", outputs=["mean", "a", "mean"])
    mean, copy, again = chosen(a, b)
    assert [port.shape for port in chosen.outputs] == [(None, 2), (None, 4, 4, 2), (None, 2)]
    assert np.array_equal(copy, a)
    assert np.array_equal(mean, again)
    assert np.allclose(mean, a.mean(axis=(1, 2)), atol=1e-6)


def test_vectors_come_without_height_and_width() -> None:
    layers = [
        Input(name="x", shape=(1, 1, 6)),
        graph.Conv2d(name="map", inputs=("x",), weight=normal(1, 1, 6, 4)),
        graph.Reshape(name="vector", inputs=("map",), shape=(1, 1, 4)),
        graph.Activation(name="active", inputs=("vector",), activation="sigmoid"),
    ]
    x = normal(2, 1, 1, 6)
    assert Model(layers[:2], name="map")(x).shape == (2, 1, 1, 4)
    assert Model(layers[:3], name="vector")(x).shape == (2, 4)
    assert Model(layers, name="active")(x).shape == (2, 4)


def test_rejects_outputs() -> None:
    with pytest.raises(ValueError, match="outputs has 'nowhere', must name layers of small, such as 'logits'"):
        Model(small_layers(), name="small", outputs=["nowhere"])
    with pytest.raises(ValueError, match="outputs is empty, must name at least one layer of small"):
        Model(small_layers(), name="small", outputs=[])
    outputs: Any
    for outputs in (5, "logits", [["logits"]], {"logits"}):  # a set has no order
        with pytest.raises(TypeError, match=r"outputs was .*, must be a sequence of names or None"):
            Model(small_layers(), name="small", outputs=outputs)
    with pytest.raises(TypeError, match="convention was 5, must be a"):
        Model(small_layers(), name="small", convention=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="name was 5, must be a string"):
        Model(small_layers(), name=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fusion is 'maybe', must be one of automatic, always, never"):
        Model(small_layers(), name="small", fusion="maybe")
    with pytest.raises(TypeError, match="fusion was None, must be 'automatic', 'always' or 'never'"):
        Model(small_layers(), name="small", fusion=None)  # type: ignore[arg-type]


# --- What it tells


def test_layers_are_those_given(small: Model) -> None:
    layers = small_layers()
    assert list(Model(layers, name="small").layers) == layers
    assert small.outputs == (Port("logits", (None, 4)),)


def test_cost_and_repr(small: Model) -> None:
    cost = small.cost()
    assert cost.macs == 3 * 4 * 9 * 3 * 20 + 20 * 4
    assert cost.params == 9 * 3 * 20 + 20 + 20 * 4 + 4
    assert sum(layer.macs for layer in cost.layers) == cost.macs
    lines = repr(small).splitlines()
    assert lines[0] == "small"
    assert repr(small) == f"small\n{cost}"
    assert all(any(layer.name in line for line in lines) for layer in small.layers)


def test_explain_names_the_kernel_of_every_layer(small: Model) -> None:
    model = mobilenet_v2(alpha=0.35, resolution=32, classes=5)
    table = model.explain()
    words = {word.strip(",") for line in table.splitlines() for word in line.split()}
    computing = [layer.name for layer in model.layers if not isinstance(layer, Input)]
    assert [name for name in computing if name not in words] == []  # fused ones stand under "also does"
    assert f"depthwise_3x3_s1_f32__{sepconv.isa()}" in words
    assert sum(word.startswith("gemm_f32_") and word.endswith(sepconv.isa()) for word in words) >= 1
    assert "logits" in small.explain()


# --- Copies


class OnDemand:
    """An array-like with nothing but what the layer list asks for, that cannot be pickled."""

    def __init__(self, array: NDArray[np.float32]) -> None:
        self.shape = array.shape
        self._make: Callable[[], NDArray[np.float32]] = lambda: array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.float32]:
        return self._make()


def test_pickles_with_weights_made_on_demand() -> None:
    stored = np.random.default_rng(0).integers(-99, 99, (3, 3, 3, 20), np.int8)
    norm = graph.BatchNorm(
        gamma=OnDemand(normal(20)), beta=normal(20), mean=normal(20), variance=OnDemand(normal(20) ** 2), epsilon=1e-3
    )
    layers = small_layers()
    weight = LazyFloat32(stored, scale=np.full(1, 0.1, np.float32))
    layers[1] = graph.Conv2d(name="conv", inputs=("image",), weight=weight, batch_norm=norm)
    model = Model(layers, name="lazy", convention=TIMM, outputs=["logits", "pool"])
    copy = pickle.loads(pickle.dumps(model))
    x = normal(2, 5, 6, 3)
    assert (copy.name, copy.convention, copy.inputs, copy.outputs) == (
        model.name,
        model.convention,
        model.inputs,
        model.outputs,
    )
    assert repr(copy) == repr(model)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(copy(x), model(x), strict=True))


def test_pickles_with_numbers_of_numpy() -> None:
    norm = graph.BatchNorm(**dict.fromkeys(("gamma", "beta", "mean", "variance"), np.ones(3)), epsilon=np.float64(1e-3))
    two: Any = np.float32(2)
    true: Any = np.bool_(True)
    layers = [
        graph.Input(name="x", shape=(2, 2, 3), dtype="int8", scale=two, zero_point=-3),
        graph.Conv2d(name="conv", inputs=("x",), weight=normal(1, 1, 3, 3), batch_norm=norm),
        graph.AveragePool2d(name="pool", inputs=("conv",), kernel=(2, 2), stride=(1, 1), include_padding=true),
        graph.Softmax(name="softmax", inputs=("pool",), beta=two),
    ]
    model, x = Model(layers, name="numbers"), normal(1, 2, 2, 3)
    assert pickle.loads(pickle.dumps(model))(x).tobytes() == model(x).tobytes()


def test_pickles_with_weights_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.npy"
    np.save(path, normal(3, 3, 3, 20))
    layers = small_layers()
    mapped = np.load(path, mmap_mode="r")
    layers[1] = graph.Conv2d(name="conv", inputs=("image",), weight=mapped, bias=mapped[0, 0, 0])
    model, x = Model(layers, name="mapped"), normal(1, 5, 6, 3)
    expected = model(x)
    pickled = pickle.dumps(model)
    assert str(path).encode() not in pickled
    assert pickle.loads(pickled)(x).tobytes() == expected.tobytes()


@pytest.mark.parametrize("build", (mobilenet_v1, mobilenet_v2))
def test_pickles_generated_weights(build: Callable[..., Model]) -> None:
    model = build(alpha=0.25 if build is mobilenet_v1 else 0.35, resolution=33, classes=3, seed=5)
    x = normal(1, 33, 33, 3)
    assert pickle.loads(pickle.dumps(model))(x).tobytes() == model(x).tobytes()


# --- The networks at any resolution


def odd_resolutions(count: int) -> Sequence[int]:
    return sorted(Random(2).sample(range(33, 161), count))


@pytest.mark.parametrize("resolution", [32, *odd_resolutions(5), 224])
@pytest.mark.parametrize("name", BUILDERS)
def test_any_resolution_gives_logits(name: str, resolution: int) -> None:
    model = BUILDERS[name](resolution=resolution, classes=10, seed=resolution)
    x = normal(2, resolution, resolution, 3)
    logits = model(x)
    assert logits.shape == (2, 10)
    assert np.all(np.isfinite(logits))
    assert np.all(np.std(logits, axis=1) > 1e-3)  # the signal neither vanishes
    assert np.max(np.abs(logits)) < 1e3  # nor explodes
    assert model(x[1:]).tobytes() == logits[1:].tobytes()


def test_the_same_seed_gives_the_same_network() -> None:
    x = normal(1, 32, 32, 3)
    first, second, other = (
        Model(mobilenet_v1_layers(0.25, resolution=32, classes=4, seed=seed), name="v1")(x) for seed in (1, 1, 2)
    )
    assert first.tobytes() == second.tobytes()
    assert np.all(first != other)
