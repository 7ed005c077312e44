"""sepconv.torch.optimize: what it replaces gives what torch gives, and what it leaves it says why."""

from __future__ import annotations

import copy
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch==2.13.0")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812
from torch_networks import (  # noqa: E402
    LAST,
    Calls,
    Calls2,
    MobileNetV2,
    all_replaced,
    assert_same,
    check_behind_a_convolution,
    image,
    random_statistics,
    runs,
)

from sepconv.io import read_weights  # noqa: E402
from sepconv.torch import optimize  # noqa: E402

PHOTOS = ("bird", "cat", "grace_hopper")


# --- A real network


@cache
def mobilenet(weights: Path) -> Any:
    network = MobileNetV2().eval()
    network.load_state_dict({name: torch.from_numpy(np.array(w)) for name, w in read_weights(weights).items()})
    return network


@pytest.mark.golden
@pytest.mark.parametrize("mode", (torch.no_grad, torch.inference_mode), ids=lambda mode: mode.__name__)
def test_mobilenet_v2_gives_the_golden_logits(shared_data: Path, mode: Any) -> None:
    """Photographs alone and together, in both memory formats, on 1 to 3 threads: near the golden, and the same bits."""
    optimized = optimize(mobilenet(shared_data / "models" / "mobilenet_v2_torchvision.safetensors"))
    rows = []
    for photo in PHOTOS:
        with np.load(shared_data / "golden" / f"mobilenet_v2_torchvision__{photo}.npz") as file:
            logits = file["float_logits"].ravel()
            x = torch.from_numpy(file["input"]).permute(0, 3, 1, 2)
        with mode():
            result = optimized(x)
            assert torch.equal(result, optimized(x.contiguous()))
        rows.append((x, result))
        assert np.max(np.abs(result.numpy().ravel() - logits)) <= 2e-4 * np.max(np.abs(logits))
        assert int(result.argmax()) == int(np.argmax(logits))
    batch, expected = (torch.cat(tensors) for tensors in zip(*rows, strict=True))
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with mode():
                assert torch.equal(optimized(batch), expected)
    finally:
        torch.set_num_threads(before)
    assert all_replaced(optimized)
    assert len(optimized.report.replaced) == 1


def test_mobilenet_v2_at_other_sizes() -> None:
    network = random_statistics(MobileNetV2(10))
    optimized = optimize(network)
    for shape in ((1, 3, 96, 96), (2, 3, 65, 97)):
        assert_same(network, optimized, image(*shape))
        assert_same(network, optimized, image(*shape).to(memory_format=LAST))
    assert all_replaced(optimized)
    assert "52 Conv2d" in str(optimized.report)


# --- Each operator

CONVOLUTIONS = {
    "plain": nn.Conv2d(6, 8, 3),
    "strided": nn.Conv2d(6, 7, (3, 5), stride=(2, 1), padding=(1, 3), dilation=(1, 2), bias=False),
    "same": nn.Conv2d(6, 8, 4, padding="same"),
    "same, dilated": nn.Conv2d(6, 8, (2, 3), padding="same", dilation=3),
    "valid": nn.Conv2d(6, 8, 3, padding="valid"),
    "depthwise": nn.Conv2d(6, 6, 3, padding=1, groups=6),
    "multiplied": nn.Conv2d(6, 18, 5, stride=2, padding=2, groups=6, bias=False),
    "pointwise": nn.Conv2d(6, 33, 1),
    "in groups": nn.Conv2d(6, 8, 1, groups=2, bias=False),
    "in groups, strided": nn.Conv2d(6, 9, 3, stride=2, padding=1, groups=3),
    "in groups, dilated": nn.Conv2d(6, 2, (3, 2), padding="same", dilation=2, groups=2),
}
# After a convolution of 8 channels that keeps the size.
AFTER: dict[str, Any] = {
    "batch norm": nn.BatchNorm2d(8),
    "batch norm, not affine": nn.BatchNorm2d(8, affine=False, eps=0.1),
    "relu": nn.ReLU(inplace=True),
    "relu6": nn.ReLU6(),
    "hardtanh": nn.Hardtanh(0, 6, inplace=True),
    "hardswish": nn.Hardswish(),
    "silu": nn.SiLU(inplace=True),
    "gelu": nn.GELU(),
    "gelu by tanh": nn.GELU(approximate="tanh"),
    "leaky relu": nn.LeakyReLU(0.2, inplace=True),
    "prelu": nn.PReLU(8, 0.3),
    "prelu, one slope": nn.PReLU(),
    "leaky relu, function": lambda _, x: F.leaky_relu(x) + F.leaky_relu(x, negative_slope=0.3),
    "gelu, function": lambda _, x: F.gelu(x) + F.gelu(x, approximate="tanh"),
    "sigmoid": nn.Sigmoid(),
    "hardsigmoid": nn.Hardsigmoid(),
    "average": nn.AvgPool2d(3, 2, 1),
    "average, padding left out": nn.AvgPool2d((3, 2), (1, 2), (1, 0), count_include_pad=False),
    "maximum": nn.MaxPool2d(3, 2, 1),
    "adaptive": nn.AdaptiveAvgPool2d(1),
    "adaptive, some": nn.AdaptiveAvgPool2d((3, None)),
    "pad": nn.ZeroPad2d((1, 2, 0, 3)),
    "softmax": nn.Softmax(1),
    "dropout": nn.Dropout2d(0.5),
    "identity": nn.Identity(),
    "flatten": nn.Flatten(),
    "flatten, linear": nn.Sequential(nn.Flatten(), nn.Linear(8 * 12 * 9, 5), nn.BatchNorm1d(5), nn.ReLU()),
    "pool, linear": nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(8, 5), nn.Softmax(-1)),
    "functions": lambda _, x: F.relu6(F.hardtanh(F.silu(F.hardswish(x)), 0.0, 6.0)) + torch.relu(x),
    "methods": lambda _, x: x.clamp(0, 6).relu().add(x.sigmoid()).mean((2, 3)),
    "mean, kept": lambda _, x: torch.mean(x, (-1, -2), keepdim=True),
    "view": lambda _, x: F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1),
    "view by size": lambda _, x: F.relu(x).reshape(x.size()[0], -1),
    "view by shape": lambda _, x: x.reshape(x.shape[0], -1),
    "view by features": lambda _, x: x.mean([2, 3]).view(-1, 8),
    "pooled": lambda _, x: F.avg_pool2d(F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, stride=1), 2),
    "clamped from below": lambda _, x: torch.clamp(x, min=0),
    "in place": lambda _, x: F.dropout(torch.relu_(x), 0.5, False).clamp_(0, 6),
    "softmax by function": lambda _, x: F.softmax(x, dim=1),
    "two results": lambda _, x: (x.relu(), x.sigmoid()),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_each_convolution(name: str) -> None:
    module = nn.Sequential(CONVOLUTIONS[name], nn.ReLU()).eval()
    optimized = optimize(module)
    for shape in ((1, 6, 12, 9), (3, 6, 15, 20)):
        assert_same(module, optimized, image(*shape))
        assert_same(module, optimized, image(*shape).to(memory_format=LAST))
    assert all_replaced(optimized), optimized.report


@pytest.mark.parametrize("name", AFTER)
def test_each_operator_behind_a_convolution(name: str) -> None:
    check_behind_a_convolution(AFTER[name])


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(image(130, 2, 1, 1))

    def forward(self, x: Any) -> Any:
        return F.conv2d(x, self.weight, groups=65)


def test_convolutions_in_groups() -> None:
    """What follows becomes part of each group's convolution; too many groups are left, and they alone."""
    for after in (
        (nn.BatchNorm2d(8), nn.ReLU6()),
        (nn.SiLU(), nn.BatchNorm2d(8)),
        (nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.ReLU(), nn.Sigmoid(), nn.Conv2d(8, 8, 1, groups=4)),
    ):
        check_behind_a_convolution(nn.Sequential(nn.Conv2d(8, 8, 3, groups=2), *after))
    twice = Calls(lambda m, x: m.norm(m.conv(x)) + m.conv(x).relu(), conv=nn.Conv2d(8, 8, 1, groups=2))
    twice.norm = nn.BatchNorm2d(8)
    check_behind_a_convolution(twice)
    for many in (nn.Conv2d(130, 130, 1, groups=65), Grouped()):
        module = nn.Sequential(nn.Conv2d(4, 130, 1), many, nn.Conv2d(130, 2, 1)).eval()
        optimized = optimize(module)
        assert_same(module, optimized, image(2, 4, 5, 6))
        assert [left.reason for left in optimized.report.left] == ["it has 65 groups of 2 channels, more than 64"]
        assert not runs(optimized)


def test_residuals_and_several_inputs() -> None:
    def function(m: Any, a: Any, b: Any) -> Any:
        x = m.one(a)
        y = m.norm(m.two(x))
        y += x  # becomes y = y + x in a traced graph
        return F.relu(y) + m.one(b), m.linear(y.mean((2, 3)))

    module = random_statistics(
        Calls2(
            function,
            one=nn.Conv2d(4, 8, 1),
            two=nn.Conv2d(8, 8, 3, padding=1, groups=8),
            norm=nn.BatchNorm2d(8),
            linear=nn.Linear(8, 3),
        )
    )
    optimized = optimize(module)
    assert_same(module, optimized, image(2, 4, 5, 6), image(2, 4, 5, 6, seed=1))
    assert all_replaced(optimized), optimized.report


def test_functional_weights_are_read_from_the_module() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(image(5, 3, 3, 3))

        def forward(self, x: Any) -> Any:
            return F.conv2d(x, self.weight, None, stride=2)

    module = Functional().eval()
    optimized = optimize(module)
    assert_same(module, optimized, image(2, 3, 9, 9))
    with torch.no_grad():
        module.weight.mul_(3)
    assert_same(module, optimized, image(2, 3, 9, 9))
    assert all_replaced(optimized)


# --- What stays with torch


class Unknown(nn.Module):
    def forward(self, x: Any) -> Any:
        if x.sum() > 0:  # no proxy has a truth value
            return x * 2
        return x


@pytest.mark.parametrize(
    "what, reason",
    [
        (nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), "padding_mode is 'reflect'"),
        (nn.ELU(), "sepconv has no such module"),
        (nn.Hardtanh(-1, 1), "its bounds are -1 and 1"),
        (nn.BatchNorm2d(8, track_running_stats=False), "statistics from the batch"),
        (nn.MaxPool2d(2, ceil_mode=True), "ceil_mode is True"),
        (lambda _, x: x / torch.sigmoid(x), "sepconv has no such operator"),
        (lambda _, x: x.transpose(2, 3), "sepconv has no such operator"),
        (lambda _, x: torch.add(x, x, alpha=2), "alpha is 2"),
        (lambda _, x: x + 1, "other is 1, not a tensor"),
        (lambda _, x: x.mean(1), "it runs over dimensions 1"),
        (lambda _, x: F.conv2d(x, x[:1, :, :2, :2]), "weights are computed"),
        (lambda _, x: torch.relu_(x) + x, "changes in place what others read"),
    ],
)
def test_the_rest_is_left_with_a_reason(what: Any, reason: str) -> None:
    between = what if isinstance(what, nn.Module) else Calls(what)
    module = random_statistics(nn.Sequential(nn.Conv2d(3, 8, 1), between, nn.ReLU(), nn.Dropout()))
    optimized = optimize(module)
    assert_same(module, optimized, image(2, 3, 6, 7))
    assert any(reason in left.reason for left in optimized.report.left), optimized.report
    assert reason in repr(optimized.report)


def test_a_module_without_convolutions_stays_as_it_is() -> None:
    module = nn.Sequential(nn.ReLU(), nn.ELU()).eval()
    optimized = optimize(module)
    assert type(optimized.module) is nn.Sequential
    assert not optimized.report.replaced
    assert [left.operator for left in optimized.report.left] == ["ELU", "ReLU"]
    assert "runs 0 of 2 operators" in str(optimized.report)


def test_hooks_are_called() -> None:
    seen: list[str] = []
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()), nn.Conv2d(4, 4, 1)).eval()
    module[0].register_forward_hook(lambda *_: seen.append("leaf"))
    module[1].register_forward_pre_hook(lambda *_: seen.append("container"))
    optimized = optimize(module)
    expected = module(image(1, 3, 4, 4))
    seen.clear()
    torch.testing.assert_close(optimized(image(1, 3, 4, 4)), expected)
    assert seen == ["leaf", "container"]
    assert len(optimized.report.replaced) == 1


def test_where_tracing_fails_the_children_are_replaced() -> None:
    module = nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), Unknown(), nn.Conv2d(8, 4, 1)).eval()
    optimized = optimize(module)
    assert_same(module, optimized, image(2, 3, 8, 8))
    assert set(optimized.report.untraced) == {"", "1"}
    assert len(optimized.report.replaced) == 2
    assert "not traced: the module: TraceError" in str(optimized.report)
    assert isinstance(module[0][0], nn.Conv2d)  # the original is as it was


def test_no_operator_passes_one_that_changes_memory() -> None:
    def function(m: Any, x: Any) -> Any:
        y = m.a(x)
        z = m.b(y)
        y.mul_(2)  # what it returns is not read
        return m.b(y) + z

    module = Calls(function, a=nn.Conv2d(3, 3, 1), b=nn.Conv2d(3, 3, 1)).eval()
    assert_same(module, optimize(module), image(1, 3, 4, 4))

    def fill(m: Any, x: Any) -> Any:
        y = m.a(x)
        y[:, 0] = 1.0
        return m.b(y)

    filled = Calls(fill, a=nn.Conv2d(3, 3, 1), b=nn.Conv2d(3, 3, 1)).eval()
    assert_same(filled, optimize(filled), image(1, 3, 4, 4))


def test_the_caller_s_input_stays_or_changes_as_with_torch() -> None:
    module = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 3, 1)).eval()
    optimized = optimize(module)
    x = image(1, 3, 4, 4)
    assert_same(module, optimized, x.clone())
    with torch.no_grad():
        optimized(x)
    assert float(x.min()) == 0.0
    assert "changes in place" in str(optimized.report)


class Scaled(nn.Module):
    """A product with an argument that is a tensor or a number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Any, scale: Any = 2.0) -> Any:
        return self.conv(x) * scale


def test_a_number_where_a_tensor_may_come_runs_with_torch() -> None:
    module = Scaled().eval()
    optimized = optimize(module)
    x, scale = torch.randn(2, 8, 5, 6), torch.rand(2, 8, 1, 1)
    with torch.no_grad():
        for arguments in ((x,), (x, 3), (x, scale)):
            torch.testing.assert_close(optimized(*arguments), module(*arguments))
        torch.testing.assert_close(optimized(x, scale=0.5), module(x, scale=0.5))
        with pytest.raises(TypeError, match="ndarray"):
            optimized(x.numpy())
    (region,) = optimized.report.replaced
    assert region.region.eager_runs["an input is a float"] == 2
    assert len(region.region.plans()) == 1


def test_what_was_optimized_before_is_left_as_it_is() -> None:
    inner = optimize(nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()).eval())
    module = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), inner, nn.Conv2d(8, 4, 1)).eval()
    again = optimize(inner)
    assert [(left.operator, left.reason) for left in again.report.left] == [("Optimized", "it was optimized before")]
    optimized = optimize(module)
    assert [left.operator for left in optimized.report.left] == ["Optimized"]
    x = torch.randn(2, 8, 7, 6)
    with torch.no_grad():
        for made in (optimized, copy.deepcopy(optimized), pickle.loads(pickle.dumps(optimized))):
            torch.testing.assert_close(made(x), module(x))
        torch.testing.assert_close(again(x), inner(x))
