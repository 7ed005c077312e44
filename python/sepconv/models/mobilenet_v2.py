"""MobileNet V2 (Sandler et al., "Inverted Residuals and Linear Bottlenecks", arXiv 1801.04381)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sepconv.conventions import TORCHVISION, Convention
from sepconv.graph import Layer
from sepconv.models.builder import NetworkBuilder, check_alpha, compile_model, resolve_resolution, round_to_eight
from sepconv.models.inverted_residual import Prefixes, Stage, add_block, blocks, timm_prefixes
from sepconv.models.weights import NamingScheme, PaddingRule, WeightsArgument, open_weights

if TYPE_CHECKING:
    from sepconv.model import Model

STEM_CHANNELS = 32
HEAD_CHANNELS = 1280  # never made narrower
# Table 2 of the paper.
STAGES = (
    Stage(expansion=1, channels=16, repeats=1, stride=1),
    Stage(expansion=6, channels=24, repeats=2, stride=2),
    Stage(expansion=6, channels=32, repeats=3, stride=2),
    Stage(expansion=6, channels=64, repeats=4, stride=2),
    Stage(expansion=6, channels=96, repeats=3, stride=1),
    Stage(expansion=6, channels=160, repeats=3, stride=2),
    Stage(expansion=6, channels=320, repeats=1, stride=1),
)


def mobilenet_v2(
    alpha: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    weights: WeightsArgument = None,
    seed: int = 0,
    *,
    rho: float | None = None,
    padding: PaddingRule | None = None,
    batch_norm_epsilon: float | None = None,
    name: str | None = None,
    convention: Convention | None = None,
) -> Model:
    """MobileNet V2: float32 ``[n, resolution, resolution, 3]`` to logits ``[n, classes]``.

    alpha: width multiplier; a layer of c channels gets the multiple of 8 nearest to c * alpha, not under 0.9 of it.
    weights: as for :func:`sepconv.models.mobilenet_v1`; names are torchvision's, timm's or our own.
    The other arguments and the errors are those of :func:`sepconv.models.mobilenet_v1`.
    """
    source = open_weights(weights, seed, naming_schemes())
    layers = mobilenet_v2_layers(
        alpha, resolution, classes, source, rho=rho, padding=padding, batch_norm_epsilon=batch_norm_epsilon
    )
    if name is None:
        name = f"mobilenet_v2_{alpha}_{resolve_resolution(resolution, rho)}"
    return compile_model(layers, source, name=name, convention=convention)


def mobilenet_v2_layers(
    alpha: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    weights: WeightsArgument = None,
    seed: int = 0,
    *,
    rho: float | None = None,
    padding: PaddingRule | None = None,
    batch_norm_epsilon: float | None = None,
) -> list[Layer]:
    """The layers of :func:`mobilenet_v2`, which see for the arguments."""
    alpha = check_alpha(alpha)
    source = open_weights(weights, seed, naming_schemes())
    net = NetworkBuilder(
        resolve_resolution(resolution, rho), source, padding=padding, epsilon=batch_norm_epsilon, default=1e-3
    )
    add_features(net, alpha)
    net.classifier(classes)
    return net.finish()


def add_features(net: NetworkBuilder, alpha: float) -> None:
    """All that comes before the classifier."""
    net.conv("stem", 3, round_to_eight(STEM_CHANNELS * alpha), stride=2)
    for block in blocks(STAGES):
        add_block(net, block, round_to_eight(block.channels * alpha))
    net.conv("head", 1, round_to_eight(HEAD_CHANNELS * max(1.0, alpha)))


def naming_schemes() -> list[NamingScheme]:
    """torchvision's and timm's names, and how each trained its weights."""
    return [
        NamingScheme(
            name="torchvision",
            prefixes=_torchvision_prefixes(),
            padding="torch",
            epsilon=1e-5,
            convention=TORCHVISION,
        ),
        NamingScheme(
            name="timm", prefixes=timm_prefixes(STAGES), padding="torch", epsilon=1e-5, convention=TORCHVISION
        ),
    ]


def _torchvision_prefixes() -> Prefixes:
    """torchvision's names: expansion and depthwise are modules of two, a projection and its batch norm are bare."""
    prefixes: Prefixes = {"stem": ("features.0.0", "features.0.1"), "classifier": ("classifier.1", None)}
    number = 0
    for block in blocks(STAGES):
        number = block.number
        expanded = ["depthwise"] if block.expansion == 1 else ["expand", "depthwise"]
        for place, part in enumerate(expanded):
            module = f"features.{number}.conv.{place}"
            prefixes[f"block{number}.{part}"] = (f"{module}.0", f"{module}.1")
        bare = len(expanded)
        prefixes[f"block{number}.project"] = (
            f"features.{number}.conv.{bare}", f"features.{number}.conv.{bare + 1}"
        )  # fmt: skip
    prefixes["head"] = (f"features.{number + 1}.0", f"features.{number + 1}.1")
    return prefixes
