"""The operators' calls done by other libraries: torch.nn.functional in float64, and models for onnxruntime.

torch's results come with the bound that sepconv states: (K + 4) · 2^-24 · Σ|x·w| for a sum of K products, carried
through the layers that follow, and the activations' own. torch computes the sums of magnitudes too: nothing is ours.
"""

from __future__ import annotations

import dataclasses
from random import Random
from typing import Any

import numpy as np
from op_problems import MEMORY, Problem, in_memory, random_problem, weight_in
from oracle import TRANSCENDENTAL, UNIT, Float32, Float64

from sepconv import graph

# What torch.from_numpy takes: no negative strides, whole elements apart, writable.
TORCH_MEMORY = ("plain", "channels first", "channels last", "sliced", "strided", "transposed")


def random_counterpart(random: Random, operator: str, *, rule: bool | None = None) -> Problem:
    """A problem, sometimes in groups, sometimes padded by TensorFlow's rule or its mirror. ``rule``: always, never."""
    problem = random_problem(random, operator, large=random.random() < 0.1)
    if operator == "conv2d" and random.random() < 0.3:
        problem = grouped(problem, random)
    if problem.geometry and (random.random() < 0.4 if rule is None else rule):
        pad_by_rule(problem, random.choice(("same", "same_lower")))
    return problem


def grouped(problem: Problem, random: Random) -> Problem:
    """The same convolution of fewer channels, for several groups of them."""
    layer = problem.layers[0]
    groups = random.randint(2, 4)
    outputs = np.shape(layer.weight)[3]
    x = np.concatenate([problem.x * (1 + g) for g in range(groups)], axis=3)
    weight = np.concatenate([np.asarray(layer.weight) / (1 + g) for g in range(groups)], axis=3)
    bias = None if layer.bias is None else np.tile(np.asarray(layer.bias), groups)
    assert weight.shape[3] == groups * outputs
    changed = dataclasses.replace(layer, weight=weight, bias=bias)
    return dataclasses.replace(problem, x=x, layers=[changed], groups=groups)


def pad_by_rule(problem: Problem, rule: str) -> None:
    """Pad by a rule, whose numbers go to the layer as they are published: https://www.tensorflow.org/api_docs/python/tf/nn."""
    at = next(i for i, layer in enumerate(problem.layers) if windowed(problem, layer))
    layer: Any = problem.layers[at]
    sides = []
    for axis in (0, 1):
        size, stride = problem.x.shape[1 + axis], layer.stride[axis]
        extent = (np.shape(layer.weight)[axis] - 1) * layer.dilation[axis] + 1
        total = max(extent - (size % stride or stride), 0)
        small, rest = total // 2, total - total // 2
        sides.append((small, rest) if rule == "same" else (rest, small))
    problem.layers[at] = dataclasses.replace(layer, padding=tuple(sides))
    problem.geometry["padding"] = rule
    if problem.residual is not None:
        n, h, w, _ = problem.x.shape
        shape = (n, -(-h // layer.stride[0]), -(-w // layer.stride[1]), problem.residual.shape[3])
        problem.residual = np.resize(problem.residual, shape)


def windowed(problem: Problem, layer: graph.Convolution) -> bool:
    """Whether stride, padding and dilation are this layer's."""
    return problem.operator == "conv2d" or isinstance(layer, graph.DepthwiseConv2d)


def rule_is_theirs(layer: Any) -> bool:
    """Whether onnxruntime pads by the published rule: not beside a dilation, and it crops where windows have gaps."""
    kh, kw = np.shape(layer.weight)[:2]
    return tuple(layer.dilation) == (1, 1) and layer.stride[0] <= kh and layer.stride[1] <= kw


def groups_of(problem: Problem, layer: graph.Convolution) -> int:
    return np.shape(layer.weight)[2] if isinstance(layer, graph.DepthwiseConv2d) else problem.groups


def call_with_torch_or_numpy(problem: Problem, random: Random, torch: Any) -> Float32:
    """sepconv's result in NHWC: of tensors or arrays, in any layout, memory and type of result."""
    layout = random.choice(("NHWC", "NCHW"))
    axes = (0, 1, 2, 3) if layout == "NHWC" else (0, 3, 1, 2)
    tensors = random.random() < 0.5
    kinds = TORCH_MEMORY if tensors else MEMORY

    def lay(values: Float32 | None) -> Any:
        if values is None:
            return None
        array = in_memory(np.ascontiguousarray(values.transpose(axes)), random.choice(kinds))
        return torch.from_numpy(array) if tensors else array

    x, residual = lay(problem.x), lay(problem.residual)
    threads = random.choice((1, 1, 2, 3))
    result = problem.call(x, layout, residual, prepared=random.random() < 0.5, threads=threads)
    assert type(result) is (torch.Tensor if tensors else np.ndarray)
    if random.random() < 0.3:
        out = lay(np.full(np.asarray(result).transpose(np.argsort(axes)).shape, np.nan, np.float32))
        if tensors or out.flags.writeable:
            assert problem.call(x, layout, residual, out=out, threads=threads) is out
            assert np.array_equal(out, result), problem
    return np.asarray(result).transpose(np.argsort(axes))


# --- torch


def torch_result(problem: Problem, torch: Any) -> tuple[Float64, Float64, Float32]:
    """In NHWC: the result in float64, how far float32 may be from it, and the result in float32."""
    functional = torch.nn.functional

    def conv(x: Any, layer: Any, change: Any = lambda tensor: tensor, *, bias: bool = True) -> Any:
        weight = torch.from_numpy(weight_in("NCHW", layer).copy()).to(x.dtype)
        (top, bottom), (left, right) = getattr(layer, "padding", ((0, 0), (0, 0)))
        added = torch.from_numpy(np.asarray(layer.bias)).to(x.dtype) if bias and layer.bias is not None else None
        return functional.conv2d(
            functional.pad(x, (left, right, top, bottom)),
            change(weight),
            None if added is None else change(added),
            layer.stride,
            0,
            layer.dilation,
            groups_of(problem, layer),
        )

    activations = {
        "none": lambda x: x,
        "relu": functional.relu,
        "relu6": functional.relu6,
        "hard_swish": functional.hardswish,
        "hard_sigmoid": functional.hardsigmoid,
        "sigmoid": torch.sigmoid,
        "silu": functional.silu,
        "gelu": functional.gelu,
        "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    }
    single = torch.from_numpy(problem.x.transpose(0, 3, 1, 2).copy())
    exact = single.double()
    error = torch.zeros_like(exact)
    for layer in problem.layers:
        products = np.asarray(layer.weight)[..., 0].size
        if isinstance(layer, graph.DepthwiseConv2d):
            products = int(np.prod(np.shape(layer.weight)[:2]))
        bound = (products + 4) * UNIT * conv(exact.abs(), layer, torch.abs)
        bound = bound + conv(error, layer, torch.abs, bias=False) * (1 + 1e-6)
        single, exact = conv(single, layer), conv(exact, layer)
        if layer is problem.layers[-1] and problem.residual is not None:
            residual = torch.from_numpy(problem.residual.transpose(0, 3, 1, 2).copy())
            bound = bound + 2 * UNIT * (exact.abs() + 2 * residual.abs())
            single, exact = single + residual, exact + residual
        activate = activations[layer.activation]
        if layer.activation not in ("none", "relu", "relu6"):
            # The steepest slope is hard swish's just below 3.
            bound = 1.5 * bound + TRANSCENDENTAL * exact.abs().clamp(min=1)
        single, exact = activate(single), activate(exact)
        error = bound + torch.from_numpy(np.spacing(np.abs(exact.float().numpy())))
    value, bound, theirs = (tensor.permute(0, 2, 3, 1).numpy() for tensor in (exact, error, single))
    return value, bound, theirs


# --- onnxruntime


def onnx_result(problem: Problem, onnx: Any, onnxruntime: Any) -> Float32:
    """In NHWC, float32: of a model with a Conv for each convolution, padded by ONNX's rules where ours has a name."""
    helper, proto = onnx.helper, onnx.TensorProto
    nodes: list[Any] = []
    constants = [helper.make_tensor("zero", proto.FLOAT, [], [0.0]), helper.make_tensor("six", proto.FLOAT, [], [6.0])]
    value = "x"

    def node(operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(values: Float32) -> str:
        name = f"c{len(constants)}"
        constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    for layer in problem.layers:
        (top, bottom), (left, right) = getattr(layer, "padding", ((0, 0), (0, 0)))
        rule = {"same": "SAME_UPPER", "same_lower": "SAME_LOWER"}.get(str(problem.geometry.get("padding")))
        padding: dict[str, Any] = {"pads": [top, left, bottom, right]}
        if rule is not None and windowed(problem, layer) and rule_is_theirs(layer):
            padding = {"auto_pad": rule}
        operands = [constant(weight_in("NCHW", layer))]
        if layer.bias is not None:
            operands.append(constant(np.asarray(layer.bias)))
        value = node(
            "Conv",
            value,
            *operands,
            strides=list(layer.stride),
            dilations=list(layer.dilation),
            group=groups_of(problem, layer),
            **padding,
        )
        if layer is problem.layers[-1] and problem.residual is not None:
            value = node("Add", value, "residual")
        match layer.activation:
            case "relu":
                value = node("Relu", value)
            case "relu6":
                value = node("Clip", value, "zero", "six")
            case "hard_swish":
                value = node("HardSwish", value)
            case "hard_sigmoid":
                value = node("HardSigmoid", value, alpha=1 / 6, beta=0.5)
            case "sigmoid":
                value = node("Sigmoid", value)
            case "silu":
                value = node("Mul", value, node("Sigmoid", value))
            case "gelu" | "gelu_tanh":
                value = node("Gelu", value, approximate="tanh" if layer.activation == "gelu_tanh" else "none")
    feeds = {"x": problem.x.transpose(0, 3, 1, 2).copy()}
    if problem.residual is not None:
        feeds["residual"] = problem.residual.transpose(0, 3, 1, 2).copy()
    body = helper.make_graph(
        nodes,
        "counterpart",
        [helper.make_tensor_value_info(name, proto.FLOAT, array.shape) for name, array in feeds.items()],
        [helper.make_tensor_value_info(value, proto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: Float32 = session.run(None, feeds)[0].transpose(0, 2, 3, 1)
    return result


def check_within(problem: Problem, ours: Float32, theirs: Float32 | Float64, allowed: Float64, whose: str) -> None:
    """That no element is further from theirs than allowed."""
    assert ours.shape == theirs.shape, f"{problem}: {ours.shape}, must be {whose}'s {theirs.shape}"
    miss = np.abs(ours.astype(np.float64) - theirs)
    at = np.unravel_index(np.argmax(miss - allowed), miss.shape)
    assert np.all(miss <= allowed), (
        f"{problem}: at {at} {ours[at]!r}, {whose} {theirs[at]!r}, allowed {allowed[at]:.3g}"
    )


def compare(operator: str, seed: int, torch: Any, onnx: Any = None, onnxruntime: Any = None) -> None:
    """One random call of ours against torch's float64 and float32, and onnxruntime's where that is given."""
    random = Random(seed)
    problem = random_counterpart(random, operator)
    ours = call_with_torch_or_numpy(problem, random, torch)
    exact, bound, single = torch_result(problem, torch)
    check_within(problem, ours, exact, bound, "torch in float64")
    check_within(problem, ours, single, 2 * bound, "torch")  # each within the bound of the same numbers
    if onnxruntime is not None:
        check_within(problem, ours, onnx_result(problem, onnx, onnxruntime), 2 * bound, "onnxruntime")
