"""What a function takes for a network: a list of layers, or a model that has them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from sepconv.graph import Layer

if TYPE_CHECKING:
    from sepconv.model import Model

LayersLike: TypeAlias = "Iterable[Layer] | Model"


def layer_list(layers: Any) -> tuple[Layer, ...]:
    """The layers, or the model's. Raises TypeError for what is neither."""
    found = getattr(layers, "layers", layers)
    if not isinstance(found, Iterable) or isinstance(found, str | bytes):
        raise TypeError(f"layers was of type {type(layers).__name__}, must be a list of layers or a sepconv.Model")
    found = tuple(found)
    for index, layer in enumerate(found):
        if not isinstance(layer, Layer):
            raise TypeError(f"layers[{index}] was {type(layer).__name__}, must be a layer of sepconv.graph")
    return found
