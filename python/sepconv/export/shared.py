"""What the writers of all formats share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sepconv.errors import UnsupportedError
from sepconv.graph import Layer, Shape, Upsample, chosen_outputs, infer_shapes, needed_layers
from sepconv.graph.base import MAX_ELEMENTS, are_integers
from sepconv.graph.weighted import BATCH_NORM_ARRAYS
from sepconv.layer_lists import LayersLike, layer_list
from sepconv.lowering import float32_repeats, real_numbers


def check_batch(batch: int) -> int:
    """The number of images, which a file must be able to hold (else ValueError)."""
    if not are_integers((batch,), 1, minimum=1):
        raise ValueError(f"batch was {batch!r}, must be a whole number from 1 to {MAX_ELEMENTS}")
    return int(batch)


def ends(layers: LayersLike, outputs: Sequence[str] | None) -> tuple[list[Layer], tuple[str, ...]]:
    """The layers to write, and the names of the results to give.

    A model without ``outputs`` gives its own. Raises ValueError for layers that are no network, written or not, and
    where a result is to be given twice; TypeError for what are no layers, and for arrays that are no real numbers.
    """
    if outputs is None and not isinstance(layers, Iterable):
        outputs = [port.name for port in getattr(layers, "outputs", ())]
    layers = layer_list(layers)
    infer_shapes(layers)
    for layer in layers:
        arrays = {argument: getattr(layer, argument, None) for argument in ("weight", "bias", "slope", "scale")}
        if (norm := getattr(layer, "batch_norm", None)) is not None:
            arrays |= {f"batch_norm.{argument}": getattr(norm, argument) for argument in BATCH_NORM_ARRAYS}
        for argument, array in arrays.items():
            if array is not None:
                real_numbers(layer, argument, array)
    names = chosen_outputs(layers, outputs, "the network")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"outputs has {twice[0]!r} twice, must name each layer once")
    return needed_layers(layers, names), names


def check_size(layers: Sequence[Layer], file: str) -> None:
    """Raise UnsupportedError for more parameters than a file of 2 GB holds beside 16 MB for the rest."""
    size, most = 4 * sum(layer.params() for layer in layers), (1 << 31) - (1 << 24)
    if size > most:
        raise UnsupportedError(f"the network has {size:,} bytes of weights, of which {file} holds at most {most:,}")


def check_upsample(layer: Upsample, x: Shape, runtime: str) -> None:
    """Raise UnsupportedError where the runtime, which finds pixels in float32, repeats others than the layer does."""
    if not all(map(float32_repeats, x, layer.size)):
        raise UnsupportedError(
            f"layer {layer.name!r} (Upsample) goes from {x[:2]} to {tuple(layer.size)}, where {runtime} repeats other "
            "pixels"
        )
