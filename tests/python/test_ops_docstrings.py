"""What the operators' docstrings show beside themselves is run: torch's lines by torch, TensorFlow's by onnxruntime.

TensorFlow itself is not installed: its functions are stood in for by onnxruntime's Conv with auto_pad SAME_UPPER, which
ONNX defines to be TensorFlow's rule.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from op_problems import OPERATORS
from oracle import UNIT, Float32

import sepconv


@pytest.fixture(scope="module")
def same() -> Callable[..., Float32]:
    """conv(x, weight, strides, rule, groups): NCHW, by onnxruntime; sessions are kept for images of any size."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    kept: dict[Any, Any] = {}

    def conv(x: Float32, weight: Float32, strides: tuple[int, int], rule: str, groups: int) -> Float32:
        key = (weight.shape, strides, rule, groups)
        if key not in kept:
            helper, number = onnx.helper, onnx.TensorProto.FLOAT
            node = helper.make_node("Conv", ["x", "w"], ["y"], strides=strides, auto_pad=rule, group=groups)
            inputs = [helper.make_tensor_value_info(name, number, [None] * 4) for name in "xw"]
            outputs = [helper.make_tensor_value_info("y", number, [None] * 4)]
            model = helper.make_model(
                helper.make_graph([node], "conv", inputs, outputs),
                opset_imports=[helper.make_opsetid("", 18)],
                ir_version=9,
            )
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            kept[key] = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        feeds = {"x": np.ascontiguousarray(x), "w": np.ascontiguousarray(weight)}
        result: Float32 = kept[key].run(None, feeds)[0]
        return result

    return conv


def shown(operator: str, library: str) -> str:
    """The block of code after "In torch, ..." or "In TensorFlow, ..."."""
    text = inspect.getdoc(getattr(sepconv, operator))
    assert text is not None
    match = re.search(rf"^In {library}\b[^\n]*::\n\n((?: {{4}}[^\n]*\n)+)", text, re.MULTILINE)
    assert match, f"{operator} shows nothing of {library}"
    return textwrap.dedent(match[1])


def evaluate(code: str, names: dict[str, Any]) -> Any:
    """The value of the last line, an expression."""
    *before, last = ast.parse(code).body
    assert isinstance(last, ast.Expr), code
    scope = dict(names)
    exec(compile(ast.Module(before, []), "docstring", "exec"), scope)
    return eval(compile(ast.Expression(last.value), "docstring", "eval"), scope)


def draw(operator: str, random: Random, layout: str, *, biases: bool) -> dict[str, Any]:
    """Arguments of a call by name, those that the shown lines use: no other activation or residual."""
    generator = np.random.default_rng(random.getrandbits(32))

    def array(*shape: int) -> Float32:
        return generator.standard_normal(shape, dtype=np.float32)

    c, inner, n, multiplier = random.randint(1, 20), random.randint(1, 20), random.randint(1, 20), random.randint(1, 3)
    kernel, groups = random.choice((1, 3, 3, 5)), 1
    residual = operator == "inverted_residual"
    if residual:  # x itself is added
        n, inner = c, random.randint(1, 20)
    if operator == "conv2d" and random.random() < 0.5:
        groups = random.randint(2, 3)
        c, n = c * groups, n * groups
    convolutions = {
        "depthwise_conv2d": [("", "depthwise", c)],
        "pointwise_conv2d": [("", "pointwise", c)],
        "conv2d": [("", "conv", c // groups)],
        "separable_conv2d": [("depthwise_", "depthwise", c), ("pointwise_", "pointwise", c * multiplier)],
        "inverted_residual": [
            ("expand_", "expand", c),
            ("depthwise_", "depthwise", inner),
            ("project_", "pointwise", inner * multiplier),
        ],
    }[operator]
    arguments: dict[str, Any] = {}
    for prefix, kind, inputs in convolutions:
        outputs = {"depthwise": inputs * multiplier, "expand": inner}.get(kind, n)
        window = (kernel, kernel) if kind in ("depthwise", "conv") else (1, 1)
        if layout == "NCHW":
            shape = (outputs, 1 if kind == "depthwise" else inputs, *window)
        else:
            shape = (*window, inputs, multiplier if kind == "depthwise" else outputs)
        arguments[f"{prefix}weight"] = array(*shape)
        if biases:
            arguments[f"{prefix}bias"] = array(outputs)
    size = random.randint(kernel, 20), random.randint(kernel, 20)
    arguments["x"] = array(2, c, *size) if layout == "NCHW" else array(2, *size, c)
    if operator != "pointwise_conv2d":
        strided = not residual
        arguments["stride"] = random.randint(1, min(3, kernel)) if strided else 1
        arguments["dilation"] = 1
        arguments["padding"] = kernel // 2 if residual or random.random() < 0.5 else 0
        if layout == "NHWC":
            arguments["padding"] = "same"
    if operator == "conv2d":
        arguments["groups"] = groups
    return arguments


def ours(operator: str, arguments: dict[str, Any], layout: str) -> Float32:
    more = {"residual": arguments["x"]} if operator == "inverted_residual" else {}
    result: Float32 = getattr(sepconv, operator)(**arguments, **more, layout=layout)
    return result


def assert_close(result: Float32, theirs: Any) -> None:
    """Both of float32; test_counterparts.py has the strict bound, here the lines must mean the same."""
    result, theirs = np.asarray(result), np.asarray(theirs)
    assert result.shape == theirs.shape
    scale = max(float(np.abs(theirs).max()), 1.0)
    assert np.abs(result - theirs).max() <= 2000 * UNIT * scale


@pytest.mark.parametrize("operator", OPERATORS)
def test_lines_of_torch(operator: str, torch: Any) -> None:
    code = shown(operator, "torch")
    for seed in range(40):
        arguments = draw(operator, Random(seed), "NCHW", biases=True)
        names = {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in arguments.items()}
        theirs = evaluate(code, {**names, "torch": torch, "F": torch.nn.functional})
        assert_close(ours(operator, arguments, "NCHW"), theirs)
        assert_close(ours(operator, names, "NCHW"), theirs)


def tensorflow(same: Callable[..., Float32]) -> Any:
    """tf.nn with the functions that the docstrings use, as strict about their arguments as TensorFlow."""

    def conv2d(input: Float32, filters: Float32, strides: Any, padding: str, dilations: Any = None) -> Float32:
        assert padding in ("SAME", "VALID")
        assert dilations in (None, 1)
        groups = input.shape[3] // filters.shape[2]
        strides = (strides, strides) if isinstance(strides, int) else tuple(strides)
        rule = {"SAME": "SAME_UPPER", "VALID": "VALID"}[padding]
        result = same(input.transpose(0, 3, 1, 2), filters.transpose(3, 2, 0, 1), strides, rule, groups)
        return result.transpose(0, 2, 3, 1)

    def depthwise_conv2d(input: Float32, filter: Float32, strides: Any, padding: str, dilations: Any = None) -> Float32:
        assert isinstance(strides, list)
        assert len(strides) == 4
        assert strides[0] == strides[3] == 1
        assert dilations in (None, [1, 1])
        filters = filter.reshape(*filter.shape[:2], 1, -1)
        return conv2d(input, filters, strides[1:3], padding)

    def separable_conv2d(input: Float32, depthwise: Float32, pointwise: Float32, strides: Any, padding: str) -> Float32:
        return conv2d(depthwise_conv2d(input, depthwise, strides, padding), pointwise, 1, "VALID")

    def relu6(features: Float32) -> Float32:
        return np.clip(features, 0, 6)

    return SimpleNamespace(
        nn=SimpleNamespace(
            conv2d=conv2d, depthwise_conv2d=depthwise_conv2d, separable_conv2d=separable_conv2d, relu6=relu6
        )
    )


@pytest.mark.parametrize("operator", OPERATORS)
def test_lines_of_tensorflow(operator: str, same: Callable[..., Float32]) -> None:
    code = shown(operator, "TensorFlow")
    tf = tensorflow(same)
    biases = operator not in ("separable_conv2d", "inverted_residual")  # as their docstrings say
    for seed in range(40):
        arguments = draw(operator, Random(seed), "NHWC", biases=biases)
        theirs = evaluate(code, {**arguments, "tf": tf})
        assert_close(ours(operator, arguments, "NHWC"), theirs)


@pytest.mark.parametrize("kernel", range(1, 8))
def test_the_rules_of_padding_on_many_sizes(kernel: int, same: Callable[..., Float32]) -> None:
    """Small integers: equal to the bit. TensorFlow's rule and its mirror, for sizes to 40 and strides to the kernel's.

    Windows with gaps between them are padded by nothing, as TensorFlow publishes; there onnxruntime crops the image.
    """
    generator = np.random.default_rng(kernel)
    weight = generator.integers(-4, 5, (kernel, kernel, 1, 2)).astype(np.float32)
    filters = weight.reshape(kernel, kernel, 1, 2).transpose(3, 2, 0, 1)
    for size in range(1, 41):
        x = generator.integers(-4, 5, (1, size, 41 - size, 1)).astype(np.float32)
        for stride in range(1, kernel + 1):
            for name, rule in (("same", "SAME_UPPER"), ("same_lower", "SAME_LOWER")):
                result = sepconv.depthwise_conv2d(x, weight, stride=stride, padding=name)  # type: ignore[arg-type]
                theirs = same(x.transpose(0, 3, 1, 2), filters, (stride, stride), rule, 1)
                assert np.array_equal(result, theirs.transpose(0, 2, 3, 1)), (size, stride, name)
        for stride in range(kernel + 1, kernel + 4):
            # Rows that are left for a last window that does not fit are the only ones that need zeros.
            (top, bottom), (left, right) = (
                (missing // 2, missing - missing // 2)
                for missing in (max(kernel - (n % stride or stride), 0) for n in x.shape[1:3])
            )
            for name, sides in (
                ("same", ((top, bottom), (left, right))),
                ("same_lower", ((bottom, top), (right, left))),
            ):
                padded = np.pad(x, ((0, 0), *sides, (0, 0)))
                theirs = same(padded.transpose(0, 3, 1, 2), filters, (stride, stride), "VALID", 1)
                result = sepconv.depthwise_conv2d(x, weight, stride=stride, padding=name)  # type: ignore[arg-type]
                assert np.array_equal(result, theirs.transpose(0, 2, 3, 1)), (size, stride, name)
