"""InferenceSession: what onnxruntime's gives for the same calls, and a real program that only changes one import."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the package onnx (extra onnx)")


from onnx_models import Builder, normal, small_network

import sepconv
from sepconv.onnx.session_types import CPU

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "rapidocr_on_sepconv.py"


@pytest.fixture(scope="module")
def data() -> bytes:
    proto = small_network(batch="n")
    proto.producer_name, proto.domain, proto.model_version, proto.doc_string = "me", "here", 7, "what it is"
    proto.metadata_props.add(key="labels", value="a\nb")
    result: bytes = proto.SerializeToString()
    return result


@pytest.fixture(scope="module")
def session(data: bytes) -> sepconv.InferenceSession:
    return sepconv.InferenceSession(data)


def test_it_answers_as_onnxruntime(data: bytes, session: sepconv.InferenceSession) -> None:
    ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    theirs = ort.InferenceSession(data, providers=[CPU])
    for name in ("get_inputs", "get_outputs", "get_overridable_initializers"):
        ours, others = getattr(session, name)(), getattr(theirs, name)()
        assert [(x.name, x.shape, x.type) for x in ours] == [(x.name, x.shape, x.type) for x in others]
    ours, others = session.get_modelmeta(), theirs.get_modelmeta()
    for field in ("producer_name", "graph_name", "domain", "description", "version", "custom_metadata_map"):
        assert getattr(ours, field) == getattr(others, field), field
    assert session.get_providers() == theirs.get_providers() == [CPU]
    x = normal(3, 3, 16, 16)
    for names in (None, [theirs.get_outputs()[0].name]):
        want = theirs.run(names, {"x": x})
        got = session.run(names, {"x": x})
        assert len(got) == len(want)
        np.testing.assert_allclose(got[0], want[0], rtol=1e-4, atol=1e-6)


def test_every_name_that_programs_use_exists() -> None:
    ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    for name in (
        "InferenceSession", "SessionOptions", "RunOptions", "OrtValue", "IOBinding", "NodeArg", "ModelMetadata",
        "GraphOptimizationLevel", "ExecutionMode", "get_available_providers", "get_all_providers", "get_device",
        "set_default_logger_severity",
    ):  # fmt: skip
        assert hasattr(ort, name)
        assert getattr(sepconv, name) is not None
    for kind in ("GraphOptimizationLevel", "ExecutionMode"):
        for member in getattr(sepconv, kind):
            assert hasattr(getattr(ort, kind), member.name)
    theirs = ort.SessionOptions()
    for field in (field.name for field in dataclasses.fields(sepconv.SessionOptions)):
        assert field == "config_entries" or hasattr(theirs, field), field
    for method in (
        "run",
        "io_binding",
        "run_with_iobinding",
        "run_with_ort_values",
        "get_session_options",
        "set_providers",
    ):
        assert hasattr(ort.InferenceSession, method)
        assert hasattr(sepconv.InferenceSession, method)


def test_options(data: bytes) -> None:
    options = sepconv.SessionOptions()
    options.intra_op_num_threads = 2
    options.graph_optimization_level = sepconv.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.dynamic_block_base", "4")
    plain = sepconv.InferenceSession(data, options, providers=[(CPU, {"arena_extend_strategy": "kSameAsRequested"})])
    assert plain.model.notes == []
    assert plain.get_session_options() is options
    assert options.get_session_config_entry("session.dynamic_block_base") == "4"
    x = normal(1, 3, 16, 16)
    np.testing.assert_allclose(
        plain.run(None, {"x": x})[0], sepconv.InferenceSession(data).run(None, {"x": x})[0], rtol=1e-5
    )
    with pytest.warns(UserWarning, match=r"providers \['CUDAExecutionProvider'\] are not available"):
        sepconv.InferenceSession(data, providers=["CUDAExecutionProvider", CPU])
    assert sepconv.get_available_providers() == [CPU]
    assert sepconv.get_device() == "CPU"


def test_io_binding(session: sepconv.InferenceSession) -> None:
    x = normal(2, 3, 16, 16)
    (want,) = session.run(None, {"x": x})
    name = session.get_outputs()[0].name
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output(name)
    session.run_with_iobinding(binding)
    assert np.array_equal(binding.copy_outputs_to_cpu()[0], want)
    assert binding.get_outputs()[0].shape() == [2, 5]
    assert binding.get_outputs()[0].data_type() == "tensor(float)"
    target = np.zeros((2, 5), np.float32)
    binding.clear_binding_inputs()
    binding.clear_binding_outputs()
    binding.bind_input("x", "cpu", 0, np.float32, x.shape, x.ctypes.data)
    binding.bind_output(name, "cpu", 0, np.float32, target.shape, target.ctypes.data)
    session.run_with_iobinding(binding)
    assert np.array_equal(target, want)
    value = sepconv.OrtValue.ortvalue_from_numpy(x)
    room = sepconv.OrtValue.ortvalue_from_shape_and_type([2, 5])
    binding.bind_ortvalue_input("x", value)
    binding.bind_ortvalue_output(name, room)
    session.run_with_iobinding(binding)
    assert np.array_equal(room.numpy(), want)
    assert np.array_equal(session.run_with_ort_values(None, {"x": value})[0].numpy(), want)
    with pytest.raises(ValueError, match="device is 'cuda' 0, must be 'cpu' 0"):
        binding.bind_output(name, "cuda")
    binding.bind_ortvalue_output(name, sepconv.OrtValue.ortvalue_from_shape_and_type([2, 4]))
    with pytest.raises(ValueError, match="the memory bound to an output is"):
        session.run_with_iobinding(binding)


def test_wrong_calls(session: sepconv.InferenceSession, data: bytes) -> None:
    with pytest.raises(TypeError, match="sess_options was 3, must be a SessionOptions or None"):
        sepconv.InferenceSession(data, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="input_feed was of type NoneType, must map the inputs' names to arrays"):
        session.run(None, None)  # type: ignore[arg-type]
    x = normal(1, 3, 16, 16)
    with pytest.raises(ValueError, match=r"required inputs \['x'\] are missing"):
        session.run(None, {})
    with pytest.raises(ValueError, match="output_names has 'nothing'"):
        session.run(["nothing"], {"x": x})
    with pytest.raises(ValueError, match="has no input 'y'"):
        session.run(None, {"x": x, "y": x})
    with pytest.raises(TypeError, match="had dtype float64"):
        session.run(None, {"x": x.astype(np.float64)})
    assert session.run(None, {"x": x.tolist()})[0].shape == (1, 5)
    with pytest.raises(FileNotFoundError):
        sepconv.InferenceSession("nothing.onnx")
    with pytest.raises(sepconv.ModelFormatError):
        sepconv.InferenceSession(data[: len(data) // 2])


# --- A program from PyPI


def models_of_rapidocr() -> Path:
    spec = importlib.util.find_spec("rapidocr_onnxruntime")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the package rapidocr-onnxruntime (pip install --no-deps rapidocr-onnxruntime)")
    return Path(spec.submodule_search_locations[0]) / "models"


@pytest.mark.parametrize(
    "file, shapes",
    (
        ("ch_ppocr_mobile_v2.0_cls_infer.onnx", [(1, 3, 48, 192), (4, 3, 48, 192)]),
        ("ch_PP-OCRv4_det_infer.onnx", [(1, 3, 96, 160), (1, 3, 64, 64)]),
        ("ch_PP-OCRv4_rec_infer.onnx", [(1, 3, 48, 96), (2, 3, 48, 160)]),
    ),
)
def test_the_models_of_rapidocr(file: str, shapes: list[tuple[int, ...]]) -> None:
    path = models_of_rapidocr() / file
    ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    theirs = ort.InferenceSession(str(path), providers=[CPU])
    ours = sepconv.InferenceSession(str(path))
    assert ours.get_modelmeta().custom_metadata_map == theirs.get_modelmeta().custom_metadata_map
    assert ours.model.native
    for shape in shapes:
        x = normal(*shape)
        (want,) = theirs.run(None, {"x": x})
        (got,) = ours.run(None, {"x": x})
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=5e-5)
    inside = ours.model.explain().split("partition: ")[1].splitlines()[0]
    if "cls" in file:
        assert inside.endswith("in 1 plan(s), 0 alone")


def test_the_program_with_one_import_changed() -> None:
    """All of RapidOCR on a drawn line of text: what it reads, where and how surely, is what onnxruntime gives."""
    models_of_rapidocr()
    for package in ("cv2", "pyclipper", "shapely", "yaml", "PIL", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}, which rapidocr-onnxruntime imports")
    results: dict[str, Any] = {}
    for runtime in ("sepconv", "onnxruntime"):
        command = [sys.executable, str(EXAMPLE), "--runtime", runtime, "--text", "sepconv 2026"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        results[runtime] = done.stdout.splitlines()
    assert results["sepconv"][0] == "runs on sepconv"
    assert results["onnxruntime"][0] == "runs on onnxruntime"
    assert any("2026" in line for line in results["sepconv"])
    assert results["sepconv"][1:] == results["onnxruntime"][1:]


def test_sizes_by_name_and_shapes_that_the_file_leaves_out() -> None:
    b = Builder()
    x = b.node("Relu", b.conv("x", 3, 4))
    proto = b.model({"x": ["n", 3, "h", 8]}, [x])
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    data = proto.SerializeToString()
    session = sepconv.InferenceSession(data)
    assert str(session.get_inputs()[0]) == "NodeArg(name='x', type='tensor(float)', shape=['n', 3, 'h', 8])"
    (output,) = session.get_outputs()
    assert (output.type, output.shape[0], output.shape[1], output.shape[3]) == ("tensor(float)", "n", 4, 8)
    options = sepconv.SessionOptions()
    options.add_free_dimension_override_by_name("n", 2)
    options.add_free_dimension_override_by_name("h", 8)
    fixed = sepconv.InferenceSession(data, options)
    assert fixed.get_inputs()[0].shape == [2, 3, 8, 8]
    assert fixed.get_outputs()[0].shape == [2, 4, 8, 8]
    assert fixed.run(None, {"x": normal(2, 3, 8, 8)})[0].shape == (2, 4, 8, 8)
    with pytest.raises(ValueError, match="must have"):
        fixed.run(None, {"x": normal(1, 3, 8, 8)})
    with pytest.raises(ValueError, match="must be at least 1"):
        options.add_free_dimension_override_by_name("n", 0)
    assert fixed.end_profiling() == ""
    with pytest.raises(ValueError, match="must be of \\['x'\\]"):
        fixed.io_binding().bind_cpu_input("y", normal(1))
