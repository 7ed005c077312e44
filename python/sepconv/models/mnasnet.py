"""MnasNet (Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for Mobile", arXiv 1807.11626)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from sepconv.conventions import TORCHVISION
from sepconv.graph import Layer
from sepconv.graph.base import is_choice
from sepconv.models.builder import check_alpha, round_to_eight
from sepconv.models.family import LayerOptions, ModelOptions, compile_family, open_builder
from sepconv.models.inverted_residual import Prefixes, Stage, add_block, blocks, parts_of, timm_prefixes
from sepconv.models.weights import NamingScheme, WeightsArgument, open_weights

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from sepconv.model import Model

Variant = Literal["a1", "b1"]

STEM_CHANNELS = 32
HEAD_CHANNELS = 1280  # never made narrower


def _row(expansion: int, channels: int, repeats: int, stride: int, kernel: int, squeezed: bool = False) -> Stage:
    # Its squeeze-and-excitation is a quarter of the block's input wide.
    return Stage(
        expansion=expansion, channels=channels, repeats=repeats, stride=stride, kernel=kernel, activation="relu",
        squeeze=0.25 if squeezed else 0.0, squeeze_input=True, gate="sigmoid",
    )  # fmt: skip


# Figure 7 of the paper for A1; B1 is the search without squeeze-and-excitation.
STAGES: dict[Variant, tuple[Stage, ...]] = {
    "a1": (
        _row(1, 16, 1, 1, 3),
        _row(6, 24, 2, 2, 3),
        _row(3, 40, 3, 2, 5, True),
        _row(6, 80, 4, 2, 3),
        _row(6, 112, 2, 1, 3, True),
        _row(6, 160, 3, 2, 5, True),
        _row(6, 320, 1, 1, 3),
    ),
    "b1": (
        _row(1, 16, 1, 1, 3),
        _row(3, 24, 3, 2, 3),
        _row(3, 40, 3, 2, 5),
        _row(6, 80, 3, 2, 5),
        _row(6, 96, 2, 1, 3),
        _row(6, 192, 4, 2, 5),
        _row(6, 320, 1, 1, 3),
    ),
}


def mnasnet(
    alpha: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    weights: WeightsArgument = None,
    seed: int = 0,
    *,
    variant: Variant = "b1",
    **options: Unpack[ModelOptions],
) -> Model:
    """MnasNet: float32 ``[n, resolution, resolution, 3]`` to logits ``[n, classes]``.

    variant: "a1", with squeeze-and-excitation, or "b1", without, which is torchvision's.
    weights: names are torchvision's (b1), timm's or our own. The other arguments: see :mod:`sepconv.models.family`.
    """
    return compile_family(
        mnasnet_layers,
        naming_schemes(variant),
        f"mnasnet_{variant}_{alpha}_{resolution}",
        weights,
        seed,
        options,
        alpha=alpha,
        resolution=resolution,
        classes=classes,
        variant=variant,
    )


def mnasnet_layers(
    alpha: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    weights: WeightsArgument = None,
    seed: int = 0,
    *,
    variant: Variant = "b1",
    **options: Unpack[LayerOptions],
) -> list[Layer]:
    """The layers of :func:`mnasnet`."""
    alpha = check_alpha(alpha)
    source = open_weights(weights, seed, naming_schemes(variant))
    net = open_builder(resolution, source, options, epsilon=1e-3)
    net.conv("stem", 3, round_to_eight(STEM_CHANNELS * alpha), stride=2, activation="relu")
    for block in blocks(STAGES[variant]):
        skips = block.number > 1  # the first one never adds its input, even where alpha gives it as many channels
        add_block(net, block, round_to_eight(block.channels * alpha), shortcut=skips)
    net.conv("head", 1, HEAD_CHANNELS, activation="relu")
    net.classifier(classes)
    return net.finish()


def naming_schemes(variant: Variant) -> list[NamingScheme]:
    """torchvision's and timm's names, and how each trained its weights."""
    if not is_choice(variant, get_args(Variant)):
        raise ValueError(f"variant was {variant!r}, must be one of {', '.join(get_args(Variant))}")
    table = STAGES[variant]
    schemes = [
        NamingScheme(name="timm", prefixes=timm_prefixes(table), padding="torch", epsilon=1e-5, convention=TORCHVISION)
    ]
    if variant == "b1":
        prefixes = _torchvision_prefixes()
        schemes.append(
            NamingScheme(name="torchvision", prefixes=prefixes, padding="torch", epsilon=1e-5, convention=TORCHVISION)
        )
    return schemes


def _torchvision_prefixes() -> Prefixes:
    """torchvision's names: one sequence of all, the blocks' own sequences in it from its ninth place on."""
    prefixes: Prefixes = {
        "stem": ("layers.0", "layers.1"),
        "block1.depthwise": ("layers.3", "layers.4"),
        "block1.project": ("layers.6", "layers.7"),
        "head": ("layers.14", "layers.15"),
        "classifier": ("classifier.1", None),
    }
    for block in blocks(STAGES["b1"]):
        if block.number == 1:
            continue
        sequence = f"layers.{7 + block.stage}.{block.place}.layers"
        for place, part in enumerate(parts_of(block)):
            prefixes[f"block{block.number}.{part}"] = (f"{sequence}.{3 * place}", f"{sequence}.{3 * place + 1}")
    return prefixes
