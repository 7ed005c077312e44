"""MobileNet V4's convolutional networks (Qin et al., "MobileNetV4", arXiv 2404.10518), Small and Medium.

They are made of the paper's universal inverted bottleneck: an optional depthwise convolution before the expansion, and
an optional one after it. With neither it is a feed-forward block, with the first alone a ConvNeXt block, with the
second alone an inverted residual.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from sepconv.conventions import TORCHVISION
from sepconv.graph import Layer
from sepconv.graph.base import is_choice
from sepconv.models.builder import NetworkBuilder, check_alpha, check_classes, round_to_eight, stem_channels
from sepconv.models.family import LayerOptions, ModelOptions, compile_family, open_builder
from sepconv.models.inverted_residual import Prefixes
from sepconv.models.weights import NamingScheme, WeightsArgument, open_weights

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from sepconv.model import Model

Size = Literal["small", "medium"]

RESOLUTIONS: dict[Size, int] = {"small": 224, "medium": 256}
STEM_CHANNELS = 32
HEAD_CHANNELS = 960
HIDDEN_CHANNELS = 1280  # never made narrower


@dataclass(frozen=True)
class Conv:
    """A dense convolution."""

    kernel: int
    channels: int
    stride: int = 1


@dataclass(frozen=True)
class FusedBottleneck:
    """A dense 3x3 that expands, then a projection."""

    expansion: int
    channels: int
    stride: int


@dataclass(frozen=True)
class Bottleneck:
    """A universal inverted bottleneck: ``before`` and ``after`` are the windows of its depthwise ones, 0 for none."""

    before: int
    after: int
    expansion: int
    channels: int
    stride: int = 1


Row = Conv | FusedBottleneck | Bottleneck
# Tables 11 and 12 of the paper's appendix, a tuple for each resolution.
TABLES: dict[Size, tuple[tuple[Row, ...], ...]] = {
    "small": (
        (Conv(3, 32, 2), Conv(1, 32)),
        (Conv(3, 96, 2), Conv(1, 64)),
        (Bottleneck(5, 5, 3, 96, 2), *[Bottleneck(0, 3, 2, 96)] * 4, Bottleneck(3, 0, 4, 96)),
        (
            Bottleneck(3, 3, 6, 128, 2), Bottleneck(5, 5, 4, 128), Bottleneck(0, 5, 4, 128), Bottleneck(0, 5, 3, 128),
            Bottleneck(0, 3, 4, 128), Bottleneck(0, 3, 4, 128),
        ),
    ),
    "medium": (
        (FusedBottleneck(4, 48, 2),),
        (Bottleneck(3, 5, 4, 80, 2), Bottleneck(3, 3, 2, 80)),
        (
            Bottleneck(3, 5, 6, 160, 2), Bottleneck(3, 3, 4, 160), Bottleneck(3, 3, 4, 160), Bottleneck(3, 5, 4, 160),
            Bottleneck(3, 3, 4, 160), Bottleneck(3, 0, 4, 160), Bottleneck(0, 0, 2, 160), Bottleneck(3, 0, 4, 160),
        ),
        (
            Bottleneck(5, 5, 6, 256, 2), Bottleneck(5, 5, 4, 256), Bottleneck(3, 5, 4, 256), Bottleneck(3, 5, 4, 256),
            Bottleneck(0, 0, 4, 256), Bottleneck(3, 0, 4, 256), Bottleneck(3, 5, 2, 256), Bottleneck(5, 5, 4, 256),
            Bottleneck(0, 0, 4, 256), Bottleneck(0, 0, 4, 256), Bottleneck(5, 0, 2, 256),
        ),
    ),
}  # fmt: skip


def mobilenet_v4_conv_small(
    alpha: float = 1.0,
    resolution: int = RESOLUTIONS["small"],
    classes: int = 1000,
    weights: WeightsArgument = None,
    seed: int = 0,
    *,
    fixed_stem: bool = False,
    **options: Unpack[ModelOptions],
) -> Model:
    """MobileNetV4-Conv-S: float32 ``[n, resolution, resolution, 3]`` to logits ``[n, classes]``.

    fixed_stem: the first convolution has its 32 channels at every width, as timm's networks below 1 do.
    weights: names are timm's or our own. The other arguments: see :mod:`sepconv.models.family`.
    """
    return _model("small", alpha, resolution, classes, weights, seed, fixed_stem, options)


def mobilenet_v4_conv_medium(
    alpha: float = 1.0,
    resolution: int = RESOLUTIONS["medium"],
    classes: int = 1000,
    weights: WeightsArgument = None,
    seed: int = 0,
    *,
    fixed_stem: bool = False,
    **options: Unpack[ModelOptions],
) -> Model:
    """MobileNetV4-Conv-M; see :func:`mobilenet_v4_conv_small`."""
    return _model("medium", alpha, resolution, classes, weights, seed, fixed_stem, options)


def mobilenet_v4_conv_layers(
    size: Size,
    alpha: float = 1.0,
    resolution: int | None = None,
    classes: int = 1000,
    weights: WeightsArgument = None,
    seed: int = 0,
    *,
    fixed_stem: bool = False,
    **options: Unpack[LayerOptions],
) -> list[Layer]:
    """The layers of :func:`mobilenet_v4_conv_small` or :func:`mobilenet_v4_conv_medium`; None: its resolution."""
    alpha = check_alpha(alpha)
    classes = check_classes(classes)
    source = open_weights(weights, seed, naming_schemes(size))
    net = open_builder(RESOLUTIONS[size] if resolution is None else resolution, source, options, epsilon=1e-3)
    net.conv("stem", 3, stem_channels(STEM_CHANNELS, alpha, fixed_stem), stride=2, activation="relu")
    for number, _, _, row in _blocks(size):
        _add_block(net, f"block{number}", row, round_to_eight(row.channels * alpha))
    net.conv("head", 1, round_to_eight(HEAD_CHANNELS * alpha), activation="relu")
    net.pool()
    net.conv("hidden", 1, round_to_eight(HIDDEN_CHANNELS * max(1.0, alpha)), activation="relu")
    net.fully_connected("classifier", classes)
    return net.finish()


def naming_schemes(size: Size) -> list[NamingScheme]:
    """timm's names: ``blocks``, a sequence of stages, of which the last is the head's convolution."""
    if not is_choice(size, get_args(Size)):
        raise ValueError(f"size was {size!r}, must be one of {', '.join(get_args(Size))}")
    last = len(TABLES[size])
    prefixes: Prefixes = {
        "stem": ("conv_stem", "bn1"),
        "head": (f"blocks.{last}.0.conv", f"blocks.{last}.0.bn1"),
        "hidden": ("conv_head", "norm_head"),
        "classifier": ("classifier", None),
    }
    for number, stage, place, row in _blocks(size):
        ours, theirs = f"block{number}", f"blocks.{stage}.{place}"
        match row:
            case Conv():
                prefixes[f"{ours}.conv"] = (f"{theirs}.conv", f"{theirs}.bn1")
            case FusedBottleneck():
                prefixes[f"{ours}.expand"] = (f"{theirs}.conv_exp", f"{theirs}.bn1")
                prefixes[f"{ours}.project"] = (f"{theirs}.conv_pwl", f"{theirs}.bn2")
            case Bottleneck():
                parts = {"before": "dw_start", "expand": "pw_exp", "after": "dw_mid", "project": "pw_proj"}
                for part, module in parts.items():
                    prefixes[f"{ours}.{part}"] = (f"{theirs}.{module}.conv", f"{theirs}.{module}.bn")
    return [NamingScheme(name="timm", prefixes=prefixes, padding="torch", epsilon=1e-5, convention=TORCHVISION)]


def _blocks(size: Size) -> Iterator[tuple[int, int, int, Row]]:
    """(number from 1, stage, place in the stage, row) of each block."""
    number = 0
    for stage, rows in enumerate(TABLES[size]):
        for place, row in enumerate(rows):
            number += 1
            yield number, stage, place, row


def _add_block(net: NetworkBuilder, name: str, row: Row, channels: int) -> None:
    shortcut, shape = net.last, net.shape
    match row:
        case Conv():
            net.conv(f"{name}.conv", row.kernel, channels, row.stride, "relu")
            return
        case FusedBottleneck():
            net.conv(f"{name}.expand", 3, round_to_eight(shape[2] * row.expansion), row.stride, "relu")
        case Bottleneck():
            if row.before:
                net.depthwise(f"{name}.before", row.before, 1 if row.after else row.stride, "none")
            net.conv(f"{name}.expand", 1, round_to_eight(shape[2] * row.expansion), activation="relu")
            if row.after:
                net.depthwise(f"{name}.after", row.after, row.stride, "relu")
    net.conv(f"{name}.project", 1, channels, activation="none")
    if row.stride == 1 and channels == shape[2]:
        net.add(f"{name}.add", shortcut)


def _model(
    size: Size,
    alpha: float,
    resolution: int,
    classes: int,
    weights: WeightsArgument,
    seed: int,
    fixed_stem: bool,
    options: ModelOptions,
) -> Model:
    return compile_family(
        mobilenet_v4_conv_layers,
        naming_schemes(size),
        f"mobilenet_v4_conv_{size}_{alpha}_{resolution}",
        weights,
        seed,
        options,
        size=size,
        alpha=alpha,
        resolution=resolution,
        classes=classes,
        fixed_stem=fixed_stem,
    )
