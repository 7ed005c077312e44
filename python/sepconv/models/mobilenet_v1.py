"""MobileNet V1 (Howard et al., "MobileNets", arXiv 1704.04861), with the paper's two baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from sepconv.conventions import TIMM, Convention
from sepconv.graph import Layer
from sepconv.graph.base import is_choice
from sepconv.models.builder import NetworkBuilder, check_alpha, compile_model, resolve_resolution
from sepconv.models.weights import NamingScheme, PaddingRule, WeightsArgument, open_weights

if TYPE_CHECKING:
    from sepconv.model import Model

Variant = Literal["separable", "full", "shallow"]

STEM_CHANNELS = 32
# Table 1 of the paper: a block's channels, and the stride of its 3x3. (The paper prints stride 2 for the last one too,
# but its sizes, 7x7 in and out, are those of stride 1.)
BLOCKS = (
    (64, 1),
    (128, 2), (128, 1),
    (256, 2), (256, 1),
    (512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1),
    (1024, 2), (1024, 1),
)  # fmt: skip
SHALLOW_BLOCKS = tuple(block for block in BLOCKS if block != (512, 1))  # without the five at 14x14x512


def mobilenet_v1(
    alpha: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    weights: WeightsArgument = None,
    seed: int = 0,
    *,
    rho: float | None = None,
    variant: Variant = "separable",
    padding: PaddingRule | None = None,
    batch_norm_epsilon: float | None = None,
    name: str | None = None,
    convention: Convention | None = None,
) -> Model:
    """MobileNet V1: float32 ``[n, resolution, resolution, 3]`` to logits ``[n, classes]``.

    alpha: width multiplier; a layer of c channels gets int(c * alpha).
    resolution, rho: the input's height and width, at least 32; or rho, for round(224 * rho).
    weights: None for He-normal ones made from ``seed``; a file (.pth, .safetensors, .npz); or a mapping of names to
        arrays. Names are timm's or our own (see :mod:`sepconv.models.weights`).
    variant: "separable"; or the paper's baselines: "full", with full 3x3 convolutions in place of separable ones, and
        "shallow", without the five blocks of 14x14x512.
    padding: "same" is TensorFlow's rule, "torch" pads both sides alike. None takes what the weights were trained with,
        "same" for seeded ones and our own names.
    batch_norm_epsilon: None takes what the weights were trained with, else 1e-3.
    convention: how photographs become inputs; None takes that of the weights.

    Raises ValueError or TypeError for an argument out of range, and for weights that do not fit, listing their names.
    """
    source = open_weights(weights, seed, naming_schemes(variant))
    layers = mobilenet_v1_layers(
        alpha, resolution, classes, source, rho=rho, variant=variant, padding=padding,
        batch_norm_epsilon=batch_norm_epsilon,
    )  # fmt: skip
    if name is None:
        suffix = "" if variant == "separable" else f"_{variant}"
        name = f"mobilenet_v1_{alpha}_{resolve_resolution(resolution, rho)}{suffix}"
    return compile_model(layers, source, name=name, convention=convention)


def mobilenet_v1_layers(
    alpha: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    weights: WeightsArgument = None,
    seed: int = 0,
    *,
    rho: float | None = None,
    variant: Variant = "separable",
    padding: PaddingRule | None = None,
    batch_norm_epsilon: float | None = None,
) -> list[Layer]:
    """The layers of :func:`mobilenet_v1`, which see for the arguments."""
    alpha = check_alpha(alpha)
    source = open_weights(weights, seed, naming_schemes(variant))
    net = NetworkBuilder(
        resolve_resolution(resolution, rho), source, padding=padding, epsilon=batch_norm_epsilon, default=1e-3
    )
    add_features(net, alpha, variant)
    net.classifier(classes)
    return net.finish()


def add_features(net: NetworkBuilder, alpha: float, variant: Variant = "separable") -> None:
    """All that comes before the classifier."""
    net.conv("stem", 3, _scaled(STEM_CHANNELS, alpha), stride=2)
    for index, (channels, stride) in enumerate(_blocks(variant), start=1):
        if variant == "full":
            net.conv(f"block{index}.conv", 3, _scaled(channels, alpha), stride)
        else:
            net.depthwise(f"block{index}.depthwise", 3, stride)
            net.conv(f"block{index}.pointwise", 1, _scaled(channels, alpha))


def _scaled(channels: int, alpha: float) -> int:
    scaled = int(channels * alpha)
    if scaled < 1:
        raise ValueError(f"alpha was {alpha!r}, must leave at least 1 of {channels} channels")
    return scaled


def _blocks(variant: Variant) -> tuple[tuple[int, int], ...]:
    if not is_choice(variant, get_args(Variant)):
        raise ValueError(f"variant was {variant!r}, must be one of {', '.join(get_args(Variant))}")
    return SHALLOW_BLOCKS if variant == "shallow" else BLOCKS


def naming_schemes(variant: Variant) -> list[NamingScheme]:
    """timm's names, which count blocks within stages of equal channels; it has no network with full convolutions."""
    table = _blocks(variant)
    if variant == "full":
        return []
    prefixes: dict[str, tuple[str, str | None]] = {"stem": ("conv_stem", "bn1"), "classifier": ("classifier", None)}
    stage, place, previous = -1, 0, None
    for index, (channels, _) in enumerate(table, start=1):
        stage, place = (stage, place + 1) if channels == previous else (stage + 1, 0)
        previous = channels
        block = f"blocks.{stage}.{place}"
        prefixes[f"block{index}.depthwise"] = (f"{block}.conv_dw", f"{block}.bn1")
        prefixes[f"block{index}.pointwise"] = (f"{block}.conv_pw", f"{block}.bn2")
    return [NamingScheme(name="timm", prefixes=prefixes, padding="torch", epsilon=1e-5, convention=TIMM)]
