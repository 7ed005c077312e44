"""What the builders of the newer families share: their options, and how a model is made of their layers.

A family has a function that gives its layers, and one that compiles them; both take these arguments, besides their own:

alpha: width multiplier; a layer of c channels gets the multiple of 8 nearest to c * alpha, not under 0.9 of it.
resolution: the input's height and width, at least 32.
classes: how many logits.
weights, seed, padding, batch_norm_epsilon, name, convention: as for :func:`sepconv.models.mobilenet_v1`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from sepconv.conventions import Convention
from sepconv.graph import Layer
from sepconv.models.builder import NetworkBuilder, compile_model, resolve_resolution
from sepconv.models.weights import NamingScheme, PaddingRule, WeightsArgument, WeightSource, open_weights

if TYPE_CHECKING:
    from sepconv.model import Model


class LayerOptions(TypedDict, total=False):
    """How a network's convolutions differ from what the weights say; None or left out: not at all."""

    padding: PaddingRule | None
    batch_norm_epsilon: float | None


class ModelOptions(LayerOptions, total=False):
    """Besides, what a model is called and what it expects of a photograph."""

    name: str | None
    convention: Convention | None


def open_builder(resolution: int, source: WeightSource, options: LayerOptions, epsilon: float) -> NetworkBuilder:
    """A builder at the network's input. ``epsilon``: of batch norms, where neither options nor weights say."""
    unknown = set(options) - {"padding", "batch_norm_epsilon"}
    if unknown:
        raise TypeError(f"unexpected keyword argument {sorted(unknown)[0]!r}")
    return NetworkBuilder(
        resolve_resolution(resolution, None),
        source,
        padding=options.get("padding"),
        epsilon=options.get("batch_norm_epsilon"),
        default=epsilon,
    )


def compile_family(
    layers: Callable[..., list[Layer]],
    schemes: Sequence[NamingScheme],
    default_name: str,
    weights: WeightsArgument,
    seed: int,
    options: ModelOptions,
    **arguments: Any,
) -> Model:
    """The model of ``layers(**arguments)`` with these weights."""
    source = open_weights(weights, seed, schemes)
    name = options.get("name")
    of_layers = {key: value for key, value in options.items() if key not in ("name", "convention")}
    return compile_model(
        layers(weights=source, **arguments, **of_layers),
        source,
        name=default_name if name is None else name,
        convention=options.get("convention"),
    )
