"""What should not be given to the engine: absurd graphs, damaged networks, too little memory. Errors, never crashes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import sepconv
from sepconv import graph
from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.graph import Input, Layer
from sepconv.io import load_tflite
from sepconv.model import Model
from sepconv.models import mobilenet_v1, mobilenet_v2
from sepconv.table import printable

needs_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc and sets limits as on Linux")
MUTANTS = 1500


def ones(*shape: int) -> NDArray[np.float32]:
    return np.ones(shape, np.float32)


# --- Graphs

# Sizes at which something changes: signs, the limits of the graph, of the core and of 32 and 64 bit integers.
EXTREMES = (-(2**63), -1, 0, 1, 2, 3, 7, 1000, 2**20, 2**20 + 1, 2**31 - 1, 2**31, 2**32 + 1, 2**63, 2**64 + 1)
MODEST = (0, 1, 1, 2, 3, 5)


def absurd_layer(random: Random) -> Callable[[], Layer]:
    def size() -> Any:
        if random.random() < 0.9:
            return random.choice(MODEST)
        return random.choice((*EXTREMES, None, 1.0, "1", True, np.int64(2), float("nan"), [1]))

    def pair() -> Any:
        return (size(), size()) if random.random() < 0.97 else random.choice((None, 1, (1,), (1, 1, 1), "11", [1, 1]))

    def padding() -> Any:
        return (pair(), pair()) if random.random() < 0.97 else random.choice((None, 1, ((0, 0),), "same"))

    def weight(rank: int) -> Any:
        shape = [random.choice((1, 1, 2, 3, 0)) for _ in range(rank)]
        kind = random.random()
        if kind < 0.9:
            shape[-2] = 3 if kind < 0.8 else shape[-2]
            return ones(*(max(n, 1) for n in shape)) if kind < 0.85 else ones(*shape)
        return random.choice(
            (None, 1.0, "weight", ones(3), [[1.0]], np.full((1, 1, 3, 2), None), ones(1, 1, 3, 2) * 1j)
        )

    activation: Any = random.choice(("none", "relu", "hard_swish", "tanh", None, 3, ""))
    beta: Any = random.choice((1.0, -1.0, 0, 1e300, float("nan"), float("inf"), None, "1"))
    bias: Any = random.choice((None, None, ones(2), ones(3), ones(6), ones(0), "b"))
    names: dict[str, Any] = {
        "name": random.choice((*("y",) * 17, "x", "", 3)),
        "inputs": random.choice((("x",),) * 19 + ((), ("z",))),
    }
    makers: list[Callable[[], Layer]] = [
        lambda: graph.Conv2d(
            **names,
            weight=weight(4),
            bias=bias,
            stride=pair(),
            padding=padding(),
            dilation=pair(),
            activation=activation,
        ),
        lambda: graph.DepthwiseConv2d(
            **names,
            weight=weight(4),
            bias=bias,
            stride=pair(),
            padding=padding(),
            dilation=pair(),
            activation=activation,
        ),
        lambda: graph.FullyConnected(**names, weight=weight(2), bias=bias, activation=activation),
        lambda: graph.AveragePool2d(**names, kernel=pair(), stride=pair(), padding=padding(), include_padding=size()),
        lambda: graph.MaxPool2d(**names, kernel=pair(), stride=pair(), padding=padding(), activation=activation),
        lambda: graph.Pad(**names, padding=padding()),
        lambda: graph.Reshape(**names, shape=(size(), size(), size())),
        lambda: graph.Softmax(**names, beta=beta),
        lambda: graph.PRelu(**names, slope=random.choice((ones(3), ones(3), bias))),
        lambda: graph.LayerNorm(**names, scale=random.choice((None, ones(3), bias)), bias=bias, epsilon=beta),
        lambda: graph.Activation(**names, activation=activation),
        lambda: graph.Add(
            **{**names, "inputs": random.choice((("x", "x"), ("x",), ("x", "z")))}, activation=activation
        ),
        lambda: graph.Input(name="z", shape=(size(), size(), size())),
    ]
    return random.choice(makers)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_absurd_layers_run_or_are_refused() -> None:
    ran, refusals = 0, []
    for seed in range(3000):
        random = Random(seed)
        try:
            model = Model([Input(name="x", shape=(4, 5, 3)), absurd_layer(random)()], name="absurd")
        except (ValueError, TypeError) as error:
            refusals.append(str(error))
            continue
        largest = max(np.prod(shape) for shape in graph.infer_shapes(model.layers).values())
        if largest < 1 << 22 and model._plan.arena_bytes < 1 << 24:
            model(*(ones(1, *layer.shape) for layer in model.layers if isinstance(layer, Input)), threads=2)
            ran += 1
    assert 500 < ran < 2500
    assert [message for message in refusals if not message.startswith("layer ")] == []  # each names it


@pytest.mark.parametrize("values", ["text", None, 1j, np.datetime64("2026-01-01"), b"octets"])
def test_weights_that_are_no_numbers(values: Any) -> None:
    convolution = {"weight": np.full((1, 1, 3, 2), values), "bias": np.full(2, values)}
    for argument, array in convolution.items():
        arguments: dict[str, Any] = {"weight": ones(1, 1, 3, 2), argument: array}
        layers = [Input(name="x", shape=(4, 5, 3)), graph.Conv2d(name="y", inputs=("x",), **arguments)]
        with pytest.raises(TypeError, match=f"layer 'y': {argument} had dtype .*, must have one of real numbers"):
            Model(layers, name="wrong")


def test_masked_weights_are_refused() -> None:
    masked = np.ma.masked_array(ones(1, 1, 3, 2))
    layers = [Input(name="x", shape=(4, 5, 3)), graph.Conv2d(name="y", inputs=("x",), weight=masked)]
    with pytest.raises(TypeError, match="layer 'y': weight was a masked array, must be one without a mask"):
        Model(layers, name="masked")
    with pytest.raises(TypeError, match=r"weights\['stem.weight'\] was a masked array"):
        mobilenet_v1(0.25, 32, 3, weights={"stem.weight": np.ma.masked_array(ones(3, 3, 3, 8))})


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_weights_of_other_number_types() -> None:
    x, expected = ones(1, 4, 5, 3), None
    for dtype in ("float64", "float16", "int8", "int64", "uint16", "bool"):
        layers = [
            Input(name="x", shape=(4, 5, 3)),
            graph.Conv2d(name="y", inputs=("x",), weight=np.ones((1, 1, 3, 2), dtype)),
        ]
        result = Model(layers, name="other")(x)
        expected = result if expected is None else expected
        assert np.array_equal(result, expected)
    layers[1] = graph.Conv2d(name="y", inputs=("x",), weight=np.full((1, 1, 3, 2), 1e300))
    assert np.all(np.isinf(Model(layers, name="huge")(x)))


def test_odd_names() -> None:
    for name in ("a\0b", "line\nbreak", "Größe", "名前", "'\"\\", "x" * 100_000, " "):
        layers = [Input(name=name, shape=(2, 2, 2)), graph.Softmax(name=name + "!", inputs=(name,))]
        model = Model(layers, name=name)
        assert model(ones(1, 2, 2, 2)).shape == (1, 2, 2, 2)
        assert model.outputs[0].name == name + "!"
        assert name in repr(model)
        assert printable(name) in model.explain()
        with pytest.raises(ValueError, match="must have"):
            model(ones(1, 2, 2, 3))


@pytest.mark.parametrize("fusion", ("automatic", "always", "never"))
def test_deep_networks(fusion: str) -> None:
    identity = np.eye(8, dtype=np.float32).reshape(1, 1, 8, 8)
    layers: list[Layer] = [Input(name="x", shape=(3, 4, 8))]
    for i in range(3000):
        before = (layers[-1].name,)
        layers.append(
            graph.Conv2d(name=f"l{i}", inputs=before, weight=identity)
            if i % 3
            else graph.Activation(name=f"l{i}", inputs=before, activation="relu")
        )
    model = Model(layers, name="deep", fusion=fusion)
    assert np.array_equal(model(ones(2, 3, 4, 8), threads=2), ones(2, 3, 4, 8))


def test_wide_networks() -> None:
    layers: list[Layer] = [Input(name="x", shape=(3, 4, 8))]
    layers += [graph.Activation(name=f"l{i}", inputs=("x",), activation="relu") for i in range(500)]
    model = Model(layers, name="wide")
    assert all(np.array_equal(result, ones(1, 3, 4, 8)) for result in model(ones(1, 3, 4, 8)))
    inputs = [Input(name=f"i{i}", shape=(1, 1, 2)) for i in range(100)]
    pairs = [graph.Add(name=f"s{i}", inputs=(f"i{i}", f"i{99 - i}")) for i in range(100)]
    sums = Model([*inputs, *pairs], name="sums")(*(ones(1, 1, 1, 2) * np.float32(i) for i in range(100)))
    assert all(np.all(total == 99) for total in sums)


# --- Files


def test_what_is_no_model(tmp_path: Path) -> None:
    text = tmp_path / "notes.tflite"
    text.write_text("These are not the weights you are looking for.\n")
    (tmp_path / "empty").touch()
    for use in (sepconv.load, lambda path: mobilenet_v1(weights=path), lambda path: mobilenet_v2(weights=str(path))):
        with pytest.raises(FileNotFoundError):
            use(tmp_path / "missing")
        with pytest.raises(IsADirectoryError):
            use(tmp_path)
        with pytest.raises(ModelFormatError, match="text file that begins with 'These are"):
            use(text)
        with pytest.raises(ModelFormatError, match="empty"):
            use(tmp_path / "empty")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_damaged_networks_run_or_are_refused(tmp_path: Path) -> None:
    """From the file to the result: what can be read of a mutated file also runs, fused or not, to the same bits."""
    pytest.importorskip("tflite", reason="writing the files needs the packages of the extra [tflite]")
    from test_tflite_hostile import mutate, structure
    from tflite_builder import small_network

    data, random, ran = small_network(), Random(4), 0
    offsets = structure(data)
    for index in range(MUTANTS):
        path = tmp_path / f"mutant{index}.tflite"
        path.write_bytes(mutate(data, offsets, random))
        try:
            model = load_tflite(path)
        except (ModelFormatError, UnsupportedError):
            continue
        finally:
            path.unlink()
        if model._plan.arena_bytes < 1 << 24:
            x = [
                np.random.default_rng(index).random((1, *i.shape), np.float32)
                for i in model.layers
                if isinstance(i, Input)
            ]
            assert model.verify(*x).fused_matches, index
            ran += 1
    assert MUTANTS // 20 < ran < MUTANTS


# --- Memory


def python(code: str) -> list[str]:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@needs_linux
@pytest.mark.memory
def test_too_little_memory_is_a_memory_error() -> None:
    lines = python(
        """
        import resource
        from pathlib import Path
        import numpy as np, sepconv
        from sepconv import graph
        small = sepconv.models.mobilenet_v1(alpha=0.25, resolution=64, classes=10)
        x = np.ones((2, 64, 64, 3), np.float32)
        expected = small(x, threads=2).tobytes()
        large = sepconv.Model(
            [graph.Input(name="x", shape=(2000, 2000, 1)), graph.Softmax(name="y", inputs=("x",))], name="large"
        )
        heavy = [
            graph.Input(name="x", shape=(1, 1, 20000)),
            graph.FullyConnected(name="y", inputs=("x",), weight=np.broadcast_to(np.float32(1), (20000, 20000))),
        ]
        image = np.ones((1, 2000, 2000, 1), np.float32)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        for attempt in (lambda: large(image), lambda: sepconv.Model(heavy, name="heavy")):
            resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), resource.RLIM_INFINITY))
            try:
                attempt()
                print("enough")
            except MemoryError:
                print("MemoryError")
            print(small(x, threads=2).tobytes() == expected)
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(int(large(image).sum()))
        """
    )
    assert lines == ["MemoryError", "True", "MemoryError", "True", "4000000"]


@needs_linux
@pytest.mark.memory
def test_memory_is_given_back() -> None:
    lines = python(
        """
        import gc, resource
        from pathlib import Path
        import numpy as np, sepconv
        def resident():
            gc.collect()
            return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20
        def work(count):
            for seed in range(count):
                model = sepconv.models.mobilenet_v1(alpha=0.25, resolution=64, classes=10, seed=seed)
                for threads in (1, 2, 3):
                    model(np.ones((3, 64, 64, 3), np.float32), threads=threads)
                for wrong in (np.ones((1, 64, 64, 4), np.float32), [1], np.ones((0, 64, 64, 3), np.float32)):
                    try:
                        model(wrong)
                    except (TypeError, ValueError):
                        pass
        work(5)
        before = resident()
        work(40)
        print(resident() - before)
        """
    )
    assert int(lines[0]) < 15  # MB; a leak of the weights alone would take 80
