"""From a node of an fx graph to its :class:`~sepconv.torch.operators.Operator`, or the reason why there is none.

Modules, functions and methods that mean the same come here as the same arguments by name: a table below says which
names a function has, another what a module keeps.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.fx import Node
from torch.nn import functional

from sepconv.torch import library, moving, rewrite  # noqa: F401 - library registers torch.ops.sepconv
from sepconv.torch.arguments import Arguments, Maker, only, pair
from sepconv.torch.convolutions import Convolve, convolve, normalize, own, scaled, separable, shifted
from sepconv.torch.operators import (
    Activate,
    Flatten,
    Linear,
    Mean,
    Operator,
    PadZeros,
    Pool,
    PoolTo,
    PRelu,
    Product,
    Same,
    SoftMax,
    Sum,
    Unsupported,
)
from sepconv.torch.rewrite import is_size, same_for_all
from sepconv.torch.watched import hooked, patched


def parse(node: Node, modules: dict[str, Any], scalar: Callable[[Node], Any], *, region: bool = False) -> Operator:
    """The operator of a node.

    Args:
        node: of a graph whose ``call_module`` targets are keys of ``modules``.
        scalar: gives a scalar argument that another node computes, at least as an example of it.
        region: whether the graph was cut from one where all its nodes have operators: who reads what is not in it.

    Raises:
        Unsupported: with the reason why it stays with torch.
    """
    arguments, make = _of_module(node, modules[node.target]) if node.op == "call_module" else _of_function(node)
    for name, value in arguments.items():
        if name not in TENSORS and name != "residual":
            arguments[name] = torch.fx.map_arg(value, scalar)
    for name in ("input", "other"):
        if name in arguments and not _is_tensor(arguments[name]):
            raise Unsupported(f"{name} is {arguments[name]!r}, not a tensor")
    made = make(arguments)
    constant = next((read for read in made.inputs if not region and same_for_all(read)), None)
    if constant is not None:
        raise Unsupported(f"it reads {constant.name}, which is the same for every batch")
    shape = _shape(arguments.get("weight"), modules)
    if isinstance(made, Convolve) and len(shape) == 4 and not region:
        made.check_groups(shape[1])
    if arguments.get("inplace") and not region and not _unshared(made.inputs[0], modules, scalar):
        raise Unsupported("it changes in place what others read")
    return made


def _is_tensor(value: Any) -> bool:
    """Whether a node may give a tensor, by what it does and by what dynamo noted."""
    example = value.meta.get("example_value") if isinstance(value, Node) else None
    numbers = example is not None and not isinstance(example, torch.Tensor)
    return isinstance(value, Node) and not is_size(value) and not numbers


def _shape(weight: Any, modules: dict[str, Any]) -> tuple[int, ...]:
    """Of a weight, as far as it is known before a call."""
    if isinstance(weight, Node) and weight.op == "get_attr":
        path, _, name = weight.target.rpartition(".")
        weight = getattr(modules[path], name)
    elif isinstance(weight, Node):
        weight = weight.meta.get("example_value")
    return tuple(getattr(weight, "shape", ()))


TENSORS = (
    *("input", "other", "tensors", "weight", "bias", "running_mean", "running_var"),
    *("depthwise_weight", "depthwise_bias", "pointwise_weight", "pointwise_bias"),
)


def _unshared(node: Node, modules: dict[str, Any], scalar: Callable[[Node], Any]) -> bool:
    """Whether nobody but its one reader sees the memory of a node's result, so that changing it shows nowhere."""
    while len(node.users) == 1:
        try:
            made = parse(node, modules, scalar)
        except Unsupported:
            return False  # it may return memory of anything
        if not made.alias:
            return True
        node = made.inputs[0]
    return False


# --- Arguments by name


def _of_function(node: Node) -> tuple[Arguments, Maker]:
    table: dict[Any, tuple[str, Maker]] = METHODS if node.op == "call_method" else FUNCTIONS
    if node.op not in ("call_method", "call_function") or node.target not in table:
        raise Unsupported("sepconv has no such operator")
    names, make = table[node.target]
    fixed = {name.rstrip("!"): True for name in names.split() if name.endswith("!")}
    known = [name for name in names.split() if not name.endswith("!")]
    if len(node.args) > len(known) or not set(node.kwargs) <= set(known):
        raise Unsupported("it has arguments that sepconv does not know")
    return {**dict(zip(known, node.args, strict=False)), **node.kwargs, **fixed}, make


def _of_module(node: Node, module: Any) -> tuple[Arguments, Maker]:
    kind = type(module)
    if kind not in MODULES:
        raise Unsupported("sepconv has no such module")
    if hooked(module):
        raise Unsupported("it has hooks")
    if name := patched(module):
        raise Unsupported(f"it has {name} of its own")
    names, make = MODULES[kind]
    if len(node.args) != 1 or node.kwargs:
        raise Unsupported("it has arguments that sepconv does not know")
    return {"input": node.args[0], **{name: getattr(module, name) for name in names.split()}}, make


# --- What the arguments mean


def _activate(name: Any) -> Maker:
    return lambda a: Activate((a["input"],), name)


def _gelu(a: Arguments) -> Operator:
    return Activate((a["input"],), "gelu_tanh" if a.get("approximate", "none") == "tanh" else "gelu")


def _prelu(a: Arguments) -> Operator:
    return PRelu((a["input"],), a["weight"])


def _leaky_relu(a: Arguments) -> Operator:
    slope = a.get("negative_slope", 0.01)
    if not isinstance(slope, int | float):
        raise Unsupported(f"its slope is {slope}")
    return PRelu((a["input"],), float(slope))


def _clamp(a: Arguments) -> Operator:
    bounds = a.get("min", a.get("min_val")), a.get("max", a.get("max_val"))
    if bounds == (0, 6):
        return Activate((a["input"],), "relu6")
    if bounds in ((0, None), (0, float("inf"))):
        return Activate((a["input"],), "relu")
    raise Unsupported(f"its bounds are {bounds[0]} and {bounds[1]}")


def _sum(a: Arguments) -> Operator:
    only(a, alpha=1, out=None)
    return Sum((a["input"], a["other"]))


def _product(a: Arguments) -> Operator:
    only(a, out=None)
    return Product((a["input"], a["other"]))


def _average_pool(a: Arguments) -> Operator:
    only(a, ceil_mode=False, divisor_override=None)
    return _pool(a, largest=False)


def _max_pool(a: Arguments) -> Operator:
    only(a, ceil_mode=False, return_indices=False)
    if pair(a.get("dilation", 1), "dilation") != (1, 1):
        raise Unsupported(f"dilation is {a['dilation']}")
    return _pool(a, largest=True)


def _pool(a: Arguments, *, largest: bool) -> Operator:
    kernel = pair(a["kernel_size"], "kernel_size")
    stride = a.get("stride")
    return Pool(
        (a["input"],),
        kernel=kernel,
        stride=pair(stride, "stride") if stride else kernel,
        padding=pair(a.get("padding", 0), "padding"),
        largest=largest,
        include_padding=bool(a.get("count_include_pad", True)),
    )


def _pool_to(a: Arguments) -> Operator:
    size = a["output_size"]
    height, width = (size, size) if size is None or isinstance(size, int) else size
    return PoolTo((a["input"],), (height, width))


def _mean(a: Arguments) -> Operator:
    only(a, dtype=None, out=None)
    dims = a.get("dim")
    if not isinstance(dims, list | tuple) or sorted(dim % 4 for dim in dims) != [2, 3]:
        raise Unsupported(f"it runs over dimensions {dims}, not (2, 3)")
    return Mean((a["input"],), keep=bool(a.get("keepdim", False)))


def _flatten(a: Arguments) -> Operator:
    if a.get("start_dim", 0) != 1 or a.get("end_dim", -1) not in (-1, 3):
        raise Unsupported(f"it flattens dimensions {a.get('start_dim', 0)} to {a.get('end_dim', -1)}")
    return Flatten((a["input"],))


def _view(a: Arguments) -> Operator:
    """As ``view(-1, features)``; what else flattens was rewritten as flatten before."""
    sizes = tuple(a["shape"]) if isinstance(a.get("shape"), list | tuple) else (a.get("shape"), a.get("second"))
    if len(sizes) != 2 or sizes[0] != -1 or not isinstance(sizes[1], int) or sizes[1] < 1:
        raise Unsupported("it does not flatten images")
    return Flatten((a["input"],), features=sizes[1])


def _linear(a: Arguments) -> Operator:
    return Linear((a["input"],), a["weight"], a.get("bias"))


def _softmax(a: Arguments) -> Operator:
    only(a, dtype=None)
    if not isinstance(a.get("dim"), int):
        raise Unsupported(f"it runs over dimension {a.get('dim')}")
    return SoftMax((a["input"],), a["dim"])


def _pad(a: Arguments) -> Operator:
    pads = a["pad"]
    only(a, mode="constant")
    if a.get("value") not in (None, 0) or not isinstance(pads, list | tuple) or len(pads) not in (2, 4):
        raise Unsupported("it pads by other than zeros around height and width")
    left, right, top, bottom = (*pads, 0, 0)[:4]
    if min(left, right, top, bottom) < 0:
        raise Unsupported(f"it pads by {pads}")
    return PadZeros((a["input"],), ((top, bottom), (left, right)))


def _zero_pad(a: Arguments) -> Operator:
    return _pad({"input": a["input"], "pad": a["padding"]})


def _dropout(a: Arguments) -> Operator:
    if a.get("training", True):
        raise Unsupported("it drops values at random")
    return Same((a["input"],))


def _same(a: Arguments) -> Operator:
    return Same((a["input"],))


_CONV = "input weight bias stride padding dilation groups"
ACTIVATIONS: dict[str, tuple[Any, ...]] = {  # name: functions, and functions that change their input
    "relu": (torch.relu, functional.relu),
    "relu6": (functional.relu6,),
    "hard_swish": (functional.hardswish,),
    "silu": (functional.silu,),
    "hard_sigmoid": (functional.hardsigmoid,),
    "sigmoid": (torch.sigmoid, functional.sigmoid),
}
_AVERAGE = "input kernel_size stride padding ceil_mode count_include_pad divisor_override"
_MAX = "input kernel_size stride padding dilation ceil_mode return_indices"

# The names of a function's arguments, in order; one with "!" is always true.
FUNCTIONS: dict[Any, tuple[str, Maker]] = {
    torch.conv2d: (_CONV, convolve),
    functional.batch_norm: ("input running_mean running_var weight bias training momentum eps", normalize),
    **{f: ("input inplace", _activate(name)) for name, fs in ACTIVATIONS.items() for f in fs},
    torch.relu_: ("input inplace!", _activate("relu")),
    functional.gelu: ("input approximate", _gelu),
    functional.leaky_relu: ("input negative_slope inplace", _leaky_relu),
    functional.leaky_relu_: ("input negative_slope inplace!", _leaky_relu),
    torch.prelu: ("input weight", _prelu),
    functional.hardtanh: ("input min_val max_val inplace", _clamp),
    torch.clamp: ("input min max", _clamp),
    operator.add: ("input other", _sum),
    operator.iadd: ("input other inplace!", _sum),
    torch.add: ("input other alpha out", _sum),
    operator.mul: ("input other", _product),
    operator.imul: ("input other inplace!", _product),
    torch.mul: ("input other out", _product),
    functional.avg_pool2d: (_AVERAGE, _average_pool),
    functional.max_pool2d: (_MAX, _max_pool),
    torch.max_pool2d: (_MAX, _max_pool),
    functional.adaptive_avg_pool2d: ("input output_size", _pool_to),
    torch.mean: ("input dim keepdim dtype out", _mean),
    torch.flatten: ("input start_dim end_dim", _flatten),
    torch.reshape: ("input shape", _view),
    functional.linear: ("input weight bias", _linear),
    torch.softmax: ("input dim dtype", _softmax),
    functional.softmax: ("input dim _stacklevel dtype", _softmax),
    functional.pad: ("input pad mode value", _pad),
    functional.dropout: ("input p training inplace", _dropout),
    functional.dropout2d: ("input p training inplace", _dropout),
    rewrite.scaled: ("input weight shape", scaled),
    rewrite.shifted: ("input weight shape", shifted),
    **moving.FUNCTIONS,
}
_OWN_WINDOW = "stride padding dilation"
_OWN: dict[str, tuple[str, Maker]] = {
    "depthwise_conv2d": (f"input weight bias {_OWN_WINDOW}", own),
    "pointwise_conv2d": ("input weight bias", own),
    "separable_conv2d": (
        "input depthwise_weight depthwise_bias pointwise_weight pointwise_bias residual "
        f"{_OWN_WINDOW} middle_activation activation",
        separable,
    ),
}
for _name, _entry in _OWN.items():
    _packet = getattr(torch.ops.sepconv, _name)
    FUNCTIONS.update({_packet: _entry, _packet.default: _entry})
METHODS: dict[Any, tuple[str, Maker]] = {
    "relu": ("input", _activate("relu")),
    "relu_": ("input inplace!", _activate("relu")),
    "sigmoid": ("input", _activate("sigmoid")),
    "sigmoid_": ("input inplace!", _activate("sigmoid")),
    "clamp": ("input min max", _clamp),
    "clamp_": ("input min max inplace!", _clamp),
    "add": ("input other alpha", _sum),
    "add_": ("input other alpha inplace!", _sum),
    "mul": ("input other", _product),
    "mul_": ("input other inplace!", _product),
    "mean": ("input dim keepdim dtype", _mean),
    "flatten": ("input start_dim end_dim", _flatten),
    "view": ("input shape second", _view),
    "reshape": ("input shape second", _view),
    "softmax": ("input dim dtype", _softmax),
}
# The attributes that say what a module does.
MODULES: dict[Any, tuple[str, Maker]] = {
    nn.Conv2d: ("weight bias stride padding dilation groups padding_mode transposed", convolve),
    nn.BatchNorm2d: ("running_mean running_var weight bias training eps", normalize),
    nn.BatchNorm1d: ("running_mean running_var weight bias training eps", normalize),
    nn.ReLU: ("inplace", _activate("relu")),
    nn.ReLU6: ("inplace", _activate("relu6")),
    nn.Hardswish: ("inplace", _activate("hard_swish")),
    nn.SiLU: ("inplace", _activate("silu")),
    nn.Hardsigmoid: ("inplace", _activate("hard_sigmoid")),
    nn.Sigmoid: ("", _activate("sigmoid")),
    nn.GELU: ("approximate", _gelu),
    nn.LeakyReLU: ("negative_slope inplace", _leaky_relu),
    nn.PReLU: ("weight", _prelu),
    nn.Hardtanh: ("min_val max_val inplace", _clamp),
    nn.AvgPool2d: ("kernel_size stride padding ceil_mode count_include_pad divisor_override", _average_pool),
    nn.MaxPool2d: ("kernel_size stride padding dilation ceil_mode return_indices", _max_pool),
    nn.AdaptiveAvgPool2d: ("output_size", _pool_to),
    nn.Flatten: ("start_dim end_dim", _flatten),
    nn.Linear: ("weight bias", _linear),
    nn.Softmax: ("dim", _softmax),
    nn.ZeroPad2d: ("padding", _zero_pad),
    nn.Dropout: ("training", _dropout),
    nn.Dropout2d: ("training", _dropout),
    nn.Identity: ("", _same),
    **moving.MODULES,
}
