"""What the writers of all formats share."""

from __future__ import annotations

from collections.abc import Sequence

from sepconv.errors import UnsupportedError
from sepconv.graph import Layer, Shape, Upsample, chosen_outputs, needed_layers
from sepconv.graph.base import MAX_ELEMENTS, are_integers
from sepconv.lowering import float32_repeats


def check_batch(batch: int) -> None:
    """Raise ValueError for what is no number of images that a file can hold."""
    if not are_integers((batch,), 1, minimum=1):
        raise ValueError(f"batch was {batch!r}, must be a whole number from 1 to {MAX_ELEMENTS}")


def ends(layers: Sequence[Layer], outputs: Sequence[str] | None) -> tuple[list[Layer], tuple[str, ...]]:
    """The layers to write, and the names of the results to give. Raises ValueError where one is to be given twice."""
    names = chosen_outputs(layers, outputs, "the network")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"outputs has {twice[0]!r} twice, must name each layer once")
    return needed_layers(layers, names), names


def check_upsample(layer: Upsample, x: Shape, runtime: str) -> None:
    """Raise UnsupportedError where the runtime, which finds pixels in float32, repeats others than the layer does."""
    if not all(map(float32_repeats, x, layer.size)):
        raise UnsupportedError(
            f"layer {layer.name!r} (Upsample) goes from {x[:2]} to {tuple(layer.size)}, where {runtime} repeats other "
            "pixels"
        )
