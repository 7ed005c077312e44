"""sepconv.torch.optimize on what MobileNetV3, ShuffleNetV2 and their like are made of, and on these networks whole."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch==2.13.0")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812
from torch_families import MobileNetV3Small, ShuffleNetV2, channel_shuffle  # noqa: E402
from torch_networks import (  # noqa: E402
    LAST,
    Calls,
    all_replaced,
    assert_same,
    check_behind_a_convolution,
    image,
    random_statistics,
    runs,
)

import sepconv.torch  # noqa: E402
from sepconv.torch import optimize  # noqa: E402


def gentle(build: Any) -> Any:
    """A network, always the same, with statistics that keep values near 1 over many layers."""
    torch.manual_seed(0)
    network = random_statistics(build())
    network.train()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.reset_running_stats()
            part.momentum = None
    with torch.no_grad():
        network(image(8, 3, 96, 96, seed=5))
    return network.eval()


@pytest.mark.parametrize("build", (MobileNetV3Small, ShuffleNetV2))
def test_whole_networks_become_one_plan(build: Any) -> None:
    network = gentle(build)
    optimized = optimize(network)
    for shape in ((1, 3, 96, 96), (3, 3, 64, 65)):
        assert_same(network, optimized, image(*shape), bound=1e-4)  # of fifty layers
        assert_same(network, optimized, image(*shape).to(memory_format=LAST), bound=1e-4)
    assert all_replaced(optimized), optimized.report
    assert len(optimized.report.replaced) == 1
    twin = pickle.loads(pickle.dumps(optimized))
    with torch.no_grad():
        assert torch.equal(twin(image(1, 3, 96, 96)), optimized(image(1, 3, 96, 96)))


def test_a_whole_network_compiles() -> None:
    network = gentle(ShuffleNetV2)
    regions: list[Any] = []

    def backend(graph_module: Any, inputs: Any) -> Any:
        compiled: Any = sepconv.torch.backend(graph_module, inputs)
        regions.extend(part for part in compiled.modules() if type(part).__name__ == "Region")
        return compiled

    torch._dynamo.reset()
    try:
        compiled = torch.compile(network, backend=backend)
        for shape in ((1, 3, 96, 96), (2, 3, 64, 64)):
            with torch.no_grad():
                x = image(*shape)
                want = network(x)
                torch.testing.assert_close(compiled(x), want, rtol=0, atol=1e-4 * max(1.0, float(want.abs().max())))
    finally:
        torch._dynamo.reset()
    assert len(regions) == 2  # one for each time that dynamo captured the network
    assert all(not region.eager_runs for region in regions)


# --- Each operator, behind a convolution of 8 channels that keeps the size


def squeeze_excite(m: Any, x: Any) -> Any:
    """As it is written in many places."""
    n, c, _, _ = x.size()
    y = m.pool(x).view(n, c)
    y = torch.sigmoid(m.up(F.relu(m.down(y)))).view(n, c, 1, 1)
    return x * y.expand_as(x)


def shuffle_by_shape(_: Any, x: Any) -> Any:
    n, _, h, w = x.shape
    return x.reshape(n, 4, -1, h, w).permute(0, 2, 1, 3, 4).reshape(n, -1, h, w)


OPERATORS: dict[str, Any] = {
    "product": lambda _, x: x * torch.sigmoid(x),
    "product in place": lambda _, x: torch.relu(x).mul_(torch.sigmoid(x)),
    "product by function": lambda _, x: torch.mul(F.hardsigmoid(x), x),
    "a factor a channel": lambda _, x: F.adaptive_avg_pool2d(x, 1) * x,
    "a factor a channel, behind": lambda _, x: x.mul(x.mean((2, 3), keepdim=True)),
    "a product of rows": lambda _, x: x.mean((2, 3)) * x.mean((2, 3)).relu(),
    "concatenation": lambda _, x: torch.cat([x, x.relu(), x.sigmoid()], 1),
    "concatenation of one twice": lambda _, x: torch.cat((x, x), dim=-3),
    "concatenated rows": lambda _, x: torch.cat([torch.flatten(x, 1), torch.flatten(x.relu(), 1)], 1),
    "chunks": lambda _, x: x.chunk(3, dim=1)[2],
    "chunks by function": lambda _, x: torch.chunk(x, 2, dim=1)[-1],
    "a split": lambda _, x: torch.split(x, 3, dim=1)[2],
    "a split by sizes": lambda _, x: x.split([1, 5, 2], dim=1)[1],
    "a slice": lambda _, x: x[:, 2:7],
    "a slice from the end": lambda _, x: torch.cat([x[:, -3:, :, :], x[:, :5, ...]], 1),
    "a slice of all": lambda _, x: x[:, :20].relu(),
    "a slice of rows": lambda _, x: x.mean((2, 3))[:, 1:4],
    "shuffle": lambda _, x: channel_shuffle(x, 2),
    "shuffle by shape": shuffle_by_shape,
    "shuffle by function": lambda _, x: F.channel_shuffle(x, 4),
    "shuffle by module": nn.ChannelShuffle(2),
    "shuffle of one group": lambda _, x: channel_shuffle(x, 1).relu(),
    "upsampling": nn.Upsample(scale_factor=2),
    "upsampling to a size": nn.Upsample(size=(24, 27)),
    "upsampling by two factors": nn.UpsamplingNearest2d(scale_factor=(3, 4)),
    "interpolation": lambda _, x: F.interpolate(x, scale_factor=3.0, mode="nearest"),
    "interpolation by parts": lambda _, x: F.interpolate(x, scale_factor=1.5, recompute_scale_factor=True),
    "interpolation, of a pixel": lambda _, x: F.interpolate(F.adaptive_avg_pool2d(x, 1), size=5),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_each_operator_behind_a_convolution(name: str) -> None:
    check_behind_a_convolution(OPERATORS[name])


def test_squeeze_and_excite_with_views() -> None:
    down, up = nn.Linear(8, 4, bias=False), nn.Linear(4, 8, bias=False)
    block = Calls(squeeze_excite, pool=nn.AdaptiveAvgPool2d(1), down=down, up=up)
    module = nn.Sequential(nn.Conv2d(3, 8, 1), block).eval()
    optimized = optimize(module)
    for x in (image(1, 3, 6, 5), image(3, 3, 6, 5).to(memory_format=LAST)):
        assert_same(module, optimized, x)
    assert all_replaced(optimized), optimized.report


class Gamma(nn.Module):
    """What ``function`` makes of two convolutions, a parameter and an image."""

    def __init__(self, function: Any, *shape: int) -> None:
        super().__init__()
        self.function, self.conv, self.grouped = function, nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, groups=2)
        self.gamma = nn.Parameter(image(*shape))

    def forward(self, x: Any) -> Any:
        return self.function(self, self.conv(x))


GAMMAS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "a layer scale": (lambda m, x: x + m.gamma * m.grouped(x), (8, 1, 1)),
    "a shift": (lambda m, x: (m.gamma + x).relu() + m.gamma, (1, 8, 1, 1)),
    "a number for all": (lambda m, x: x * m.gamma + m.gamma, (1, 1, 1)),
    "a view": (lambda m, x: torch.mul(x, m.gamma.view(1, -1, 1, 1)), (8,)),
    "a view of three dimensions": (lambda m, x: x.add(m.gamma.reshape(-1, 1, 1)), (8,)),
}


@pytest.mark.parametrize("name", GAMMAS)
def test_parameters_with_a_number_a_channel(name: str) -> None:
    function, shape = GAMMAS[name]
    module = Gamma(function, *shape).eval()
    optimized, compiled = optimize(module), torch.compile(module, backend=sepconv.torch.backend)
    for x in (image(1, 3, 6, 5), image(3, 3, 6, 5).to(memory_format=LAST)):
        assert_same(module, optimized, x)
        assert_same(module, copy.deepcopy(optimized), x)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), module(x))
            module.gamma.mul_(2)
        assert_same(module, optimized, x)
    assert all_replaced(optimized), optimized.report
    module.gamma = nn.Parameter(image(1, 8, 1, 1))
    if "view" not in name:
        assert_same(module, optimized, image(2, 3, 6, 5))


OTHER_CONSTANTS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "an embedding of pixels": (lambda m, x: x + m.gamma, (1, 8, 6, 5)),
    "of other sizes": (lambda m, x: F.interpolate(m.gamma, size=x.shape[2:]) * x, (1, 8, 3, 3)),
    "one number": (lambda m, x: x * m.gamma, (1,)),
    "a number an image": (lambda m, x: x * m.gamma, (2, 1, 1, 1)),
    "rows": (lambda m, x: x.mean((2, 3)) * m.gamma, (8, 1, 1)),
}


@pytest.mark.parametrize("name", OTHER_CONSTANTS)
def test_other_constants_are_left(name: str) -> None:
    function, shape = OTHER_CONSTANTS[name]
    module = Gamma(function, *shape).eval()
    optimized = optimize(module)
    assert_same(module, optimized, image(2, 3, 6, 5))
    if name == "rows":
        assert list(runs(optimized)) == ["its input is not [n, c, h, w]"]
    else:
        assert any("which is the same for every batch" in left.reason for left in optimized.report.left)
        assert not runs(optimized)


def test_parameters_a_channel_in_pickles() -> None:
    for shape in ((8, 1, 1), (8,)):
        module = Gamma(view_scaled, *shape).eval()
        for network in (optimize(module), pickle.loads(pickle.dumps(optimize(module)))):
            assert_same(module, network, image(2, 3, 6, 5))
            assert all_replaced(network), network.report


def summed(m: Any, x: Any) -> Any:
    for _ in range(600):
        x = x + m.gamma
    return x


def test_long_sums() -> None:
    optimized = optimize(Gamma(summed, 8, 1, 1).eval())
    assert not optimized.report.left
    assert not optimized.report.untraced


def view_scaled(m: Any, x: Any) -> Any:
    return x * m.gamma.reshape(-1, 1, 1) + m.gamma.view(1, -1, 1, 1)


def test_all_parts_of_a_split_are_read() -> None:
    def function(m: Any, x: Any) -> Any:
        a, b, c = torch.split(m.conv(x), [2, 3, 3], dim=1)
        return torch.cat([b + c, a.relu()], 1), a

    module = Calls(function, conv=nn.Conv2d(3, 8, 1)).eval()
    optimized = optimize(module)
    assert_same(module, optimized, image(2, 3, 6, 5))
    assert all_replaced(optimized), optimized.report


@pytest.mark.parametrize(
    "what, reason",
    [
        (lambda _, x: x * 2, "other is 2, not a tensor"),
        (lambda _, x: x * x.size(2), "other is size, not a tensor"),
        (lambda _, x: x + x.shape[2] * x.shape[3], "not a tensor"),
        (lambda _, x: torch.cat([x, x], 2), "it runs over dimension 2"),
        (lambda _, x: x.chunk(2, dim=2)[0], "it runs over dimension 2"),
        (lambda _, x: x[:, ::2], "follow on each other"),
        (lambda _, x: x[:, 3], "other than a slice"),
        (lambda _, x: x[:, 2:4, 1:], "a part of other dimensions"),
        (lambda _, x: x[0:1], "other than a slice"),
        (lambda _, x: x * x[:, :, :1], "a part of other dimensions"),
        (lambda _, x: x * x.sum(1, keepdim=True), "sepconv has no such operator"),
        (lambda _, x: x.view(x.size(0), 2, 4, x.size(2), -1).transpose(1, 3), "arguments that sepconv does not know"),
        (
            lambda _, x: x.view(x.size(0), 2, 4, x.size(3), x.size(2)).transpose(1, 2).flatten(1, 2),
            "sepconv does not know",
        ),
        (lambda _, x: F.interpolate(x, scale_factor=2.0, mode="bilinear"), "mode is 'bilinear'"),
        (lambda _, x: F.interpolate(x, size=x.shape[2:]), "its arguments are computed"),
        (lambda _, x: F.interpolate(x, scale_factor=0.5), "scale_factor is 0.5"),
        (lambda _, x: F.interpolate(x, size=3), "it makes 3 rows or columns of 6"),
    ],
)
def test_the_rest_is_left_with_a_reason(what: Any, reason: str) -> None:
    module = random_statistics(nn.Sequential(nn.Conv2d(3, 8, 1), Calls(what), nn.ReLU()))
    optimized = optimize(module)
    assert_same(module, optimized, image(2, 3, 6, 7))
    reasons = [left.reason for left in optimized.report.left] + list(runs(optimized))
    assert any(reason in given for given in reasons), reasons


def test_upsampling_repeats_the_pixels_that_torch_repeats() -> None:
    """At every size, or torch does it: it finds pixels in float32."""
    planned = 0
    for before in range(1, 24, 3):
        for after in range(before, 100, 7):
            module = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Upsample(size=(after, before))).eval()
            optimized = optimize(module)
            assert_same(module, optimized, image(1, 1, before, before))
            planned += not runs(optimized)
    assert planned >= 50
    for factor in np.linspace(1.0, 4.0, 13):
        module = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Upsample(scale_factor=float(factor))).eval()
        assert_same(module, optimize(module), image(1, 1, 13, 11))
