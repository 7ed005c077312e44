"""Exported files give, in the runtimes that they are for, what sepconv gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

import sepconv
from sepconv import cli, graph
from sepconv.errors import UnsupportedError
from sepconv.export import export_model, to_onnx
from sepconv.export.ncnn import ncnn_name
from sepconv.graph import ActivationName, Layer
from sepconv.models import efficientnet_lite0_layers, mobilenet_v1_layers, mobilenet_v2_layers, named_weights

pytest.importorskip("sepconv.threads", reason="needs the built engine")
from sepconv.model import Model

Outputs = list[NDArray[np.float32]]
RNG = np.random.default_rng(7)
TOLERANCE = 2e-6  # of the largest output: float32 sums in another order


LONG = "n" * 300


def normal(*shape: int) -> NDArray[np.float32]:
    return RNG.standard_normal(shape, dtype=np.float32)


def batch_norm(channels: int) -> graph.BatchNorm:
    gamma, beta, mean = normal(channels), normal(channels), normal(channels)
    variance = 0.5 + RNG.random(channels)
    return graph.BatchNorm(gamma=gamma, beta=beta, mean=mean, variance=variance, epsilon=1e-3)


def chain(*layers: Layer, shape: graph.Shape = (9, 8, 6)) -> list[Layer]:
    return [graph.Input(name="input", shape=shape), *layers]


def conv(name: str, x: str, weight: NDArray[np.float32], **options: Any) -> Layer:
    kind = options.pop("kind", graph.Conv2d)
    layer: Layer = kind(name=name, inputs=(x,), weight=weight, **options)
    return layer


def small_networks() -> dict[str, list[Layer]]:
    networks = {
        f"activation {name}": chain(
            conv("a", "input", normal(1, 1, 6, 5), activation=name),
            graph.Activation(name="b", inputs=("input",), activation=name),
        )
        for name in get_args(ActivationName)
    }
    same = (graph.same_padding(9, 3, 2), graph.same_padding(8, 3, 2))
    networks |= {
        "convolution": chain(
            conv("a", "input", normal(3, 3, 6, 8), bias=normal(8), stride=(2, 2), padding=same, activation="relu6"),
            conv("b", "a", normal(3, 2, 8, 7), batch_norm=batch_norm(7), padding=((2, 1), (0, 1)), activation="silu"),
        ),
        "prelu": chain(
            conv("a", "input", normal(1, 1, 6, 5)),
            graph.PRelu(name="b", inputs=("a",), slope=normal(5)),
            graph.GlobalAveragePool(name="c", inputs=("b",)),
            graph.PRelu(name="d", inputs=("c",), slope=np.full(5, 0.25)),
        ),
        "layer norm": chain(
            graph.LayerNorm(name="a", inputs=("input",), scale=normal(6), bias=normal(6), epsilon=1e-3),
            conv("b", "a", normal(1, 1, 6, 4)),
            graph.GlobalAveragePool(name="c", inputs=("b",)),
            graph.LayerNorm(name="d", inputs=("c",)),
        ),
        "gelu": chain(
            conv("a", "input", normal(3, 3, 6, 8), activation="gelu"),
            conv("b", "a", normal(1, 1, 8, 8), activation="gelu_tanh"),
            graph.Add(name="c", inputs=("a", "b"), activation="gelu"),
            graph.Activation(name="d", inputs=("c",), activation="gelu_tanh"),
        ),
        "dilated": chain(conv("a", "input", normal(3, 3, 6, 4), dilation=(2, 1), padding=((2, 2), (1, 1)))),
        "depthwise": chain(
            conv("a", "input", normal(3, 3, 6, 1), kind=graph.DepthwiseConv2d, padding=((1, 1), (1, 1))),
            conv(
                "b",
                "a",
                normal(5, 5, 6, 2),
                kind=graph.DepthwiseConv2d,
                batch_norm=batch_norm(12),
                activation="relu",
                stride=(2, 2),
                padding=((1, 2), (2, 2)),
            ),
        ),
        "add": chain(
            conv("a", "input", normal(1, 1, 6, 6)),
            graph.Add(name="b", inputs=("input", "a"), activation="relu"),
            graph.Add(name="c", inputs=("b", "a")),
        ),
        "products": chain(
            conv("a", "input", normal(1, 1, 6, 6)),
            graph.Mul(name="b", inputs=("input", "a"), activation="relu"),
            graph.GlobalAveragePool(name="c", inputs=("b",)),
            conv("d", "c", normal(1, 1, 6, 6), activation="hard_sigmoid"),
            graph.Mul(name="e", inputs=("b", "d")),
            graph.Mul(name="f", inputs=("e", "c"), activation="hard_swish"),
            graph.Mul(name="g", inputs=("c", "d")),
            graph.Mul(name="h", inputs=("c", "c")),
        ),
        "channels": chain(
            conv("a", "input", normal(1, 1, 6, 4)),
            graph.Concat(name="b", inputs=("a", "input", "a")),
            graph.ChannelSlice(name="c", inputs=("b",), begin=2, end=12),
            graph.ChannelShuffle(name="d", inputs=("c",), groups=5),
            graph.Upsample(name="e", inputs=("d",), size=(18, 8)),
        ),
        "channels of vectors": chain(
            graph.GlobalAveragePool(name="a", inputs=("input",)),
            graph.FullyConnected(name="b", inputs=("a",), weight=normal(6, 4)),
            graph.Concat(name="c", inputs=("a", "b")),
            graph.ChannelShuffle(name="d", inputs=("c",), groups=2),
            graph.ChannelSlice(name="e", inputs=("d",), begin=1, end=9),
        ),
        "upsampled by no whole number": chain(graph.Upsample(name="a", inputs=("input",), size=(16, 13))),
        "max pool": chain(graph.MaxPool2d(name="a", inputs=("input",), kernel=(3, 2), stride=(2, 1))),
        "average pool": chain(
            graph.AveragePool2d(
                name="a", inputs=("input",), kernel=(3, 3), stride=(2, 2), padding=same, activation="relu"
            ),
            graph.AveragePool2d(
                name="b", inputs=("a",), kernel=(2, 2), stride=(1, 1), padding=((0, 1), (1, 0)), include_padding=True
            ),
        ),
        "pad": chain(graph.Pad(name="a", inputs=("input",), padding=((1, 2), (0, 3)))),
        "classifier": chain(
            graph.GlobalAveragePool(name="a", inputs=("input",)),
            graph.FullyConnected(name="b", inputs=("a",), weight=normal(6, 10), bias=normal(10), activation="relu6"),
            graph.Softmax(name="c", inputs=("b",), beta=0.5),
        ),
        "means of vectors": chain(
            graph.GlobalAveragePool(name="a", inputs=("input",)),
            graph.FullyConnected(name="b", inputs=("a",), weight=normal(6, 5)),
            graph.GlobalAveragePool(name="c", inputs=("b",)),
            graph.GlobalAveragePool(name="d", inputs=("a",)),
            graph.Softmax(name="e", inputs=("d",), beta=cast(float, np.float32(0.5))),  # which prints as such
        ),
        "fully connected over an image": chain(
            graph.FullyConnected(name="a", inputs=("input",), weight=normal(9 * 8 * 6, 5)),
        ),
        "a vector as an image": chain(
            graph.GlobalAveragePool(name="a", inputs=("input",)),
            conv("b", "a", normal(1, 1, 6, 4), activation="hard_swish"),
            conv("c", "a", normal(1, 1, 6, 4)),
            graph.Add(name="d", inputs=("b", "c")),
        ),
        "reshape": chain(
            graph.Reshape(name="a", inputs=("input",), shape=(4, 18, 6)),
            graph.Reshape(name="b", inputs=("a",), shape=(1, 1, 4 * 18 * 6)),
            graph.Reshape(name="c", inputs=("b",), shape=(8, 54, 1)),
        ),
        # Each like a name that a writer makes up for what lies between two layers, or beside one.
        "names that writers make up": chain(
            conv("a", "input", normal(1, 1, 6, 4), activation="silu"),
            conv("a_0", "a", normal(1, 1, 4, 4)),
            conv("a_1", "a", normal(1, 1, 4, 4)),
            graph.Add(name="a/sum", inputs=("a_0", "a_1"), activation="silu"),
            graph.Mul(name="a/gate", inputs=("a/sum", "a")),
            conv("a.weight", "a/gate", normal(1, 1, 4, 4), bias=normal(4)),
            graph.Pad(name="a.bias", inputs=("a.weight",), padding=((1, 0), (0, 1))),
            graph.GlobalAveragePool(name="axes", inputs=("a.bias",)),
            conv("axes/image", "axes", normal(1, 1, 4, 4)),
            conv("axes/image/image", "axes", normal(1, 1, 4, 4), activation="hard_swish"),
            graph.Add(name="split", inputs=("axes/image", "axes/image/image")),
            graph.Softmax(name="split/scaled", inputs=("axes",), beta=0.5),
            graph.Softmax(name="split/scaled/scaled", inputs=("axes",), beta=2.0),
            graph.ChannelShuffle(name="split/scaled/image", inputs=("axes",), groups=2),
            graph.Mul(name="axes/flat", inputs=("split/scaled", "split/scaled/scaled")),
        ),
        "long names": chain(
            conv(LONG + "1", "input", normal(1, 1, 6, 6)),
            conv(LONG + "2", LONG + "1", normal(1, 1, 6, 6), activation="silu"),
            graph.Add(name=LONG + "3", inputs=(LONG + "1", LONG + "2"), activation="silu"),
        ),
    }
    return networks


NETWORKS = small_networks()


def run_onnx(path: Path, x: NDArray[np.float32], model: Model) -> Outputs:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    results = session.run([port.name for port in model.outputs], {"input": x.transpose(0, 3, 1, 2).copy()})
    return [y if y.ndim == 2 else y.transpose(0, 2, 3, 1) for y in results]


def run_tflite(path: Path, x: NDArray[np.float32], model: Model) -> Outputs:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(str(path))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return [interpreter.get_tensor(details["index"]) for details in interpreter.get_output_details()]


def run_ncnn(path: Path, x: NDArray[np.float32], model: Model) -> Outputs:
    ncnn = pytest.importorskip("ncnn")
    net = ncnn.Net()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    assert net.load_param(str(path)) == 0
    assert net.load_model(str(path.with_suffix(".bin"))) == 0
    results = []
    for image in x:
        extractor = net.create_extractor()
        planes = image.transpose(2, 0, 1).copy()
        extractor.input("input", ncnn.Mat(planes).clone())  # which has no hold on the array until then
        blobs = [np.array(extractor.extract(ncnn_name(port.name))[1]) for port in model.outputs]
        results.append([y if y.ndim == 1 else y.transpose(1, 2, 0) for y in blobs])
    return [np.stack(images) for images in zip(*results, strict=True)]


RUNTIMES: dict[str, tuple[str, int, Callable[[Path, NDArray[np.float32], Model], Outputs]]] = {
    "onnx": (".onnx", 2, run_onnx),
    "tflite": (".tflite", 2, run_tflite),
    "ncnn": (".param", 1, run_ncnn),
}
PACKAGES = {"onnx": ("onnx", "onnxruntime"), "tflite": ("tflite", "ai_edge_litert"), "ncnn": ("ncnn",)}
NOT_IN = {("ncnn", "reshape"), ("ncnn", "layer norm"), ("tflite", "layer norm")}


def check(layers: Sequence[Layer], runtime: str, tmp_path: Path, chosen: Sequence[str] | None = None) -> None:
    for package in PACKAGES[runtime]:
        pytest.importorskip(package, reason=f"needs the package {package}")
    suffix, batch, run = RUNTIMES[runtime]
    path = tmp_path / f"network{suffix}"
    export_model(layers, path, batch, chosen)
    model = Model(layers, name="network", outputs=chosen)
    x = np.random.default_rng(0).standard_normal((batch, *model.inputs[0].shape[1:]), np.float32)  # type: ignore[arg-type]
    expected = model(x)
    outputs = expected if isinstance(expected, tuple) else (expected,)
    results = run(path, x, model)
    assert len(results) == len(outputs)
    for result, output in zip(results, outputs, strict=True):
        np.testing.assert_allclose(result.reshape(output.shape), output, atol=TOLERANCE * np.abs(output).max(), rtol=0)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("network", NETWORKS)
def test_layers(network: str, runtime: str, tmp_path: Path) -> None:
    if (runtime, network) in NOT_IN:
        with pytest.raises(UnsupportedError, match=r"layer .* has .* which (ncnn|TFLite) cannot say"):
            export_model(NETWORKS[network], tmp_path / {"ncnn": "a.param", "tflite": "a.tflite"}[runtime])
        return
    check(NETWORKS[network], runtime, tmp_path)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("chosen", [("a", "b"), ("b", "a"), ("e", "c", "b"), ("c",)])
def test_chosen_outputs(chosen: tuple[str, ...], runtime: str, tmp_path: Path) -> None:
    """In the given order; also results that other layers read, and no others."""
    check(NETWORKS["products"], runtime, tmp_path, chosen)


def test_outputs_that_are_none(tmp_path: Path) -> None:
    layers, path = NETWORKS["products"], tmp_path / "network.param"
    for chosen, message in ((["a", "b", "a"], "outputs has 'a' twice"), (["x"], "outputs has 'x', must name layers")):
        with pytest.raises(ValueError, match=message):
            export_model(layers, path, outputs=chosen)
    with pytest.raises(UnsupportedError, match="the input 'input' is an output too, which ncnn cannot say"):
        export_model(layers, path, outputs=["input", "a"])


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("padding", ["same", "torch"])
def test_networks(runtime: str, padding: Any, tmp_path: Path) -> None:
    for layers in (
        mobilenet_v1_layers(0.25, 64, 10, padding=padding),
        mobilenet_v2_layers(0.35, 64, 10, padding=padding),
        efficientnet_lite0_layers(32, 10, padding=padding),
    ):
        check(layers, runtime, tmp_path)


def test_batch_norm_may_stay_a_node() -> None:
    pytest.importorskip("onnx")
    layers = mobilenet_v1_layers(0.25, 32, 10)
    kinds = {node.op_type for node in to_onnx(layers, fold=False).graph.node}
    assert "BatchNormalization" in kinds
    assert kinds - {node.op_type for node in to_onnx(layers).graph.node} == {"BatchNormalization"}


def test_kept_batch_norms_give_the_same(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    layers = NETWORKS["convolution"]
    path = tmp_path / "network.onnx"
    onnx.save(to_onnx(layers, fold=False), path)
    model = Model(layers, name="network")
    x = RNG.standard_normal((1, 9, 8, 6), dtype=np.float32)
    (result,), expected = run_onnx(path, x, model), model(x)
    np.testing.assert_allclose(result, expected, atol=TOLERANCE * np.abs(expected).max(), rtol=0)


def test_an_open_batch() -> None:
    pytest.importorskip("onnx")
    (x,) = to_onnx(NETWORKS["classifier"]).graph.input
    assert [dim.dim_param or dim.dim_value for dim in x.type.tensor_type.shape.dim] == ["n", 6, 9, 8]


def test_an_open_batch_of_any_sizes(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    onnx.save(to_onnx(layers := NETWORKS["upsampled by no whole number"]), tmp_path / "network.onnx")
    (result,) = run_onnx(tmp_path / "network.onnx", x := normal(3, 9, 8, 6), model := Model(layers, name="network"))
    assert np.array_equal(result, model(x))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("before, after, found", [(14, 46, False), (14, 16, True), (14, 32, True), (7, 10, True)])
def test_upsamples_give_the_models_pixels(runtime: str, before: int, after: int, found: bool, tmp_path: Path) -> None:
    """``found``: by the float32 of TFLite and ncnn. onnxruntime's own misses those of 14 to 16 and 14 to 32."""
    for shape, size in (((before, 1, 2), (after, 1)), ((2, before, 3), (4, after))):
        layers = chain(graph.Upsample(name="a", inputs=("input",), size=size), shape=shape)
        if found or runtime == "onnx":
            check(layers, runtime, tmp_path)
        else:
            with pytest.raises(
                UnsupportedError, match=r"layer 'a' .Upsample. goes from .* where .* repeats other pixels"
            ):
                check(layers, runtime, tmp_path)


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
@pytest.mark.parametrize(
    "network", ["names that writers make up", "long names", "channels of vectors", "activation none"]
)
def test_our_readers_know_what_we_write(network: str, suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx" if suffix == ".onnx" else "tflite")
    path = tmp_path / f"network{suffix}"
    layers = NETWORKS[network]
    export_model(layers, path, 1)
    expected: Any = Model(layers, name="network")(x := normal(1, 9, 8, 6))
    onnx = suffix == ".onnx"
    results: Any = sepconv.load(path)(x.transpose(0, 3, 1, 2).copy() if onnx else x)
    expected, results = (y if isinstance(y, tuple) else (y,) for y in (expected, results))
    for result, output in zip(results, expected, strict=True):
        assert np.array_equal(result.transpose(0, 2, 3, 1) if onnx and result.ndim == 4 else result, output)


def test_a_model_is_written_as_its_layers_are(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    layers = NETWORKS["names that writers make up"]
    names = graph.outputs(layers)[::-1]
    export_model(Model(layers, name="two", outputs=names), tmp_path / "model.onnx")
    export_model(layers, tmp_path / "layers.onnx", outputs=names)
    assert (tmp_path / "model.onnx").read_bytes() == (tmp_path / "layers.onnx").read_bytes()
    assert sepconv.cost(Model(layers, name="two")) == sepconv.cost(layers)


def test_what_is_no_network_and_no_path(tmp_path: Path) -> None:
    wrong: Any
    for wrong in (None, 3, "layers", [1]):
        shown = r"layers\[0\] was int" if wrong == [1] else f"layers was of type {type(wrong).__name__}"
        for call in (sepconv.cost, named_weights, lambda x: export_model(x, tmp_path / "x.onnx")):
            with pytest.raises(TypeError, match=shown):
                call(wrong)
        with pytest.raises(TypeError, match=shown):
            Model(wrong, name="network")
    for wrong in (None, 3, b"x.onnx"):
        with pytest.raises(TypeError, match=f"path must be a str or an os.PathLike, not {type(wrong).__name__}"):
            export_model(NETWORKS["add"], wrong)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path was .*network\.pb', must end in one of \.onnx, \.tflite, \.param"):
        export_model(NETWORKS["add"], tmp_path / "network.pb")
    with pytest.raises(ValueError, match="batch was 2, must be 1"):
        export_model(NETWORKS["add"], tmp_path / "network.param", 2)
    odd = chain(graph.MaxPool2d(name="a", inputs=("input",), kernel=(3, 3), stride=(1, 1), padding=((1, 0), (0, 0))))
    pytest.importorskip("tflite")
    with pytest.raises(UnsupportedError, match=r"layer .a. .MaxPool2d. has padding"):
        export_model(odd, tmp_path / "network.tflite")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "small.onnx"
    assert cli.main(["export", "mobilenet_v1_0.25_64", str(path), "--batch", "3"]) == 0
    assert "small.onnx: mobilenet_v1_0.25_64 with random weights, " in capsys.readouterr().out
    assert cli.main(["export", str(path), str(tmp_path / "small.param")]) == 0
    size = sum((tmp_path / f"small.{suffix}").stat().st_size for suffix in ("param", "bin"))
    assert f"small.param: small, {size:,} bytes" in capsys.readouterr().out
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3
    assert cli.main(["export", "mobilenet_v9", str(path)]) == 2
    assert "mobilenet_v9" in capsys.readouterr().err
