"""Small ONNX models for the tests, and the package onnx's reference results for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sepconv.onnx.model import OnnxModel
from sepconv.onnx.reader import read_model

Array = NDArray[Any]
OPSET = 18


class Builder:
    """Nodes one after the other; each call returns the name of its result."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def constant(self, array: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def weight(self, *shape: int, scale: float = 0.3) -> str:
        return self.constant(self.random.standard_normal(shape) * scale)

    def integers(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def node(self, op: str, *inputs: str, count: int = 1, **attributes: Any) -> Any:
        outputs = [f"{op.lower()}{len(self.nodes)}_{index}" for index in range(count)]
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=f"{op}{len(self.nodes)}", **attributes))
        return outputs[0] if count == 1 else outputs

    def conv(
        self,
        x: str,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        *,
        group: int = 1,
        bias: bool = True,
        **attributes: Any,
    ) -> str:
        weight = self.weight(outputs, inputs // group, kernel, kernel)
        extra = [self.weight(outputs)] if bias else []
        pads = [kernel // 2] * 4
        name: str = self.node("Conv", x, weight, *extra, group=group, **{"pads": pads, **attributes})
        return name

    def batch_norm(self, x: str, channels: int) -> str:
        gamma, beta, mean = (self.weight(channels) for _ in range(3))
        variance = self.constant(self.random.random(channels) + 0.5)
        name: str = self.node("BatchNormalization", x, gamma, beta, mean, variance)
        return name

    def model(
        self,
        inputs: Mapping[str, Sequence[Any]],
        outputs: Sequence[str],
        *,
        opset: int = OPSET,
        dtype: int = TensorProto.FLOAT,
    ) -> Any:
        ports = [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()]
        results = [onnx.ValueInfoProto(name=name) for name in outputs]
        graph = helper.make_graph(self.nodes, "test", ports, results, self.initializers)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        inferred = onnx.shape_inference.infer_shapes(proto)
        del inferred.graph.value_info[:]
        return inferred


def loaded(proto: Any, **options: Any) -> OnnxModel:
    return OnnxModel(read_model(proto), **options)


def reference(proto: Any, *inputs: Array) -> list[Array]:
    from onnx.reference import ReferenceEvaluator

    names = [port.name for port in proto.graph.input]
    return list(ReferenceEvaluator(proto).run(None, dict(zip(names, inputs, strict=True))))


def normal(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def assert_agrees(proto: Any, *inputs: Array, **options: Any) -> OnnxModel:
    """Our results are the reference's, with all passes, with none, and without plans."""
    want = reference(proto, *inputs)
    feeds = dict(zip([port.name for port in proto.graph.input], inputs, strict=True))
    model = loaded(proto, **options)
    for tried in (model, loaded(proto, passes=()), loaded(proto, plans=False)):
        got = tried.run(feeds)
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)
    return model


def small_network(*, batch: Any = 1, side: Any = 16) -> Any:
    """A bit of everything: BatchNorm, hard-swish, squeeze-and-excite, a residual, groups, a shuffle, a classifier."""
    b = Builder()
    x = b.batch_norm(b.conv("x", 3, 8, bias=False, strides=[2, 2]), 8)
    x = b.node("Clip", x, b.constant(0.0), b.constant(6.0))
    wide = b.batch_norm(b.conv(b.batch_norm(b.conv(x, 8, 24, 1), 24), 24, 24, 5, group=24), 24)
    gate = b.node("Clip", b.node("Add", wide, b.constant(3.0)), b.constant(0.0), b.constant(6.0))
    wide = b.node("Div", b.node("Mul", wide, gate), b.constant(6.0))
    mean = b.node("ReduceMean", wide, b.integers(2, 3))
    squeezed = b.node("Relu", b.conv(mean, 24, 8, 1))
    excite = b.node("HardSigmoid", b.conv(squeezed, 8, 24, 1), alpha=0.2, beta=0.5)
    wide = b.node("Mul", wide, excite)
    x = b.node("Add", b.conv(wide, 24, 8, 1), x)
    x = b.conv(x, 8, 12, 3, group=4)
    split = b.node("Reshape", x, b.integers(0, 4, 3, 8, 8) if isinstance(side, int) else b.integers(0, 4, 3, -1, 8))
    x = b.node("Reshape", b.node("Transpose", split, perm=[0, 2, 1, 3, 4]), b.integers(0, 12, 8, 8))
    x = b.node("Concat", x, b.node("Sigmoid", x), axis=1)
    x = b.node("GlobalAveragePool", x)
    x = b.node("Gemm", b.node("Flatten", x), b.weight(5, 24), b.weight(5), transB=1)
    return b.model({"x": [batch, 3, side, side]}, [b.node("Softmax", x, axis=1)])
