"""Whether a call of a module is more than its class's forward."""

from __future__ import annotations

from typing import Any


def hooked(module: Any) -> bool:
    """Whether calling a module does more than its forward."""
    return any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks))


def patched(module: Any) -> str | None:
    """A method set on the instance, which calls run in place of the class's."""
    methods = ("forward", "_call_impl", "_conv_forward", "_check_input_dim")
    return next((name for name in methods if name in vars(module)), None)
