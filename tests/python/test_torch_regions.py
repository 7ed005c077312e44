"""Regions that sepconv.torch.optimize makes: when plans run them and when torch, and what becomes of plans."""

from __future__ import annotations

import copy
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch==2.13.0")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812
from torch_networks import Calls2, MobileNetV2, all_replaced, assert_same, image, runs, small  # noqa: E402

import sepconv  # noqa: E402
from sepconv.torch import optimize  # noqa: E402


def test_gradients_flow_to_the_input() -> None:
    module = small()
    optimized = optimize(module)
    grads = []
    for network in (module, optimized):
        x = image(2, 3, 6, 6).requires_grad_()
        network(x).square().sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(grads[0], grads[1])
    assert any("gradients are recorded" in reason for reason in runs(optimized))
    assert not optimized(image(2, 3, 6, 6)).requires_grad


@pytest.mark.parametrize(
    "x, reason",
    [
        (image(0, 3, 6, 6), "empty"),
        (image(1, 3, 6, 6).to("meta"), "on meta"),
    ],
)
def test_inputs_that_torch_runs(x: Any, reason: str) -> None:
    module = small()
    optimized = optimize(module)
    with torch.no_grad():
        if "meta" in reason:
            with pytest.raises(RuntimeError):  # torch's own, as the weights are on the CPU
                optimized(x)
        else:
            torch.testing.assert_close(optimized(x), module(x))
    assert any(reason in why for why in runs(optimized)), runs(optimized)


def test_inputs_of_different_batches_are_run_by_torch() -> None:
    module = Calls2(lambda m, a, b: m.one(a) + m.one(b), one=nn.Conv2d(3, 8, 1)).eval()
    optimized = optimize(module)
    for batches in ((2, 1), (1, 2)):
        assert_same(module, optimized, *(image(n, 3, 4, 4, seed=n) for n in batches))
    assert runs(optimized) == {
        "input y is (1, 3, 4, 4), x of batch 2": 1,
        "input y is (2, 3, 4, 4), x of batch 1": 1,
    }
    assert "sepconv runs 0 of 3 operators" in str(optimized.report)
    with torch.no_grad():
        optimized(image(1, 3, 4, 4), image(1, 3, 4, 4))
    assert "sepconv runs 3 of 3 operators" in str(optimized.report)


def test_other_types_and_autocast_are_run_by_torch() -> None:
    module = small().double()
    optimized = optimize(module)
    with torch.no_grad():
        x = image(1, 3, 6, 6).double()
        assert torch.equal(optimized(x), module(x))
        single = optimize(small())
        with torch.autocast("cpu", torch.bfloat16):
            assert single(image(1, 3, 6, 6)).dtype == torch.bfloat16
    assert list(runs(single)) == ["autocast"]
    assert any("torch.float64" in reason for reason in runs(optimized))


def test_wrong_inputs_raise_as_with_torch() -> None:
    optimized = optimize(small())
    with torch.no_grad(), pytest.raises(RuntimeError, match="channels"):
        optimized(image(1, 4, 6, 6))
    with pytest.raises(TypeError):
        optimized()


def test_training_mode() -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout())
    with pytest.raises(ValueError, match="module was in training mode, must be in eval mode"):
        optimize(module)
    module.eval()[1].train()
    with pytest.raises(ValueError, match="1 was in training mode"):
        optimize(module)
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module"):
        optimize(F.relu)
    with pytest.raises(ValueError, match="threads was 0"):
        optimize(module.eval(), threads=0)


# --- Plans


def test_plans_are_few_and_kept_for_sizes_that_return() -> None:
    module = small()
    optimized = optimize(module)
    region = optimized.report.replaced[0].region
    for size in range(4, 12):
        assert_same(module, optimized, image(1, 3, size, size))
    assert region.plans() == [f"3x{size}x{size}" for size in (4, 5, 6, 7)]
    assert runs(optimized) == {"sizes that came once, after 4 others": 4}
    assert_same(module, optimized, image(2, 3, 11, 11))
    assert region.plans() == [f"3x{size}x{size}" for size in (5, 6, 7, 11)]
    assert_same(module, optimized, image(2, 3, 5, 5))
    assert "plan for 3x11x11" in str(optimized.report)


def test_changed_weights_are_packed_anew() -> None:
    module, other = small(), small()
    optimized = optimize(module)
    x = image(1, 3, 6, 6)
    assert_same(module, optimized, x)
    nn.init.normal_(other[0].weight)
    other[1].running_mean.zero_()
    module.load_state_dict(other.state_dict())
    assert_same(other, optimized, x)
    with torch.no_grad():
        module[1].running_var.mul_(4)
    assert_same(module, optimized, x)
    weight = module[0].weight
    with torch.no_grad():  # as sepconv writes it, of which torch knows nothing
        sepconv.pointwise_conv2d(2 * weight, torch.eye(weight.shape[1])[..., None, None], layout="NCHW", out=weight)
    assert_same(module, optimized, x)
    assert all_replaced(optimized)


@pytest.mark.parametrize("compiled", [False, True])
def test_steps_of_fused_optimizers_are_noticed(compiled: bool) -> None:
    module, x = small(), image(1, 3, 6, 6)
    ours: Any = torch.compile(module, backend=sepconv.torch.backend) if compiled else optimize(module)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, fused=True)
    for _ in range(3):
        with torch.no_grad():
            torch.testing.assert_close(ours(x), module(x), rtol=1e-4, atol=1e-4)
        module(x).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_statistics_that_a_forward_in_training_mode_gathers(compiled: bool, counted: bool) -> None:
    module, x = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU()).eval(), image(4, 3, 6, 6)
    if not counted:
        module[1].num_batches_tracked = None
        module[1].register_buffer("running_var", torch.ones(16)[::2])
    ours: Any = torch.compile(module, backend=sepconv.torch.backend) if compiled else optimize(module)
    with torch.no_grad():
        for scale in (1.0, 5.0, 9.0):
            torch.testing.assert_close(ours(x), module(x), rtol=1e-4, atol=1e-4)
            module.train()(scale * x + 3)
            module.eval()
    assert compiled or all_replaced(ours)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_module_made_in_inference_mode_is_run_by_torch(compiled: bool) -> None:
    """Its tensors do not count changes, so that a plan could be out of date."""
    x = image(1, 3, 6, 6)
    with torch.inference_mode():
        module, other = small(), small()
        nn.init.normal_(other[0].weight)
        ours: Any = torch.compile(module, backend=sepconv.torch.backend) if compiled else optimize(module)
        torch.testing.assert_close(ours(x), module(x))
        module.load_state_dict(other.state_dict())
        torch.testing.assert_close(ours(x), other(x))
    if not compiled:
        assert runs(ours) == {"weights made in inference mode do not count changes": 2}
        module.load_state_dict({name: tensor.clone() for name, tensor in other.state_dict().items()}, assign=True)
        with torch.no_grad():
            torch.testing.assert_close(ours(x), other(x))
        assert len(ours.report.replaced[0].region.plans()) == 1


def test_copies_and_pickles() -> None:
    module = MobileNetV2(5).eval()
    optimized = optimize(module, threads=2)
    x = image(1, 3, 64, 64)
    assert_same(module, optimized, x)
    file = io.BytesIO()
    torch.save(optimized, file)
    file.seek(0)
    for twin in (copy.deepcopy(optimized), torch.load(file, weights_only=False)):
        assert_same(module, twin, x)
        assert all_replaced(twin)
        assert twin.report.replaced[0].region.threads == 2
        assert twin.report.replaced[0].operators == optimized.report.replaced[0].operators


def test_calls_from_many_threads() -> None:
    module = small()
    optimized = optimize(module)
    inputs = [image(1 + i % 3, 3, 5 + i % 7, 6, seed=i) for i in range(60)]
    with torch.no_grad():
        expected = [module(x) for x in inputs]

    def call(x: Any) -> Any:
        with torch.no_grad():  # a thread has its own mode
            return optimized(x)

    with ThreadPoolExecutor(8) as pool:
        for got, want in zip(pool.map(call, inputs), expected, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


class Forward(nn.Module):
    """A convolution, a batch norm and a dropout, and what ``function`` makes of them."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.convolution, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.norm, self.dropout, self.same = nn.BatchNorm2d(8), nn.Dropout(), nn.Identity()
        nn.init.normal_(self.norm.weight)

    def forward(self, x: Any) -> Any:
        return self.function(self, self.convolution(x))


def write(m: Any, y: Any, view: Any) -> Any:
    view(y).mul_(2.0)
    return m.last(y)


SHARED = {
    "norm of a dropout": lambda m, y: m.norm(m.dropout(y)) + y,
    "norm of all channels": lambda m, y: (m.norm(y[:, 0:8]), y),
    "norm of the only chunk": lambda m, y: m.norm(y.chunk(1, 1)[0]) * y,
    "norm before another name": lambda m, y: (m.norm(y), m.dropout(y)),
    "channels are scaled": lambda m, y: write(m, y, lambda y: y[:, :4]),
    "a chunk is scaled": lambda m, y: write(m, y, lambda y: y.chunk(2, 1)[0]),
    "pixels are scaled": lambda m, y: write(m, y, lambda y: y.flatten(1)),
    "another name is scaled": lambda m, y: write(m, y, m.same),
    "channels of an image that is scaled": lambda m, y: (y[:, :4], y.mul_(2.0))[0] + m.norm(y)[:, 4:],
    "a result that is given": lambda m, y: (torch.erf(y, out=y), m.last(y))[1],
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", SHARED)
def test_memory_that_several_names_share(name: str, compiled: bool) -> None:
    module = Forward(SHARED[name]).eval()
    x = image(1, 3, 4, 4)
    ours: Any = torch.compile(module, backend=sepconv.torch.backend) if compiled else optimize(module)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), module(x))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_change_in_place_that_is_cut_from_what_it_changes(compiled: bool) -> None:
    def function(m: Any, y: Any) -> Any:
        changed = m.norm(y)
        pooled = F.max_pool2d(y, 2, ceil_mode=True)  # run by torch
        return F.relu_(changed).flatten(1), m.last(pooled)

    module, x = Forward(function).eval(), image(1, 3, 5, 5)
    ours: Any = torch.compile(module, backend=sepconv.torch.backend) if compiled else optimize(module)
    with torch.no_grad():
        for network in (ours,) if compiled else (ours, copy.deepcopy(ours)):
            torch.testing.assert_close(network(x), module(x))


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 1)

    def forward(self, x: Any, scale: Any = None, mode: str = "plain") -> Any:
        y = self.convolution(x)
        y = y if scale is None else y * scale
        return [y] if mode == "list" else y


class Factor(nn.Conv2d):
    def forward(self, x: Any, double: Any = None) -> Any:
        return super().forward(x) * (2 if double is None else 3)


def test_arguments_that_may_be_left_out() -> None:
    module = Optional().eval()
    optimized = optimize(module)
    x, scale = image(1, 3, 4, 4), image(1, 8, 1, 1)
    with torch.inference_mode():
        for arguments in ((x,), (x, scale), (x, None, "list"), (x, 3.0)):
            torch.testing.assert_close(optimized(*arguments), module(*arguments))
    assert len(optimized.report.replaced) == 1
    factor = Factor(3, 8, 1).eval()
    with torch.inference_mode():
        for arguments in ((x,), (x, True)):
            torch.testing.assert_close(optimize(factor)(*arguments), factor(*arguments))


@pytest.mark.parametrize("outputs, size", [(1, 6), (4, 1)])
def test_strides_of_one_channel_or_pixel(outputs: int, size: int) -> None:
    """They tell contiguous from channels_last to what torch runs next."""
    after = nn.Upsample(scale_factor=2, mode="bilinear")
    for module in (nn.Conv2d(3, outputs, 1), nn.Sequential(nn.Conv2d(3, outputs, 1), after)):
        optimized = optimize(module.eval())
        for memory_format in (torch.contiguous_format, torch.channels_last):
            x = image(2, 3, size, size).contiguous(memory_format=memory_format)
            with torch.no_grad():
                assert optimized(x).stride() == module(x).stride()
