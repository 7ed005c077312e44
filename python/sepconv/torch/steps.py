"""Steps of fused optimizers, whose kernels write weights without raising the versions that tensors count."""

from __future__ import annotations

from itertools import count
from typing import Any

from torch.optim.optimizer import register_optimizer_step_post_hook

_counter = count(1)
_made = [0]


def fused_steps() -> int:
    """Another number after each step of an optimizer with ``fused=True``, whichever weights it has."""
    return _made[0]


def _note(optimizer: Any, _args: Any, _kwargs: Any) -> None:
    if any(group.get("fused") for group in optimizer.param_groups):
        _made[0] = next(_counter)


register_optimizer_step_post_hook(_note)
