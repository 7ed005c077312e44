"""What sepconv.torch.optimize shares with its module: hooks, weights, and what torch makes of a call."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch==2.13.0")

from torch import nn  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook  # noqa: E402
from torch.nn.utils import prune  # noqa: E402
from torch.testing._internal.two_tensor import TwoTensor  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402
from torch_networks import all_replaced, assert_same, image, made, runs, small  # noqa: E402

from sepconv.torch import optimize  # noqa: E402

# --- Hooks


def test_hooks_of_the_whole_module() -> None:
    module, x = small(), image(1, 3, 6, 6)
    module.register_forward_pre_hook(lambda _, inputs: (inputs[0] + 1,))
    module.register_forward_hook(lambda _, __, result: result * 10)
    optimized = optimize(module)
    assert_same(module, optimized, x)
    assert optimized.report.replaced
    convolution = nn.Conv2d(3, 4, 1).eval()
    convolution.register_forward_hook(lambda _, __, result: result * 10)
    assert_same(convolution, optimize(convolution), x)


@pytest.mark.parametrize("kind", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_backward_hooks_of_a_container(kind: str) -> None:
    seen: list[str] = []
    inner = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
    getattr(inner, kind)(lambda *_: seen.append("called"))
    optimized = optimize(nn.Sequential(nn.Conv2d(3, 3, 1), inner).eval())
    optimized(image(1, 3, 4, 4).requires_grad_()).sum().backward()
    assert seen == ["called"]


def test_hooks_that_come_later() -> None:
    module = small()
    optimized, x = optimize(module), image(1, 3, 6, 6)
    assert_same(module, optimized, x)
    module[0].register_forward_hook(lambda _, __, result: result * 10)
    assert_same(module, optimized, x)
    assert "a module has hooks" in runs(optimized)


def test_hooks_of_all_modules() -> None:
    module, x = small(), image(1, 3, 6, 6)
    optimized = optimize(module)
    assert_same(module, optimized, x)
    for register in (register_module_forward_hook, register_module_forward_pre_hook):
        seen: list[type] = []
        with register(lambda part, *_, seen=seen: seen.append(type(part))):
            assert_same(module, optimized, x)
        assert [seen.count(type(part)) for part in module] == [2, 2, 2]
    assert_same(module, optimized, x)
    assert runs(optimized) == {"a module has hooks": 2}


# --- The module afterwards


@pytest.mark.parametrize("between", [nn.Identity(), nn.ELU()], ids=["in a plan", "with torch"])
def test_the_module_is_trained_afterwards(between: nn.Module) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 1), between, nn.BatchNorm2d(8), nn.Dropout()).eval()
    optimized, x = optimize(module), image(2, 3, 6, 6)
    twin = copy.deepcopy(module)
    module.train()
    assert_same(twin, optimized, x)
    assert_same(twin, optimized.train(), x.double().float())
    x.requires_grad_()
    torch.testing.assert_close(optimized(x), twin(x))
    assert all(part.training for part in module.modules())
    torch.testing.assert_close(module[2].running_mean, twin[2].running_mean, rtol=0, atol=0)


def test_replaced_weights_are_packed_anew() -> None:
    module, x = small(), image(1, 3, 6, 6)
    optimized = optimize(module)
    assert_same(module, optimized, x)
    module.load_state_dict({name: 2 * value for name, value in small().state_dict().items()}, assign=True)
    assert_same(module, optimized, x)
    module[0].weight = nn.Parameter(3 * module[0].weight.detach())
    assert_same(module, optimized, x)
    module[1].running_mean = torch.ones_like(module[1].running_mean)
    assert_same(module, optimized, x)
    assert all_replaced(optimized)
    module[0].bias = nn.Parameter(torch.ones(len(module[0].weight)))
    assert_same(module, optimized, x)
    assert_same(module, optimized, x)  # by a plan, as it comes for the second time
    prune.l1_unstructured(module[0], "weight", 0.5)
    assert_same(module, optimized, x)
    prune.remove(module[0], "weight")
    assert_same(module, optimized, x)


def test_statistics_with_other_memory() -> None:
    module, x = small(), image(4, 3, 6, 6)
    optimized = optimize(module)
    assert_same(module, optimized, x)
    for name in ("running_mean", "running_var"):
        getattr(module[1], name).set_(torch.ones(8))
    for scale in (1.0, 5.0):
        assert_same(module, optimized, x)
        with torch.no_grad():
            module.train()(scale * x + 3)
        module.eval()
    assert all_replaced(optimized)


class Scaled(torch.Tensor):  # type: ignore[name-defined]
    """What it says it holds, doubled, to functions that read it."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.conv2d:
            return super().__torch_function__(func, types, args, kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            return 2 * func(*args, **(kwargs or {}))


def test_weights_of_other_classes_are_run_by_torch() -> None:
    module, x = small(), image(1, 3, 6, 6)
    optimized = optimize(module)
    assert_same(module, optimized, x)
    weight = module[0].weight.detach()
    for other in (weight.as_subclass(Scaled), TwoTensor(weight, weight)):
        module[0].weight = nn.Parameter(other, requires_grad=False)
        assert_same(module, optimized, x)
    assert runs(optimized) == {"weights are a Scaled": 1, "weights are a TwoTensor": 1}


def test_replaced_weights_of_functions() -> None:
    module = made(lambda s, x: nn.functional.conv2d(x, s.c.weight) * s.n * s.plain)
    optimized, x = optimize(module), image(1, 3, 6, 6)
    assert_same(module, optimized, x)
    twin = copy.deepcopy(optimized)
    twin.module.c.weight = nn.Parameter(3 * module.c.weight.detach())
    torch.testing.assert_close(twin(x), 3 * module(x))
    module.c.weight = nn.Parameter(2 * module.c.weight.detach())
    module.n = 3 * module.n
    assert_same(module, optimized, x)
    assert optimized.report.replaced


class Indexed(nn.Module):
    """Reads more of its children than what they return, under a context that no trace may have."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.rest = nn.Conv2d(3, 3, 1), nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())

    def forward(self, x: Any) -> Any:
        with torch.no_grad():
            for part in self.rest:
                x = part(x) * self.first.weight.mean()
            return self.rest[0](self.first(x)) + len(self.rest)


def test_children_are_what_they_were() -> None:
    module = Indexed().eval()
    optimized = optimize(module)
    assert_same(module, optimized, image(1, 3, 4, 4))
    assert len(optimized.report.replaced) == 2
    assert optimized.module.state_dict().keys() == module.state_dict().keys()


def test_a_forward_of_its_own() -> None:
    traced = torch.fx.symbolic_trace(small())
    for module in (traced, nn.Sequential(traced)):
        assert_same(module, optimize(module.eval()), image(1, 3, 6, 6))
    inner = small()
    for module in (inner, nn.Sequential(inner).eval()):
        inner.forward = lambda x: 2 * x
        assert_same(module, optimize(module), image(1, 3, 6, 6))


@pytest.mark.parametrize("name", ["forward", "_call_impl", "_conv_forward"])
def test_layers_whose_methods_were_replaced(name: str) -> None:
    module, x = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)).eval(), image(1, 3, 6, 6)
    method = getattr(module[0], name)
    setattr(module[0], name, lambda *given: 2 * method(*given))
    optimized = optimize(module)
    assert_same(module, optimized, x)
    assert [left.reason for left in optimized.report.left] == [f"it has {name} of its own"]
    assert_same(module[0], optimize(module[0]), x)


# --- Transforms


def test_functional_call_and_transforms() -> None:
    module, x = small(), image(2, 3, 6, 6)
    optimized = optimize(module)
    assert_same(module, optimized, x)
    ours, theirs = (
        {name: 2 * value.detach() for name, value in network.named_parameters()} for network in (optimized, module)
    )
    call = torch.func.functional_call
    with torch.no_grad():
        torch.testing.assert_close(call(optimized, ours, (x,)), call(module, theirs, (x,)))
        torch.testing.assert_close(torch.func.vmap(optimized)(x[None]), torch.func.vmap(module)(x[None]))
        for result, expected in zip(
            torch.func.jvp(optimized, (x,), (x,)), torch.func.jvp(module, (x,), (x,)), strict=True
        ):
            torch.testing.assert_close(result, expected)
        torch.testing.assert_close(torch.jit.trace(optimized, (x,))(2 * x), module(2 * x))
    with forward_ad.dual_level():
        tangents = [forward_ad.unpack_dual(f(forward_ad.make_dual(x, x))).tangent for f in (optimized, module)]
    torch.testing.assert_close(*tangents)


def test_export() -> None:
    module, x = small(), image(2, 3, 6, 6)
    program = torch.export.export(optimize(module), (x,)).module()
    torch.testing.assert_close(program(2 * x), module(2 * x))


def test_modes_that_watch_operators() -> None:
    module, x = small(), image(2, 3, 6, 6)
    optimized = optimize(module)
    assert_same(module, optimized, x)
    with torch.no_grad():
        torch.testing.assert_close(make_fx(optimized)(x)(2 * x), module(2 * x))
        counts = []
        for network in (module, optimized):
            with FlopCounterMode(display=False) as counter:
                network(x)
            counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0
