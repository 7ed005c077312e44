"""Derivatives in forward mode, which sepconv's operators do not have: torch would take them for zero."""

from __future__ import annotations

from typing import Any

import torch
from torch._library.autograd import make_autograd_impl
from torch.autograd import forward_ad


def refuse_tangents(operator: Any) -> None:
    """Lets an operator raise NotImplementedError for a tensor with a tangent.

    Where it computes, none is seen: autograd has gone by. So it is looked for where autograd comes in.
    """
    autograd = make_autograd_impl(operator._opoverload, operator)

    def checked(keyset: Any, *arguments: Any) -> Any:
        if forward_ad._current_level >= 0 and any(map(_has_tangent, arguments)):
            raise NotImplementedError(
                "a tensor had a tangent: sepconv has gradients in reverse mode, none in forward mode"
            )
        return autograd(keyset, *arguments)

    operator._lib.impl(operator._name, checked, "AutogradCPU", with_keyset=True)


def _has_tangent(argument: Any) -> bool:
    return isinstance(argument, torch.Tensor) and forward_ad.unpack_dual(argument).tangent is not None
