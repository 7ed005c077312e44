"""Networks by name: ``mobilenet_v3_large_0.75_192`` is a family, a width and a resolution."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial

from sepconv.graph import Layer
from sepconv.models.detection import feature_pyramid_layers, ssdlite_layers
from sepconv.models.efficientnet_lite import VARIANTS, efficientnet_lite_layers
from sepconv.models.mnasnet import mnasnet_layers
from sepconv.models.mobilenet_v1 import mobilenet_v1_layers
from sepconv.models.mobilenet_v2 import mobilenet_v2_layers
from sepconv.models.mobilenet_v3 import mobilenet_v3_layers
from sepconv.models.mobilenet_v4 import mobilenet_v4_conv_layers
from sepconv.models.shufflenet_v2 import shufflenet_v2_layers
from sepconv.models.weights import WeightsArgument


@dataclass(frozen=True)
class Family:
    """A network of every width and resolution. ``layers`` takes alpha, resolution, weights and seed by name."""

    layers: Callable[..., list[Layer]]
    resolution: int = 224


FAMILIES: dict[str, Family] = {
    "mobilenet_v1": Family(mobilenet_v1_layers),
    "mobilenet_v2": Family(mobilenet_v2_layers),
    "mobilenet_v3_large": Family(partial(mobilenet_v3_layers, "large")),
    "mobilenet_v3_small": Family(partial(mobilenet_v3_layers, "small")),
    "mobilenet_v3_large_minimalistic": Family(partial(mobilenet_v3_layers, "large", minimalistic=True)),
    "mobilenet_v3_small_minimalistic": Family(partial(mobilenet_v3_layers, "small", minimalistic=True)),
    "mobilenet_v4_conv_small": Family(partial(mobilenet_v4_conv_layers, "small")),
    "mobilenet_v4_conv_medium": Family(partial(mobilenet_v4_conv_layers, "medium"), 256),
    **{
        f"efficientnet_lite{variant}": Family(partial(efficientnet_lite_layers, variant), resolution)
        for variant, (_, _, resolution) in enumerate(VARIANTS)
    },
    "mnasnet_a1": Family(partial(mnasnet_layers, variant="a1")),
    "mnasnet_b1": Family(partial(mnasnet_layers, variant="b1")),
    "shufflenet_v2": Family(shufflenet_v2_layers),
    "ssdlite_mobilenet_v1": Family(partial(ssdlite_layers, backbone="mobilenet_v1"), 320),
    "ssdlite_mobilenet_v2": Family(partial(ssdlite_layers, backbone="mobilenet_v2"), 320),
    "feature_pyramid_mobilenet_v1": Family(partial(feature_pyramid_layers, backbone="mobilenet_v1"), 320),
    "feature_pyramid_mobilenet_v2": Family(partial(feature_pyramid_layers, backbone="mobilenet_v2"), 320),
}
_NAME = re.compile(r"(?P<family>[a-z].*?)(?:_(?P<alpha>\d+\.\d+|\d+(?=_)))?(?:_(?P<resolution>\d+))?")


def is_name(name: str) -> bool:
    """Whether :func:`named_layers` knows it, if not with this alpha or resolution."""
    match = _NAME.fullmatch(name)
    return match is not None and match["family"] in FAMILIES


def similar_names(name: str) -> list[str]:
    """The names that are most like one that is none: with what it left out, or of other families."""
    match = _NAME.fullmatch(name)
    if match is not None and match["family"] in FAMILIES:
        family = match["family"]
        return [f"{family}_{match['alpha'] or 1.0}_{match['resolution'] or FAMILIES[family].resolution}", family]
    full = [f"{name}_1.0_{family.resolution}" for name, family in FAMILIES.items() if not name.startswith("efficient")]
    return get_close_matches(name.lower(), [*FAMILIES, *full], n=4)


def named_layers(name: str, weights: WeightsArgument = None, seed: int = 0) -> tuple[str, list[Layer]] | None:
    """(full name, layers) of the network that a name means; None for what names no family.

    A name is a family's, then ``_alpha_resolution`` or nothing, for 1.0 and the family's own size. EfficientNet-Lite's
    widths go by the family's number, so there ``_resolution`` will do.
    Raises what the family's builder raises for an alpha, a resolution or weights that do not fit.
    """
    match = _NAME.fullmatch(name)
    family = FAMILIES.get(match["family"]) if match else None
    if match is None or family is None:
        return None
    lite = match["family"].startswith("efficientnet")
    if bool(match["alpha"]) != bool(match["resolution"]) and not (lite and match["resolution"]):
        return None
    alpha = float(match["alpha"] or 1.0)
    resolution = int(match["resolution"] or family.resolution)
    layers = family.layers(alpha=alpha, resolution=resolution, weights=weights, seed=seed)
    return (name if lite else f"{match['family']}_{alpha}_{resolution}"), layers
