"""The suite that the package onnx carries for backends, and docs/conformance.md that tells its result."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the package onnx (extra onnx)")

import onnx

TOOL = Path(__file__).resolve().parents[2] / "tools" / "conformance.py"


@pytest.fixture(scope="module")
def conformance() -> Any:
    spec = importlib.util.spec_from_file_location("conformance", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["conformance"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def suite(conformance: Any) -> Any:
    return conformance.run_suite()


def test_nothing_fails_and_enough_runs_in_our_kernels(conformance: Any, suite: Any) -> None:
    assert list(suite.problems()) == []
    assert suite.count("failed") == 0
    assert suite.count("native", "fallback") >= conformance.MIN_CASES >= 370
    assert suite.count("native") >= conformance.MIN_NATIVE >= 150


def test_the_networks_run_in_our_kernels(suite: Any) -> None:
    networks = {case.name: case.result for case in suite.cases if case.category == "Real"}
    assert networks["test_shufflenet_cpu"] == "native"
    assert networks["test_resnet50_cpu"] == "native"
    depthwise = [case for case in suite.cases if case.name.startswith("test_Conv2d_depthwise")]
    assert [case.result for case in depthwise] == ["native"] * 4


def test_the_page_is_of_this_suite(conformance: Any, suite: Any) -> None:
    if f"onnx {onnx.__version__} " not in conformance.PAGE.read_text(encoding="utf-8"):
        pytest.skip(f"docs/conformance.md is of another version of onnx than {onnx.__version__}")
    assert conformance.PAGE.read_text(encoding="utf-8") == conformance.page(suite)


def test_too_few_cases_fail(conformance: Any, suite: Any) -> None:
    fewer = conformance.Suite(cases=[case for case in suite.cases if case.category != "Node"])
    problems = "\n".join(fewer.problems())
    assert "cases passed, must be at least" in problems
    assert "wholly in our kernels, must be at least" in problems
    broken = conformance.Suite(cases=[conformance.Case("test_x_cpu", "Node", ("Relu",), "failed", "differs")])
    assert "test_x_cpu: differs" in list(broken.problems())


def test_the_backends_functions() -> None:
    from sepconv.onnx import backend

    node = onnx.helper.make_node("Add", ["a", "b"], ["c"])
    a, b = np.ones((2, 3), np.float32), np.arange(3, dtype=np.float32)
    (c,) = backend.run_node(node, [a, b])
    assert np.array_equal(c, a + b)
    assert backend.supports_device("CPU")
    assert not backend.supports_device("CUDA")
    ports = [onnx.helper.make_tensor_value_info(name, 1, [2, 3]) for name in "ac"]
    b_port = onnx.helper.make_tensor_value_info("b", 1, [3])
    graph = onnx.helper.make_graph([node], "g", [ports[0], b_port], ports[1:])
    model = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 14)])
    assert np.array_equal(backend.run_model(model, [a, b])[0], a + b)
    assert np.array_equal(backend.prepare(model).run({"b": b, "a": a})[0], a + b)
    with pytest.raises(ValueError, match="device is 'CUDA', must be CPU"):
        backend.prepare(model, "CUDA")
    with pytest.raises(ValueError, match=r"takes 2 input\(s\), got 3"):
        backend.run_model(model, [a, b, b])
