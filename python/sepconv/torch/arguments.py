"""What the makers of operators share: arguments by name, and checks of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sepconv.torch.operators import Operator, Unsupported

Arguments = dict[str, Any]
Maker = Callable[[Arguments], Operator]


def pair(value: Any, name: str) -> tuple[int, int]:
    if isinstance(value, int) and not isinstance(value, bool):
        return value, value
    if isinstance(value, list | tuple) and len(value) in (1, 2) and all(isinstance(n, int) for n in value):
        return int(value[0]), int(value[-1])
    raise Unsupported(f"{name} is {value!r}")


def only(arguments: Arguments, **allowed: Any) -> None:
    """Unsupported unless these arguments, where given, have these values."""
    for name, value in allowed.items():
        if arguments.get(name, value) != value:
            raise Unsupported(f"{name} is {arguments[name]!r}")
