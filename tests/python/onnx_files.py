"""ONNX files of any nodes, for the tests of what misleads or asks for too much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import sepconv

make_node = helper.make_node
Array = NDArray[Any]


def constant(name: str, array: Any, dtype: Any = np.float32) -> Any:
    return numpy_helper.from_array(np.asarray(array, dtype), name)


def port(name: str, shape: Any, kind: int = onnx.TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[str],
    constants: Sequence[Any] = (),
    functions: Sequence[Any] = (),
    opset: int = 18,
) -> bytes:
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid("local", 1)] if functions else [])]
    graph = helper.make_graph(nodes, "g", inputs, [port(name, None) for name in outputs], constants)
    proto = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=8)
    return bytes(proto.SerializeToString())


def session(*arguments: Any, **options: Any) -> sepconv.InferenceSession:
    return sepconv.InferenceSession(model(*arguments, **options))


def normal(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(len(shape)).standard_normal(shape, dtype=np.float32)


def same_as_reference(data: bytes, feeds: dict[str, Array]) -> None:
    from onnx.reference import ReferenceEvaluator

    expected = ReferenceEvaluator(onnx.load_from_string(data)).run(None, feeds)
    for got, want in zip(sepconv.InferenceSession(data).run(None, feeds), expected, strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
