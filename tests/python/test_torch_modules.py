"""The modules of sepconv.torch: torch's parameters, torch's results, and training that gets as far as torch's."""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from op_problems import ACTIVATIONS

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch==2.13.0")

import torch_networks as theirs  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402
from torch_networks import all_replaced, assert_same, image, random_statistics  # noqa: E402

import sepconv.torch as st  # noqa: E402

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "train_digits.py"


def pair_of_convolutions(channels: int, outputs: int, **window: Any) -> Any:
    depthwise = nn.Conv2d(channels, 2 * channels, 3, groups=channels, **window)
    return nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=nn.Conv2d(2 * channels, outputs, 1)))


def assert_same_training_step(ours: Any, other: Any, x: Any) -> None:
    """Results, gradients of x and of every parameter, and statistics gathered."""
    results = []
    for module in (ours, other):
        given = x.clone().requires_grad_()
        y = module(given)
        y.square().mean().backward()
        results.append({"y": y, "x": given.grad, **{name: p.grad for name, p in module.named_parameters()}})
        results[-1].update(dict(module.named_buffers()))
    assert list(results[0]) == list(results[1])
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_separable_conv2d_calls_hooks_of_its_convolutions(activation: str) -> None:
    ours = st.SeparableConv2d(6, 6, 3, padding=1, middle_activation=activation, activation=activation)
    x, residual = image(2, 6, 5, 5), image(2, 6, 5, 5)
    expected = ours(x, residual)
    seen: list[Any] = []
    handle = ours.pointwise.register_forward_hook(lambda *_: seen.append("pointwise"))
    torch.testing.assert_close(ours(x, residual), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"residual had shape \(1, 6, 5, 5\), must have the result's, \(2, 6, 5, 5\)"):
        ours(x, residual[:1])
    handle.remove()
    prune.l1_unstructured(ours.depthwise, "weight", 0.3)  # whose hook computes the weight at each call
    for _ in range(2):
        ours(x).sum().backward()
    with torch.no_grad():
        ours.depthwise.weight_orig.zero_()
        ours.depthwise.bias.zero_()
        value = ours(x)
    assert seen == ["pointwise"] * 2
    assert torch.equal(value[0, :, 0, 0], value[1, :, 4, 4])  # of zeros alone


@pytest.mark.parametrize("argument", ["middle_activation", "activation"])
def test_activations_that_are_none_are_refused_at_once(argument: str) -> None:
    for activation in (nn.ReLU(), "ReLU", None):
        given: Any = {argument: activation}
        with pytest.raises(ValueError, match=f"{argument} was .*, must be one of none, relu,"):
            st.SeparableConv2d(4, 4, **given)


@pytest.mark.parametrize(
    "window",
    ({"padding": 1, "stride": 2}, {"padding": "same", "dilation": 2}, {"padding": "valid"}, {"padding": (0, 2)}),
    ids=str,
)
def test_separable_conv2d_is_a_pair_of_torch_s(window: dict[str, Any]) -> None:
    ours = st.SeparableConv2d(6, 10, 3, multiplier=2, **window)
    other = pair_of_convolutions(6, 10, **window)
    other.load_state_dict(ours.state_dict())
    assert {name: tuple(p.shape) for name, p in ours.named_parameters()} == {
        "depthwise.weight": (12, 1, 3, 3),
        "depthwise.bias": (12,),
        "pointwise.weight": (10, 12, 1, 1),
        "pointwise.bias": (10,),
    }
    assert_same_training_step(ours, other, image(3, 6, 9, 8))
    optimized = st.optimize(ours.eval())
    assert_same(ours, optimized, image(2, 6, 9, 8))
    assert all_replaced(optimized), optimized.report


def test_separable_conv2d_with_activations_and_residual() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = st.SeparableConv2d(
                8, 8, padding=1, bias=False, middle_activation="relu6", activation="hard_swish"
            )

        def forward(self, x: Any) -> Any:
            return self.inner(x, x)

    block = Block().eval()
    x = image(2, 8, 7, 7)
    first, second = block.inner.depthwise.weight, block.inner.pointwise.weight
    middle = nn.functional.relu6(nn.functional.conv2d(x, first, padding=1, groups=8))
    expected = nn.functional.hardswish(nn.functional.conv2d(middle, second) + x)
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)
    optimized = st.optimize(block)
    assert_same(block, optimized, x)
    assert all_replaced(optimized), optimized.report
    assert "hard_swish" in repr(block)


@pytest.mark.parametrize("channels, outputs, stride, expansion", [(8, 8, 1, 6), (8, 12, 2, 6), (8, 8, 1, 1)])
def test_inverted_residual_is_torchvision_s(channels: int, outputs: int, stride: int, expansion: int) -> None:
    ours = st.InvertedResidual(channels, outputs, stride=stride, expansion=expansion)
    other = theirs.InvertedResidual(channels, outputs, stride, expansion)
    other.load_state_dict(ours.state_dict())
    ours.load_state_dict(other.state_dict())
    assert_same_training_step(ours, other, image(4, channels, 9, 9))
    random_statistics(ours)
    other.load_state_dict(ours.state_dict())
    assert_same(other.eval(), ours, image(2, channels, 8, 9))
    optimized = st.optimize(ours)
    assert_same(ours, optimized, image(2, channels, 8, 9))
    assert all_replaced(optimized), optimized.report


def test_modules_in_float64() -> None:
    ours, other = st.SeparableConv2d(3, 4, multiplier=2).double(), pair_of_convolutions(3, 4).double()
    other.load_state_dict(ours.state_dict())
    assert_same_training_step(ours, other, image(2, 3, 6, 6).double())


def test_training_on_digits_reaches_torch_s_accuracy() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn, which has the digits, is not installed")
    spec = importlib.util.spec_from_file_location("train_digits", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        results = example.run(epochs=8, seeds=2)
    finally:
        torch.set_num_threads(before)
    ours, torchs = (sum(column) / len(results) for column in zip(*results, strict=True))
    assert min(ours, torchs) > 0.96
    assert abs(ours - torchs) < 0.02  # of 450 digits; their number alone makes it uncertain by 0.7 % a network
