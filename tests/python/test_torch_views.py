"""sepconv.torch.optimize where tensors are viewed by sizes, or written by another name."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch==2.13.0")

from torch import nn  # noqa: E402
from torch_networks import assert_same, image, made  # noqa: E402

from sepconv.torch import optimize, separable_conv2d  # noqa: E402


def of(first: Any, function: Any) -> Any:
    """A forward that views what ``function`` makes of a part of x by that part's first dimension."""

    def forward(s: Any, x: Any) -> Any:
        part = first(x)
        return function(s, part, x).view(part.size(0), -1)

    return forward


VIEWS: dict[str, Any] = {
    "doubled": lambda s, x: torch.cat([s.c(x), s.c(x)], 0).view(x.size(0), -1),
    "a part of the batch": lambda s, x: s.c(x).chunk(2, 0)[0].reshape(x.size(0), -1),
    "rows of other length": lambda s, x: s.c(x).relu().reshape(-1, 9).view(x.size(0), -1),
    "behind a linear": lambda s, x: s.linear(s.c(x).view(-1, 27)).view(x.size(0), -1),
    "broadcast": of(lambda x: x[:1], lambda s, part, x: s.c(part) + s.c(x)),
    "one image": of(lambda x: x[0], lambda s, part, x: s.wide(part)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_that_change_the_batch(name: str) -> None:
    module = made(VIEWS[name])
    assert_same(module, optimize(module), image(2, 3, 3, 6))


def test_items_that_are_set_by_name() -> None:
    def forward(s: Any, x: Any) -> Any:
        y = s.c(x)
        y.__setitem__((slice(None), 0), 0.0)
        return s.c(y)

    module = made(forward)
    assert_same(module, optimize(module), image(1, 3, 4, 4))


def negated(x: Any) -> Any:
    """The values of x as a view that negates their opposites."""
    return torch._neg_view(-x)


def test_views_that_negate() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 9, 4)).eval()
    for part, name in ((module[0], "weight"), (module[0], "bias"), (module[1], "bias"), (module[3], "weight")):
        setattr(part, name, nn.Parameter(negated(getattr(part, name).detach()), requires_grad=False))
    module[1].running_mean = negated(torch.ones(8))
    assert module[0].weight.is_neg()
    x = image(2, 3, 3, 3)
    assert_same(module, optimize(module), negated(x))
    assert_same(module, optimize(module), negated(x.to(memory_format=torch.channels_last)))
    assert_same(module[3], optimize(module[3]), negated(image(2, 72)))


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_functions_of_views_that_negate(dtype: Any) -> None:
    tensors = [t.to(dtype) for t in (image(2, 3, 5, 5), image(3, 1, 3, 3), image(4, 3, 1, 1), image(3), image(4))]
    residual = image(2, 4, 3, 3).to(dtype)
    result = separable_conv2d(*map(negated, tensors), residual=negated(residual))
    torch.testing.assert_close(result, separable_conv2d(*tensors, residual=residual))
