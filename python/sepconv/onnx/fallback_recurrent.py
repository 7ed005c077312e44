"""RNN, GRU and LSTM on the package onnx's reference implementation, which ignores some of what they can be asked."""

from __future__ import annotations

from typing import Any

import numpy as np

from sepconv.errors import UnsupportedError
from sepconv.onnx.fallback_base import ops
from sepconv.onnx.ir import Array

_ACTIVATIONS = {"RNN": ["tanh"], "GRU": ["sigmoid", "tanh"], "LSTM": ["sigmoid", "tanh", "tanh"]}


def _check(node: Any) -> None:
    """Raise UnsupportedError for what the reference implementation ignores."""
    values = {attribute.name: attribute for attribute in node.attribute}
    what = f"{node.op_type} with the attribute"
    if "clip" in values:
        raise UnsupportedError(f"{what} clip, which must be left out")
    if "input_forget" in values and (values["input_forget"].i or values["input_forget"].ref_attr_name):
        raise UnsupportedError(f"{what} input_forget={values['input_forget'].i}, must be 0")
    if "activations" in values:
        names = [name.decode(errors="replace") for name in values["activations"].strings]
        expected = _ACTIVATIONS[node.op_type]
        is_one_affine = node.op_type == "RNN" and [name.lower() for name in names] == ["affine"]
        if [name.lower() for name in names] not in (expected, expected * 2) and not is_one_affine:
            raise UnsupportedError(f"{what} activations={names}, must be {[name.title() for name in expected]}")


class _Recurrent:
    def __init__(self, node: Any, params: dict[str, Any]) -> None:
        _check(node)
        super().__init__(node, params)  # type: ignore[call-arg]

    def _run(
        self, x: Array, w: Array, r: Array, b: Array | None = None, lengths: Array | None = None, *rest: Any, **a: Any
    ) -> tuple[Array, ...]:
        """Sequences of other lengths than the longest by themselves, ``rest``: initial states, and weights of LSTM."""
        run = super()._run  # type: ignore[misc]
        batch_first = bool(a.get("layout"))
        time, batch = (1, 0) if batch_first else (0, 1)
        longest = x.shape[time]
        if lengths is None or bool(np.all(lengths == longest)):
            results: tuple[Array, ...] = run(x, w, r, b, None, *rest, **a)
            return results
        if np.min(lengths) < 1 or np.max(lengths) > longest:
            raise ValueError(f"sequence_lens is {lengths.tolist()}, must be between 1 and {longest}")
        parts = []
        for place, length in enumerate(lengths):
            states = [None if state is None else state.take([place], batch) for state in rest[:2]]
            one = x.take([place], batch).take(range(length), time)
            y, *last = run(one, w, r, b, None, *states, *rest[2:], **a)
            space = [(0, 0)] * 4
            space[time] = (0, longest - length)
            parts.append([np.pad(y, space), *last])
        axes = (0 if batch_first else 2, batch, batch)
        return tuple(np.concatenate(arrays, axis) for arrays, axis in zip(zip(*parts, strict=True), axes, strict=False))


class LSTM(_Recurrent, ops.LSTM):  # type: ignore[name-defined,misc]
    pass


class GRU(_Recurrent, ops.GRU):  # type: ignore[name-defined,misc]
    pass


class RNN(_Recurrent, ops.RNN_14):  # type: ignore[name-defined,misc]
    pass
