"""torch.compile with the backend "sepconv"."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch==2.13.0")

from torch import nn  # noqa: E402
from torch_networks import MobileNetV2  # noqa: E402

from sepconv.torch import backend  # noqa: E402
from sepconv.torch.region import Region  # noqa: E402


@pytest.fixture(autouse=True)
def forget_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Recorder:
    """The backend, and the regions that it made."""

    def __init__(self) -> None:
        self.regions: list[Region] = []

    def __call__(self, graph_module: Any, example_inputs: Any) -> Any:
        compiled = backend(graph_module, example_inputs)
        if isinstance(compiled, nn.Module):
            self.regions += [part for part in compiled.modules() if isinstance(part, Region)]
        return compiled

    def eager_runs(self) -> dict[str, int]:
        return {reason: n for region in self.regions for reason, n in region.eager_runs.items()}


def image(*shape: int) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def assert_close(result: Any, expected: Any) -> None:
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5 * max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize("dynamic", (None, True, False))
def test_inverted_residuals(dynamic: bool | None) -> None:
    network = nn.Sequential(MobileNetV2().features[:4], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)).eval()
    recorder = Recorder()
    compiled = torch.compile(network, backend=recorder, dynamic=dynamic)
    with torch.inference_mode():
        for shape in ((1, 3, 64, 64), (3, 3, 64, 64), (2, 3, 40, 96)):
            x = image(*shape)
            assert_close(compiled(x), network(x))
            assert_close(compiled(x.to(memory_format=torch.channels_last)), network(x))
    assert recorder.regions
    assert all(len(region.plans()) >= 1 for region in recorder.regions)
    assert recorder.eager_runs() == {}


def test_convolutions_in_groups() -> None:
    """The one in too many groups is run by torch, and it alone."""
    network = nn.Sequential(nn.Conv2d(8, 130, 3, groups=2), nn.Conv2d(130, 130, 1, groups=65), nn.Conv2d(130, 2, 1))
    recorder = Recorder()
    with torch.no_grad():
        x = image(1, 8, 6, 6)
        assert_close(torch.compile(network, backend=recorder)(x), network(x))
    assert len(recorder.regions) == 2
    assert recorder.eager_runs() == {}


def test_by_its_name() -> None:
    if not any(point.name == "sepconv" for point in entry_points(group="torch_dynamo_backends")):
        pytest.skip("sepconv is on the path, but not installed: there is no entry point")
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    assert "sepconv" in torch.compiler.list_backends()
    with torch.no_grad():
        x = image(1, 3, 8, 8)
        assert_close(torch.compile(network, backend="sepconv")(x), network(x))


def test_the_rest_and_graph_breaks_are_run_by_torch() -> None:
    convolution = nn.Conv2d(3, 3, 3, padding=1)

    def function(x: Any) -> Any:
        y = convolution(x) * torch.sigmoid(x)
        if float(y.sum()) > 1e9:  # breaks the graph
            return y
        return torch.relu(convolution(y)), x.shape[0]

    recorder = Recorder()
    with torch.no_grad():
        x = image(2, 3, 9, 9)
        result, batch = torch.compile(function, backend=recorder)(x)
        expected, _ = function(x)
    assert batch == 2
    assert_close(result, expected)
    assert len(recorder.regions) == 2


def test_parameters_that_change_between_calls() -> None:
    """Trained in between, and another module of the same structure under the same compiled code."""
    modules = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval() for _ in range(2)]

    def function(module: Any, x: Any) -> Any:
        return module(x)

    recorder = Recorder()
    compiled = torch.compile(function, backend=recorder)
    x = image(1, 3, 8, 8)
    with torch.no_grad():
        for _ in range(2):
            for module in modules:
                assert_close(compiled(module, x), module(x))
        modules[0][0].weight.mul_(2)
        modules[1][0].bias = nn.Parameter(torch.ones(4))
        for module in modules:
            assert_close(compiled(module, x), module(x))
    assert recorder.eager_runs() == {}


def test_training_goes_through_torch() -> None:
    network, recorder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), Recorder()
    x = image(1, 3, 8, 8)
    torch.compile(network, backend=recorder)(x).square().sum().backward()
    gradient = network[0].weight.grad.clone()
    network.zero_grad()
    network(x).square().sum().backward()
    torch.testing.assert_close(gradient, network[0].weight.grad)
    assert list(recorder.eager_runs()) == ["gradients are recorded: use torch.no_grad() or torch.inference_mode()"]


def test_autocast_goes_through_torch() -> None:
    network, recorder = nn.Sequential(nn.Conv2d(3, 4, 3)).eval(), Recorder()

    def function(x: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return network(x)

    with torch.no_grad():
        assert torch.compile(function, backend=recorder)(image(1, 3, 8, 8)).dtype == torch.bfloat16
