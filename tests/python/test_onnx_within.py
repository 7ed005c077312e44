"""Graphs within nodes: what they hold runs on our kernels where these run it; onnxruntime says what is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx import helper
from onnx_models import Array, Builder, loaded, normal
from test_onnx_fallbacks import BOOL, FLOAT, INT64, agrees, integers, port, proto

from sepconv.errors import UnsupportedError

pytestmark = pytest.mark.filterwarnings("ignore::sepconv.onnx.program.FallbackWarning")


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("ConvTranspose", [normal(1, 4, 5, 5), normal(4, 2, 3, 3), normal(8)], {"group": 4}),
        ("Pad", [normal(3, 4), integers(0, -1, 1, 0)], {}),
        ("Flatten", [normal(0, 3, 4)], {}),
        ("Unsqueeze", [normal(3), integers(2, 1)], {}),
        ("Squeeze", [normal(1, 3, 1), integers(2, 0)], {}),
        ("ReduceSumSquare", [np.arange(6, dtype=np.int32)], {}),
        ("Mean", [normal(3), normal(2, 3)], {}),
        ("Softsign", [normal(1).reshape(())], {}),
        ("Constant", [], {"value": onnx.numpy_helper.from_array(normal(2, 3))}),
        ("DepthToSpace", [normal(1, 8, 2, 2)], {"blocksize": 2, "mode": "CRD"}),
        ("Clip", [normal(3, 4), None, np.array(0.5, np.float32)], {}),
    ],
)
def test_what_a_branch_holds_runs_on_our_kernels(op: str, inputs: list[Array | None], attributes: Any) -> None:
    model, feeds = proto(op, inputs, **attributes)
    branch = helper.make_graph([model.graph.node[0]], "branch", [], [onnx.ValueInfoProto(name="y0")])
    node = helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)
    del model.graph.node[:], model.graph.output[:], model.graph.value_info[:]
    model.graph.node.append(node)
    model.graph.input.append(port("c", BOOL, []))
    model.graph.output.append(onnx.ValueInfoProto(name="z"))
    agrees(model, {**feeds, "c": np.array(True)})


@pytest.mark.parametrize(("dtype", "is_linked"), [("f4", False), ("f8", False), ("f4", True)])
@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("Gelu", [normal(3, 4)], {"approximate": "tanh"}),
        ("GroupNormalization", [normal(2, 4, 3), normal(4), normal(4)], {"num_groups": 2}),
        ("LayerNormalization", [normal(2, 4), normal(4)], {}),
        ("Softplus", [normal(5)], {}),
        ("LeakyRelu", [normal(5)], {"alpha": 0.3}),
        ("Transpose", [normal(2, 3, 4)], {"perm": [1, 2, 0]}),
    ],
)
def test_what_a_function_holds(op: str, inputs: list[Array], attributes: Any, dtype: str, is_linked: bool) -> None:
    model, feeds = proto(op, list(inputs), opset=21, **attributes)
    want = loaded(model)(*feeds.values())  # our kernels
    model, feeds = proto(op, [x.astype(dtype) for x in inputs], opset=21, **attributes)
    opsets = [helper.make_opsetid("", 21)]
    names = list(attributes) if is_linked else []
    function = helper.make_function("own", "Own", list(feeds), ["y0"], [model.graph.node[0]], opsets, names)
    if is_linked:  # the function's attributes are its node's
        del function.node[0].attribute[:]
        for kind in model.graph.node[0].attribute:
            linked = onnx.AttributeProto(name=kind.name, ref_attr_name=kind.name, type=kind.type)
            function.node[0].attribute.append(linked)
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node[0].CopyFrom(
        helper.make_node("Own", list(feeds), ["y0"], domain="own", **(attributes if is_linked else {}))
    )
    got = loaded(model)(*feeds.values())
    assert got.dtype == np.dtype(dtype)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_what_is_wrong_within_a_branch_is_named() -> None:
    b = Builder()
    padded = helper.make_node("Pad", ["x", "p"], ["y"], name="Inner")
    branch = helper.make_graph([padded], "branch", [], [port("y", FLOAT, None)])
    y = b.node("If", b.constant(True, np.bool_), then_branch=branch, else_branch=branch)
    model = b.model({"x": [3], "p": [3]}, [y])
    model.graph.input[1].type.tensor_type.elem_type = INT64
    with pytest.raises(ValueError, match=r"node 'Inner' \(Pad\): pads has 3 numbers, must have 2"):
        loaded(model)(normal(3), integers(1, 1, 1))


def test_the_arrays_of_sequences_are_the_callers_own() -> None:
    sequence = helper.make_tensor_sequence_value_info
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("SequenceConstruct", ["r", "r"], ["s"]),
        helper.make_node("Identity", ["given"], ["same"]),
    ]
    ports = [port("x", FLOAT, [3]), sequence("given", FLOAT, None)]
    outputs = [sequence("s", FLOAT, None), port("r", FLOAT, None), sequence("same", FLOAT, None)]
    graph = helper.make_graph(nodes, "g", ports, outputs)
    model = loaded(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))
    given = [normal(2), normal(3)]
    (first, second), relu, same = model.run({"x": normal(3), "given": given})
    arrays = [first, second, relu, *same, *given]
    for index, array in enumerate(arrays):
        assert not any(np.shares_memory(array, other) for other in arrays[:index])


def test_scatter_before_opset_11() -> None:
    agrees(*proto("Scatter", [normal(3, 4), integers([0, 2, 1]), normal(1, 3)], opset=9, axis=1))


def test_an_operator_that_nothing_runs() -> None:
    model, _ = proto("MaxRoiPool", [normal(1, 2, 6, 6), normal(2, 5)], pooled_shape=[2, 2])
    with pytest.raises(UnsupportedError, match=r"node 'N': nothing here runs MaxRoiPool: [^\n]{1,100}$"):
        loaded(model)


@pytest.mark.parametrize("is_nested", [False, True])
def test_last_inputs_of_a_function_may_be_left_out(is_nested: bool) -> None:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    nodes = [helper.make_node("Clip", ["x", "low", "high"], ["y"])]
    functions = [helper.make_function("own", "F", ["x", "low", "high"], ["y"], nodes, opsets)]
    calls = [helper.make_node("F", ["x", "low"], ["y"], domain="own")]
    if is_nested:
        functions.append(helper.make_function("own", "G", ["x", "low", "high"], ["y"], calls, opsets))
        calls = [helper.make_node("G", ["x", "low"], ["y"], domain="own")]
    ports = [port("x", FLOAT, [3, 4]), port("low", FLOAT, [])]
    graph = helper.make_graph(calls, "g", ports, [port("y", FLOAT, [3, 4])])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions)
    agrees(model, {"x": normal(3, 4), "low": np.array(-0.2, np.float32)})


def test_the_element_of_an_optional_has_its_shape() -> None:
    nodes = [helper.make_node("Optional", ["x"], ["o"]), helper.make_node("OptionalGetElement", ["o"], ["y"])]
    graph = helper.make_graph(nodes, "g", [port("x", FLOAT, [3, 4])], [onnx.ValueInfoProto(name="y")])
    agrees(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), {"x": normal(3, 4)})
