"""ONNX models as a whole: what our own exporter writes, sizes left open, threads, partition, fallbacks."""

from __future__ import annotations

import gc
import threading
import warnings
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the package onnx (extra onnx)")

import onnx
from onnx_models import Builder, assert_agrees, loaded, normal, reference, small_network

import sepconv
from sepconv.errors import UnsupportedError
from sepconv.export.onnx import to_onnx
from sepconv.models import mobilenet_v1, mobilenet_v2
from sepconv.onnx.program import FallbackWarning, NodeStep, PlanStep, Program


def program(model: Any) -> Program:
    found: Program = next(reversed(model._programs.values()))
    return found


def test_a_network_of_everything_is_one_plan() -> None:
    model = assert_agrees(small_network(), normal(1, 3, 16, 16))
    (step,) = program(model).steps
    assert isinstance(step, PlanStep)
    told = model.explain()
    for what in (
        "batch_norm: 3 ",
        "1 HardSwish",
        "squeeze_excite: 1 block",
        "channel_shuffle: 1 ",
        "in 1 plan(s), 0 alone",
    ):
        assert what in told
    assert model.native
    assert "gemm_f32" in told


@pytest.mark.parametrize("fold", (True, False))
@pytest.mark.parametrize("build", (mobilenet_v1, mobilenet_v2), ids=("v1", "v2"))
def test_what_is_exported_loads_equal(build: Any, fold: bool) -> None:
    ours = build(alpha=0.35 if build is mobilenet_v2 else 0.25, resolution=64, classes=10)
    x = normal(3, 64, 64, 3)
    want = ours(x)
    for batch in (3, None):
        model = loaded(to_onnx(ours.layers, batch, fold=fold))
        got = model(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
        assert len(program(model).steps) == 1


def test_the_exported_layers_come_back() -> None:
    from sepconv.onnx.whole import read_onnx_layers

    ours = mobilenet_v2(alpha=0.35, resolution=96, classes=7)
    layers, outputs = read_onnx_layers(to_onnx(ours.layers).SerializeToString())
    model = sepconv.Model(layers, name="again", outputs=outputs)
    x = normal(2, 96, 96, 3) if model.inputs[0].shape[1] == 96 else normal(2, 224, 224, 3)
    assert model.cost().macs == ours.cost().macs
    np.testing.assert_allclose(model(x), ours(x), rtol=1e-5, atol=1e-6)
    b = Builder()
    with pytest.raises(UnsupportedError, match="no layer for Tan"):
        read_onnx_layers(b.model({"x": [1, 3, 8, 8]}, [b.node("Tan", b.conv("x", 3, 4))]).SerializeToString())


def test_open_sizes_get_a_program_each() -> None:
    b = Builder()
    y = b.node("Relu", b.conv("x", 3, 8, strides=[2, 2]))
    half = b.node("Slice", b.node("Shape", "x"), b.integers(2), b.integers(4))
    y = b.node("Resize", y, "", "", b.node("Concat", b.integers(2, 8), half, axis=0), mode="nearest")
    proto = b.model({"x": ["n", 3, "h", "w"]}, [y])
    model = loaded(proto)
    for h, w in ((8, 8), (10, 14), (9, 7), (8, 8)):
        x = normal(2, 3, h, w)
        np.testing.assert_allclose(model(x), reference(proto, x)[0], rtol=1e-4, atol=1e-5)
    assert len(model._programs) == 3
    for side in range(3, 20):
        model(normal(2, 3, side, 8))
    assert len(model._programs) <= 8
    assert "in 1 plan(s)" in model.explain([2, 3, 8, 8])


def test_same_bits_at_any_number_of_threads_and_from_many_at_once() -> None:
    b = Builder()
    x = b.node("Gelu", b.conv("x", 3, 32, 3, group=1), approximate="none")
    x = b.node("LayerNormalization", x, b.weight(64), b.weight(64))
    x = b.node("MatMul", x, b.weight(64, 40))
    x = b.node("Softmax", b.node("Conv", x, b.weight(6, 16, 3, 3), group=2), axis=1)
    model = loaded(b.model({"x": [2, 3, 64, 64]}, [x], opset=20))
    data = normal(2, 3, 64, 64)
    want = model(data, threads=1)
    for count in (2, 3, 5):
        assert np.array_equal(model(data, threads=count), want)
    results: list[Any] = [None] * 4

    def work(index: int) -> None:
        results[index] = model(data, threads=2)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(result, want) for result in results)


def test_a_node_without_a_kernel_is_named_warned_of_and_refused() -> None:
    b = Builder()
    proto = b.model({"x": [1, 3, 8, 8]}, [b.node("LpNormalization", b.conv("x", 3, 4), axis=1)])
    with pytest.warns(FallbackWarning, match=r"1 node\(s\) run on the slow reference .*: LpNormalization"):
        model = loaded(proto)
    assert not model.native
    assert "LpNormalization1: LpNormalization: sepconv has no kernel for it" in model.explain()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        np.testing.assert_allclose(
            model(normal(1, 3, 8, 8)), reference(proto, normal(1, 3, 8, 8))[0], rtol=1e-4, atol=1e-5
        )
    with pytest.raises(UnsupportedError, match=r"node 'LpNormalization1' .* would run on the package onnx"):
        loaded(proto, strict=True)
    assert [type(step) for step in program(model).steps] == [PlanStep, NodeStep]


def test_subgraphs_and_functions_run_on_the_reference() -> None:
    branch = [
        onnx.helper.make_graph([onnx.helper.make_node(op, ["x", "x"], ["r"])], op, [], [onnx.ValueInfoProto(name="r")])
        for op in ("Add", "Mul")
    ]
    b = Builder()
    y = b.node("If", "condition", then_branch=branch[0], else_branch=branch[1])
    proto = b.model({"x": [2, 3]}, [y])
    proto.graph.input.append(onnx.helper.make_tensor_value_info("condition", onnx.TensorProto.BOOL, []))
    with pytest.warns(FallbackWarning, match="If"):
        model = loaded(proto)
    x = normal(2, 3)
    assert np.array_equal(model(x, np.array(True)), x + x)
    assert np.array_equal(model(x, np.array(False)), x * x)


@pytest.mark.parametrize(
    "inputs, error, message",
    (
        ((np.zeros((1, 3, 16, 16)),), TypeError, "had dtype float64, must have float32"),
        ((normal(1, 3, 16, 15),), ValueError, r"had shape \(1, 3, 16, 15\), must have \(1, 3, 16, 16\)"),
        ((normal(3, 16, 16),), ValueError, "had shape"),
        (([1.0],), TypeError, "was a list"),
        ((), TypeError, r"takes 1 input\(s\), got 0"),
    ),
)
def test_wrong_inputs(inputs: Any, error: type[Exception], message: str) -> None:
    model = loaded(small_network())
    with pytest.raises(error, match=message):
        model(*inputs)


def test_other_wrong_arguments() -> None:
    model = loaded(small_network())
    with pytest.raises(ValueError, match="has no input 'z'"):
        model.run({"x": normal(1, 3, 16, 16), "z": normal(1)})
    with pytest.raises(ValueError, match="input 'x' is missing"):
        model.run({})
    with pytest.raises(ValueError, match="threads was 0"):
        model(normal(1, 3, 16, 16), threads=0)
    with pytest.raises(ValueError, match="passes has 'nothing', must be of constants"):
        loaded(small_network(), passes=["nothing"])
    with pytest.raises(ValueError, match="outputs has 'nothing'"):
        loaded(small_network(), outputs=["nothing"])
    with pytest.raises(TypeError, match="outputs was 'y', must be a sequence of names or None"):
        loaded(small_network(), outputs="y")
    with pytest.raises(TypeError, match="passes was 'constants', must be a sequence of names or None"):
        loaded(small_network(), passes="constants")
    with pytest.raises(TypeError, match="external_data was 'no', must be True or False"):
        sepconv.onnx.load(small_network().SerializeToString(), external_data="no")  # type: ignore[arg-type]


def test_other_outputs() -> None:
    proto = small_network()
    logits = proto.graph.node[-1].input[0]
    model = loaded(proto, outputs=[logits])
    scores = np.exp(model(normal(1, 3, 16, 16)))
    np.testing.assert_allclose(scores / scores.sum(), loaded(proto)(normal(1, 3, 16, 16)), rtol=1e-5)


def test_results_are_the_callers_own() -> None:
    b = Builder()
    proto = b.model(
        {"x": [2, 3]}, [b.node("Reshape", "x", b.integers(3, 2)), b.node("Identity", b.constant([1.0, 2.0]))]
    )
    model = loaded(proto)
    x = normal(2, 3)
    y, constant = model(x)
    y[:], constant[:] = 0, 0
    assert x.any()
    assert model(x)[1].tolist() == [1.0, 2.0]


def test_load_tells_the_format_by_content(tmp_path: Path) -> None:
    path = tmp_path / "network.bin"
    path.write_bytes(small_network().SerializeToString())
    model = sepconv.load(path)
    assert isinstance(model, sepconv.onnx.OnnxModel)
    assert model.name == "network"
    assert model(normal(1, 3, 16, 16)).shape == (1, 5)
    assert "ONNX" in repr(model)
    with pytest.raises(sepconv.ModelFormatError, match="it is an ONNX file"):
        sepconv.io.load_tflite(path)
    other = tmp_path / "x.tflite"
    other.write_bytes(b"\0" * 64)
    with pytest.raises(TypeError, match="strict, external_data and passes are for ONNX files"):
        sepconv.load(other, strict=True)


def test_a_huge_rank_or_an_empty_batch_is_no_crash() -> None:
    b = Builder()
    model = loaded(b.model({"x": ["n", 3, 8, 8]}, [b.node("Relu", b.conv("x", 3, 4))]))
    assert model(normal(0, 3, 8, 8)).shape == (0, 4, 8, 8)
    b = Builder()
    with pytest.warns(FallbackWarning, match="Relu"):
        deep = loaded(b.model({"x": [1] * 20}, [b.node("Relu", "x")]))
    assert deep(normal(*[1] * 20)).shape == (1,) * 20


def test_a_dropped_model_gives_its_memory_back_at_once() -> None:
    model = loaded(small_network())
    model.run({model.inputs[0].name: normal(1, 3, 16, 16)})
    gone = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert gone() is None, "a cycle keeps it until the collector comes"
    finally:
        gc.enable()


@pytest.mark.parametrize("shape", ((2, 6, 5, 7), (1, 6, 1, 1), (2, 6, 4, 1), (1, 1, 3, 3)))
def test_plans_read_what_plans_gave(shape: tuple[int, ...]) -> None:
    """A value for another plan alone, one for a plan and a node alone, and one that is an output too."""
    builder, channels = Builder(), shape[1]
    kept, shared, told = (builder.conv("x", channels, 6) for _ in range(3))
    alone = builder.node("Sum", builder.node("Sin", shared), builder.node("Cos", told))
    y = builder.conv(alone, 6, 6)
    for value in (kept, shared, told):
        y = builder.node("Add", y, value)
    model = builder.model({"x": shape}, [y, told])
    x = normal(*shape)
    found = assert_agrees(model, x)
    *before, after = (step for step in program(found).steps if isinstance(step, PlanStep))
    values: dict[str, Any] = {"x": x}
    for step in before:
        step.run(values, 1)
    assert {kept, shared, told} <= set(after.inputs) & set(values)
    one_order = shape[2:] == (1, 1)
    assert [values[name].flags.c_contiguous for name in (kept, shared, told)] == [one_order, True, True]
    want = found.run({"x": x}, threads=1)
    for threads in (2, 3):
        assert all(np.array_equal(a, b) for a, b in zip(found.run({"x": x}, threads=threads), want, strict=True))


def test_values_of_plans_are_checked() -> None:
    from sepconv import _core

    builder = Builder()
    found = loaded(builder.model({"x": (2, 3, 5, 7)}, [builder.conv("x", 3, 4)]))
    found(normal(2, 3, 5, 7))
    (step,) = program(found).steps
    assert isinstance(step, PlanStep)
    for place, image in ((1, (4, 5, 7)), (0, (4, 7, 5)), (-1, (4, 5, 7)), (0, ()), (0, (4, 35)), (0, (2, 4, 5, 7))):
        with pytest.raises(ValueError, match="a result must"):
            _core.ChannelsFirst(step.plan, [(place, image, True)])
    images = _core.ChannelsFirst(step.plan, [(0, (4, 5, 7), True)])
    for inputs, what in (
        ([], "one array for each input"),
        ([normal(2, 3, 7, 5)], "does not have the sizes"),
        ([normal(2, 3, 35)], "does not have the sizes"),
        ([normal(35)], "does not have the sizes"),
        ([np.array(1.0, np.float32)], "does not have the sizes"),
        ([normal(0, 3, 5, 7)], "does not have the plan's shape"),
    ):
        with pytest.raises(ValueError, match=what):
            images.run(inputs, 1)
    x = normal(2, 3, 5, 7)
    (want,) = images.run([x], 1)
    assert np.array_equal(images.run([x[1:]], 1)[0], want[1:])
    for other in (x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2), np.repeat(x, 2, 3)[..., ::2], x[::-1][::-1]):
        assert np.array_equal(images.run([other], 2)[0], want)
