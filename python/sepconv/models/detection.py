"""Networks of several outputs on MobileNet V1 or V2: SSDLite's predictors, and a feature pyramid.

As far as convolution goes: anchors, the decoding of boxes and the suppression of all but the best are not here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from sepconv.graph import Layer
from sepconv.graph.base import is_choice
from sepconv.models.builder import NetworkBuilder, check_alpha, check_classes, check_count, round_to_eight
from sepconv.models.family import LayerOptions, ModelOptions, compile_family, open_builder
from sepconv.models.mobilenet_v1 import add_features as add_v1_features
from sepconv.models.mobilenet_v2 import add_features as add_v2_features
from sepconv.models.weights import WeightsArgument, open_weights

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from sepconv.model import Model

Backbone = Literal["mobilenet_v1", "mobilenet_v2"]

# The results that predictors read, at strides 16 and 32 (arXiv 1801.04381, section 6.2), then the layers added to them.
SSD_SOURCES: dict[Backbone, tuple[str, str]] = {
    "mobilenet_v1": ("block11.pointwise", "block13.pointwise"),
    "mobilenet_v2": ("block14.expand", "head"),
}
EXTRA_CHANNELS = (512, 256, 256, 128)
ANCHORS = (3, 6, 6, 6, 6, 6)  # for each pixel of each result
# Strides 8, 16 and 32.
PYRAMID_SOURCES: dict[Backbone, tuple[str, str, str]] = {
    "mobilenet_v1": ("block5.pointwise", "block11.pointwise", "block13.pointwise"),
    "mobilenet_v2": ("block7.expand", "block14.expand", "head"),
}


def ssdlite(
    alpha: float = 1.0,
    resolution: int = 320,
    classes: int = 91,
    weights: WeightsArgument = None,
    seed: int = 0,
    *,
    backbone: Backbone = "mobilenet_v2",
    **options: Unpack[ModelOptions],
) -> Model:
    """SSDLite: float32 ``[n, resolution, resolution, 3]`` to ``boxes0``, ``classes0``, ... ``classes5``.

    ``boxes`` has four channels an anchor, ``classes`` as many as there are classes, the background among them.
    weights: our own names. The other arguments: see :mod:`sepconv.models.family`.
    """
    name = f"ssdlite_{backbone}_{alpha}_{resolution}"
    return compile_family(
        ssdlite_layers, [], name, weights, seed, options,
        alpha=alpha, resolution=resolution, classes=classes, backbone=backbone,
    )  # fmt: skip


def ssdlite_layers(
    alpha: float = 1.0,
    resolution: int = 320,
    classes: int = 91,
    weights: WeightsArgument = None,
    seed: int = 0,
    *,
    backbone: Backbone = "mobilenet_v2",
    **options: Unpack[LayerOptions],
) -> list[Layer]:
    """The layers of :func:`ssdlite`."""
    alpha, classes = check_alpha(alpha), check_classes(classes)
    net = _open_backbone(alpha, resolution, weights, seed, backbone, options)
    sources = [*SSD_SOURCES[backbone]]
    for number, channels in enumerate(EXTRA_CHANNELS, start=1):
        net.conv(f"extra{number}.reduce", 1, round_to_eight(channels * alpha / 2))
        net.depthwise(f"extra{number}.depthwise", 3, 2)
        net.conv(f"extra{number}.expand", 1, round_to_eight(channels * alpha))
        sources.append(net.last)
    for number, (source, anchors) in enumerate(zip(sources, ANCHORS, strict=True)):
        for what, channels in (("boxes", 4), ("classes", classes)):
            net.resume(source)
            net.depthwise(f"{what}{number}.depthwise", 3)
            net.conv(f"{what}{number}", 1, anchors * channels, activation="none", batch_norm=False)
    return net.finish()


def feature_pyramid(
    alpha: float = 1.0,
    resolution: int = 320,
    channels: int = 128,
    weights: WeightsArgument = None,
    seed: int = 0,
    *,
    backbone: Backbone = "mobilenet_v1",
    **options: Unpack[ModelOptions],
) -> Model:
    """A feature pyramid: float32 ``[n, resolution, resolution, 3]`` to ``level3`` ... ``level7``, at strides 8 to 128.

    Each level is what the backbone gives there and the level above, repeated to its size, together; all have
    ``channels`` channels. Convolutions of 3x3 are separable, as in FPNLite.
    weights: our own names. The other arguments: see :mod:`sepconv.models.family`.
    """
    name = f"feature_pyramid_{backbone}_{alpha}_{resolution}"
    return compile_family(
        feature_pyramid_layers, [], name, weights, seed, options,
        alpha=alpha, resolution=resolution, channels=channels, backbone=backbone,
    )  # fmt: skip


def feature_pyramid_layers(
    alpha: float = 1.0,
    resolution: int = 320,
    channels: int = 128,
    weights: WeightsArgument = None,
    seed: int = 0,
    *,
    backbone: Backbone = "mobilenet_v1",
    **options: Unpack[LayerOptions],
) -> list[Layer]:
    """The layers of :func:`feature_pyramid`."""
    alpha, channels = check_alpha(alpha), check_count("channels", channels)
    net = _open_backbone(alpha, resolution, weights, seed, backbone, options)
    above = ""
    tops: dict[int, str] = {}
    for level, source in zip((5, 4, 3), reversed(PYRAMID_SOURCES[backbone]), strict=True):
        net.resume(source)
        net.conv(f"lateral{level}", 1, channels, activation="none")
        if above:
            lateral, (height, width, _) = net.last, net.shape
            net.resume(above)
            net.upsample(f"above{level}", (height, width))
            net.add(f"sum{level}", lateral)
        above = tops[level] = net.last
    for level in (6, 7):
        net.resume(tops[level - 1])
        net.depthwise(f"down{level}.depthwise", 3, 2)
        net.conv(f"down{level}", 1, channels)
        tops[level] = net.last
    for level in sorted(tops):
        net.resume(tops[level])
        net.depthwise(f"level{level}.depthwise", 3)
        net.conv(f"level{level}", 1, channels)
    return net.finish()


def _open_backbone(
    alpha: float, resolution: int, weights: WeightsArgument, seed: int, backbone: Backbone, options: LayerOptions
) -> NetworkBuilder:
    if not is_choice(backbone, get_args(Backbone)):
        raise ValueError(f"backbone was {backbone!r}, must be one of {', '.join(get_args(Backbone))}")
    net = open_builder(resolution, open_weights(weights, seed, []), options, epsilon=1e-3)
    (add_v1_features if backbone == "mobilenet_v1" else add_v2_features)(net, alpha)
    return net
