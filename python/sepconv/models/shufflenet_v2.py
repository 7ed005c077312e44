"""ShuffleNet V2 (Ma et al., "Practical Guidelines for Efficient CNN Architecture Design", arXiv 1807.11164)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sepconv.conventions import TORCHVISION
from sepconv.graph import Layer
from sepconv.graph.base import is_finite
from sepconv.models.builder import NetworkBuilder, check_classes
from sepconv.models.family import LayerOptions, ModelOptions, compile_family, open_builder
from sepconv.models.inverted_residual import Prefixes
from sepconv.models.weights import NamingScheme, WeightsArgument, open_weights

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from sepconv.model import Model

STEM_CHANNELS = 24
REPEATS = (4, 8, 4)
# Table 5 of the paper: the channels of the three stages and of the last convolution, by width.
WIDTHS: dict[float, tuple[int, int, int, int]] = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}


def shufflenet_v2(
    alpha: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    weights: WeightsArgument = None,
    seed: int = 0,
    **options: Unpack[ModelOptions],
) -> Model:
    """ShuffleNet V2: float32 ``[n, resolution, resolution, 3]`` to logits ``[n, classes]``.

    alpha: 0.5, 1.0, 1.5 or 2.0; the paper gives each its own widths.
    weights: names are torchvision's or our own. The other arguments: see :mod:`sepconv.models.family`.
    """
    _check_width(alpha)
    return compile_family(
        shufflenet_v2_layers,
        naming_schemes(),
        f"shufflenet_v2_{float(alpha)}_{resolution}",
        weights,
        seed,
        options,
        alpha=alpha,
        resolution=resolution,
        classes=classes,
    )


def shufflenet_v2_layers(
    alpha: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    weights: WeightsArgument = None,
    seed: int = 0,
    **options: Unpack[LayerOptions],
) -> list[Layer]:
    """The layers of :func:`shufflenet_v2`."""
    _check_width(alpha)
    check_classes(classes)
    source = open_weights(weights, seed, naming_schemes())
    net = open_builder(resolution, source, options, epsilon=1e-5)
    *widths, head = WIDTHS[alpha]
    net.conv("stem", 3, STEM_CHANNELS, stride=2, activation="relu")
    net.max_pool("stem.pool", 3, 2)
    for stage, place in _units():
        name = f"stage{stage + 2}.unit{place + 1}"
        (_add_unit if place else _add_first_unit)(net, name, widths[stage] // 2)
    net.conv("head", 1, head, activation="relu")
    net.classifier(classes)
    return net.finish()


def naming_schemes() -> list[NamingScheme]:
    """torchvision's names: each branch is a sequence of convolutions, batch norms and activations."""
    prefixes: Prefixes = {
        "stem": ("conv1.0", "conv1.1"), "head": ("conv5.0", "conv5.1"), "classifier": ("fc", None)
    }  # fmt: skip
    for stage, place in _units():
        ours, theirs = f"stage{stage + 2}.unit{place + 1}", f"stage{stage + 2}.{place}"
        for part, module in {"shortcut.depthwise": 0, "shortcut.project": 2}.items():
            prefixes[f"{ours}.{part}"] = (f"{theirs}.branch1.{module}", f"{theirs}.branch1.{module + 1}")
        for part, module in {"expand": 0, "depthwise": 3, "project": 5}.items():
            prefixes[f"{ours}.{part}"] = (f"{theirs}.branch2.{module}", f"{theirs}.branch2.{module + 1}")
    return [NamingScheme(name="torchvision", prefixes=prefixes, padding="torch", epsilon=1e-5, convention=TORCHVISION)]


def _check_width(alpha: float) -> None:
    if not is_finite(alpha) or alpha not in WIDTHS:
        raise ValueError(f"alpha was {alpha!r}, must be one of {', '.join(map(str, WIDTHS))}")


def _units() -> Iterator[tuple[int, int]]:
    """(stage from 0, place in the stage) of each unit."""
    return ((stage, place) for stage, repeats in enumerate(REPEATS) for place in range(repeats))


def _add_first_unit(net: NetworkBuilder, name: str, half: int) -> None:
    """Both branches read all channels at half the resolution, so that there are twice as many."""
    x = net.last
    net.depthwise(f"{name}.shortcut.depthwise", 3, 2, "none")
    net.conv(f"{name}.shortcut.project", 1, half, activation="relu")
    shortcut = net.last
    net.resume(x)
    _join(net, name, shortcut, half, stride=2)


def _add_unit(net: NetworkBuilder, name: str, half: int) -> None:
    """Half of the channels stay as they are."""
    x = net.last
    net.channel_slice(f"{name}.kept", 0, half)
    kept = net.last
    net.resume(x)
    net.channel_slice(f"{name}.rest", half, 2 * half)
    _join(net, name, kept, half, stride=1)


def _join(net: NetworkBuilder, name: str, other: str, half: int, stride: int) -> None:
    net.conv(f"{name}.expand", 1, half, activation="relu")
    net.depthwise(f"{name}.depthwise", 3, stride, "none")
    net.conv(f"{name}.project", 1, half, activation="relu")
    net.concat(f"{name}.concat", other, net.last)
    net.channel_shuffle(f"{name}.shuffle", 2)
