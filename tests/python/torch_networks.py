"""Modules of torch for the tests, MobileNetV2 as torchvision names and builds it among them; and how they compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sepconv.torch import Optimized, optimize

LAST = torch.channels_last


class ConvNormActivation(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(inplace=True),
        )


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.use_res_connect = stride == 1 and inputs == outputs
        expand = [ConvNormActivation(inputs, hidden, 1)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *expand,
            ConvNormActivation(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Any) -> Any:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class MobileNetV2(nn.Module):
    """Width 1.0; ``state_dict`` has the names that torchvision's has."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        settings = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2))
        features: list[nn.Module] = [ConvNormActivation(3, 32, stride=2)]
        channels = 32
        for expansion, outputs, count, stride in (*settings, (6, 320, 1, 1)):
            for i in range(count):
                features.append(InvertedResidual(channels, outputs, stride if i == 0 else 1, expansion))
                channels = outputs
        features.append(ConvNormActivation(channels, 1280, 1))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x: Any) -> Any:
        x = self.features(x)
        x = nn.functional.adaptive_avg_pool2d(x, (1, 1))
        return self.classifier(torch.flatten(x, 1))


class Calls(nn.Module):
    """A function as a module, with the modules that it calls."""

    def __init__(self, function: Callable[..., Any], **modules: Any) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: Any) -> Any:
        return self.function(self, x)


class Calls2(Calls):
    def forward(self, x: Any, y: Any = None) -> Any:
        return self.function(self, x, y)


def random_statistics(module: Any) -> Any:
    """The module in eval mode, its batch norms as if they had been trained."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d) and part.track_running_stats:
            part.running_mean.normal_(generator=generator)
            part.running_var.uniform_(0.5, 2.0, generator=generator)
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 2.0)
                nn.init.normal_(part.bias)
    return module.eval()


def image(*shape: int, seed: int = 0) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_same(module: Any, optimized: Any, *inputs: Any, bound: float = 1e-5) -> None:
    with torch.no_grad():
        expected, result = module(*inputs), optimized(*inputs)
    if not isinstance(expected, tuple | list):
        expected, result = (expected,), (result,)
    for want, got in zip(expected, result, strict=True):
        assert got.shape == want.shape
        assert got.dtype == want.dtype
        channels_last = got.dim() == 4 and not inputs[0].is_contiguous() and inputs[0].is_contiguous(memory_format=LAST)
        if not (isinstance(optimized, Optimized) and optimized.report.left):  # else torch chose
            assert got.is_contiguous(memory_format=LAST if channels_last else torch.contiguous_format)
        torch.testing.assert_close(got, want, rtol=bound, atol=bound * max(1.0, float(want.abs().max())))


def check_behind_a_convolution(what: Any) -> None:
    """A module, or a function of a module and a tensor, is replaced whole behind a convolution of 8 channels."""
    after = what if isinstance(what, nn.Module) else Calls(what)
    module = random_statistics(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), after))
    optimized = optimize(module)
    for x in (image(1, 3, 12, 9), image(4, 3, 12, 9).to(memory_format=LAST), image(2, 3, 24, 9)[:, :, ::2]):
        assert_same(module, optimized, x)
    assert all_replaced(optimized), optimized.report


def all_replaced(optimized: Optimized) -> bool:
    report = optimized.report
    return bool(report.replaced) and not report.left and not report.untraced and runs(optimized) == {}


def runs(optimized: Optimized) -> dict[str, int]:
    """How often torch ran what was replaced, by reason."""
    return {reason: n for part in optimized.report.replaced for reason, n in part.region.eager_runs.items()}


def small() -> Any:
    return random_statistics(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()))


class Forward(nn.Module):
    """Two convolutions that keep the channels, a buffer, and a forward that is given."""

    n: Any

    def __init__(self, forward: Any) -> None:
        super().__init__()
        self.c, self.wide, self.linear = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 6, 1), nn.Linear(27, 4)
        self.register_buffer("n", torch.ones(1))
        self.plain, self.calls = torch.ones(1), 0
        self.given = forward

    def forward(self, x: Any, *rest: Any) -> Any:
        return self.given(self, x, *rest)


def made(forward: Any) -> Any:
    """A module of which this is the forward, with its own arguments."""
    module = Forward(None).eval()
    module.__class__ = type("Made", (Forward,), {"forward": forward})
    return module
