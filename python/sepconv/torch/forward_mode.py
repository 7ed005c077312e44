"""Derivatives in forward mode, which sepconv's operators do not have: torch would take them for zero."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.autograd import forward_ad

try:
    from torch._library.autograd import make_autograd_impl
except ImportError:  # not promised by torch: the functions look for tangents by themselves
    make_autograd_impl = None


def check_tangents(tensors: Iterable[Any]) -> None:
    """Raise NotImplementedError for a tensor with a tangent."""
    if forward_ad._current_level >= 0 and any(map(_has_tangent, tensors)):
        raise NotImplementedError("a tensor had a tangent: sepconv has gradients in reverse mode, none in forward mode")


def refuse_tangents(operator: Any) -> None:
    """Lets an operator check its tensors.

    Where it computes, no tangent is seen: autograd has gone by. So it is looked for where autograd comes in.
    """
    if make_autograd_impl is None:
        return
    autograd = make_autograd_impl(operator._opoverload, operator)

    def checked(keyset: Any, *arguments: Any) -> Any:
        check_tangents(arguments)
        return autograd(keyset, *arguments)

    operator._lib.impl(operator._name, checked, "AutogradCPU", with_keyset=True)


def _has_tangent(argument: Any) -> bool:
    return isinstance(argument, torch.Tensor) and forward_ad.unpack_dual(argument).tangent is not None
