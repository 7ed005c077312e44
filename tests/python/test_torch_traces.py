"""sepconv.torch.optimize where forward is more than a graph of operators: it gives what torch gives, at every call."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch==2.13.0")

from torch import nn  # noqa: E402
from torch_networks import Forward, all_replaced, assert_same, image, made  # noqa: E402

from sepconv.torch import optimize  # noqa: E402

# --- Arguments that may be None


def scaled_by_size(s: Any, x: Any, scale: Any = None) -> Any:
    return s.c(x) * (2.0 if x.shape[0] > 1 else 3.0) if scale is None else s.c(x)


def masked(s: Any, x: Any, mask: Any = None) -> Any:
    if mask is None:
        mask = torch.ones(x.shape[0], 1, x.shape[2], x.shape[3])
    return s.c(x) * mask


def required(s: Any, x: Any, mask: Any) -> Any:
    return s.c(x) * 2 if mask is None else s.c(x)


def both(s: Any, x: Any, a: Any = None, b: Any = None) -> Any:
    return s.c(x) * 2 if a is None and b is not None else s.c(x)


def flag(s: Any, x: Any, double: Any = False) -> Any:
    return s.c(x) * 2 if double is True else s.c(x)


def named(s: Any, x: Any, **rest: Any) -> Any:
    return s.c(x) * 2 if rest.get("mask") is None else s.c(x)


def listed(s: Any, x: Any, *rest: Any) -> Any:
    return s.c(x) * 2 if rest[0] is None else s.c(x)


def held(s: Any, x: Any, rest: Any) -> Any:
    return s.c(x) * 2 if rest["mask"] is None else s.c(x)


MASK = torch.ones(1)
CHOICES: list[tuple[Any, list[tuple[Any, ...]]]] = [
    (scaled_by_size, [(), (MASK,)]),
    (masked, [(), (2 * MASK,)]),
    (required, [(None,), (MASK,)]),
    (both, [(), (None, MASK), (MASK, None), (MASK, MASK)]),
    (flag, [(), (True,), (False,)]),
    (listed, [(None,), (MASK,)]),
    (held, [({"mask": None},), ({"mask": MASK},)]),
]


@pytest.mark.parametrize("forward, calls", CHOICES, ids=lambda value: getattr(value, "__name__", ""))
def test_what_depends_on_an_argument_being_none(forward: Any, calls: Any) -> None:
    module = made(forward)
    for x in (image(1, 3, 3, 6), image(2, 3, 3, 6)):
        optimized = optimize(module)
        for arguments in calls:
            assert_same(module, optimized, x, *arguments)


def test_what_depends_on_a_named_argument() -> None:
    module, x = made(named), image(1, 3, 4, 4)
    optimized = optimize(module)
    with torch.no_grad():
        for options in ({}, {"mask": None}, {"mask": MASK}):
            torch.testing.assert_close(optimized(x, **options), module(x, **options))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 1)

    def forward(self, x: Any, residual: Any = None) -> Any:
        y = self.convolution(x)
        return y if residual is None else y + residual


def test_an_argument_that_must_be_given_decides_nothing_further_in() -> None:
    module = made(lambda s, x: s.last(s.first(x), x))
    module.first, module.last = Block().eval(), Block().eval()
    optimized = optimize(module)
    assert_same(module, optimized, image(1, 3, 4, 4))
    assert all_replaced(optimized)
    assert len(optimized.report.replaced) == 1


# --- What a trace would compute once


def counted(s: Any, x: Any) -> Any:
    s.n += 1
    return s.c(x) * s.n


def averaged(s: Any, x: Any) -> Any:
    s.n.mul_(0.5).add_(x.mean())
    return s.c(x) * s.n


def averaged_beside(s: Any, x: Any) -> Any:
    s.plain += 1.0
    return s.c(x) * s.plain


def calls(s: Any, x: Any) -> Any:
    s.calls += 1
    return s.c(x) * float(s.calls)


@pytest.mark.parametrize("forward", [counted, averaged, averaged_beside, calls], ids=lambda f: f.__name__)
def test_what_forward_changes(forward: Any) -> None:
    module = made(forward)
    twin = copy.deepcopy(module)
    optimized = optimize(module)
    assert torch.equal(module.n, twin.n)
    assert torch.equal(module.plain, twin.plain)
    assert module.calls == 0
    for seed in range(3):
        assert_same(twin, optimized, image(1, 3, 4, 4, seed=seed))


def test_random_numbers_are_drawn_at_each_call() -> None:
    module = made(lambda s, x: s.c(x) * torch.rand(1))
    optimized, x = optimize(module), image(1, 3, 4, 4)
    results = []
    with torch.no_grad():
        for network in (module, optimized):
            torch.manual_seed(0)
            results.append([network(x), network(x)])
    for expected, result in zip(*results, strict=True):
        torch.testing.assert_close(result, expected)


def typed(s: Any, x: Any, scale: Any) -> Any:
    return s.c(x) * 2 if torch.is_tensor(scale) else s.c(x)


def instance(s: Any, x: Any, scale: Any) -> Any:
    return s.c(x) * 2 if isinstance(scale, torch.Tensor) else s.c(x)


@pytest.mark.parametrize("forward", [typed, instance], ids=lambda f: f.__name__)
def test_what_depends_on_an_argument_s_type(forward: Any) -> None:
    module = made(forward)
    optimized = optimize(module)
    for scale in (MASK, 2.0):
        assert_same(module, optimized, image(1, 3, 4, 4), scale)


def test_what_depends_on_gradients_being_recorded() -> None:
    module = made(lambda s, x: s.c(x) * 2 if torch.is_grad_enabled() else s.c(x))
    optimized, x = optimize(module), image(1, 3, 4, 4)
    assert_same(module, optimized, x)
    torch.testing.assert_close(optimized(x), module(x))


# --- Contexts


def in_autocast(s: Any, x: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return s.c(x)


def partly_constant(s: Any, x: Any) -> Any:
    with torch.no_grad():
        y = s.c(x)
    return y + x


@pytest.mark.parametrize("forward", [in_autocast, torch.autocast("cpu", dtype=torch.bfloat16)(lambda s, x: s.c(x))])
def test_autocast_inside_forward(forward: Any) -> None:
    module, x = made(forward), image(1, 3, 4, 4)
    with torch.no_grad():
        result, expected = optimize(module)(x), module(x)
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, expected)


def test_no_grad_inside_forward() -> None:
    module = made(partly_constant)
    grads = []
    for network in (module, optimize(module)):
        x = image(1, 3, 4, 4).requires_grad_()
        network(x).sum().backward()
        grads.append(x.grad)
    assert torch.equal(*grads)


# --- Assertions


def ranked(s: Any, x: Any) -> Any:
    torch._assert(x.ndim == 4, "of an argument")
    y = s.c(x)
    torch._assert(y.ndim == 4, f"four dimensions, not {y.ndim}")
    y = s.norm(y)
    torch._assert(y.dim() == 4, "four dimensions")
    torch._assert(y.mean((2, 3)).dim() == 2, "two dimensions")
    return y.relu()


def sized(s: Any, x: Any) -> Any:
    y = s.c(x)
    torch._assert(y.shape[1] == 3, "three channels")
    torch._assert(y.size(2) % 2 == 0, "an even height")
    return y.relu()


class Ranked(Forward):
    forward = ranked


class Sized(Forward):
    forward = sized


@pytest.mark.parametrize("build", [Ranked, Sized])
def test_assertions_are_no_operators(build: Any) -> None:
    module = build(None).eval()
    module.norm = nn.BatchNorm2d(3).eval()
    optimized = optimize(module)
    for network in (optimized, copy.deepcopy(optimized), pickle.loads(pickle.dumps(optimized))):
        assert_same(module, network, image(2, 3, 4, 4))
        assert all_replaced(network), network.report
    assert "assert" not in str(optimized.report)
    assert "rank" not in str(optimized.report)
    with torch.no_grad():
        for network in (module, optimized):
            with pytest.raises(AssertionError):
                network(image(3, 5, 4))
