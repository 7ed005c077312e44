"""MobileNet V3 (Howard et al., "Searching for MobileNetV3", arXiv 1905.02244), Large and Small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

from sepconv.conventions import TORCHVISION
from sepconv.graph import ActivationName, Layer
from sepconv.graph.base import is_choice
from sepconv.models.builder import check_alpha, check_classes, round_to_eight, stem_channels
from sepconv.models.family import LayerOptions, ModelOptions, compile_family, open_builder
from sepconv.models.inverted_residual import Prefixes, Stage, add_block, blocks, parts_of, timm_prefixes
from sepconv.models.weights import NamingScheme, WeightsArgument, open_weights

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from sepconv.model import Model

Size = Literal["large", "small"]
# A block's kernel, expanded channels, channels, squeeze-and-excitation, activation and stride.
Row = tuple[int, int, int, bool, ActivationName, int]

STEM_CHANNELS = 16
SQUEEZE = 0.25
# Tables 1 and 2 of the paper, in groups that begin with a stride of 2 or a new width, as timm counts them.
LARGE: tuple[tuple[Row, ...], ...] = (
    ((3, 16, 16, False, "relu", 1),),
    ((3, 64, 24, False, "relu", 2), (3, 72, 24, False, "relu", 1)),
    ((5, 72, 40, True, "relu", 2), (5, 120, 40, True, "relu", 1), (5, 120, 40, True, "relu", 1)),
    (
        (3, 240, 80, False, "hard_swish", 2), (3, 200, 80, False, "hard_swish", 1),
        (3, 184, 80, False, "hard_swish", 1), (3, 184, 80, False, "hard_swish", 1),
    ),
    ((3, 480, 112, True, "hard_swish", 1), (3, 672, 112, True, "hard_swish", 1)),
    ((5, 672, 160, True, "hard_swish", 2), (5, 960, 160, True, "hard_swish", 1), (5, 960, 160, True, "hard_swish", 1)),
)  # fmt: skip
SMALL: tuple[tuple[Row, ...], ...] = (
    ((3, 16, 16, True, "relu", 2),),
    ((3, 72, 24, False, "relu", 2), (3, 88, 24, False, "relu", 1)),
    ((5, 96, 40, True, "hard_swish", 2), (5, 240, 40, True, "hard_swish", 1), (5, 240, 40, True, "hard_swish", 1)),
    ((5, 120, 48, True, "hard_swish", 1), (5, 144, 48, True, "hard_swish", 1)),
    ((5, 288, 96, True, "hard_swish", 2), (5, 576, 96, True, "hard_swish", 1), (5, 576, 96, True, "hard_swish", 1)),
)
TABLES: dict[Size, tuple[tuple[Row, ...], ...]] = {"large": LARGE, "small": SMALL}
HEAD_CHANNELS: dict[Size, int] = {"large": 960, "small": 576}
HIDDEN_CHANNELS: dict[Size, int] = {"large": 1280, "small": 1024}  # never made narrower


def mobilenet_v3_large(
    alpha: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    weights: WeightsArgument = None,
    seed: int = 0,
    *,
    minimalistic: bool = False,
    fixed_stem: bool = False,
    **options: Unpack[ModelOptions],
) -> Model:
    """MobileNet V3 Large: float32 ``[n, resolution, resolution, 3]`` to logits ``[n, classes]``.

    minimalistic: without squeeze-and-excitation, hard-swish and windows of 5x5, as TensorFlow publishes it too.
    fixed_stem: the first convolution has its 16 channels at every width, as timm's networks below 0.75 do.
    weights: names are torchvision's, timm's or our own. The other arguments: see :mod:`sepconv.models.family`.
    """
    return _model("large", alpha, resolution, classes, weights, seed, minimalistic, fixed_stem, options)


def mobilenet_v3_small(
    alpha: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    weights: WeightsArgument = None,
    seed: int = 0,
    *,
    minimalistic: bool = False,
    fixed_stem: bool = False,
    **options: Unpack[ModelOptions],
) -> Model:
    """MobileNet V3 Small; see :func:`mobilenet_v3_large`."""
    return _model("small", alpha, resolution, classes, weights, seed, minimalistic, fixed_stem, options)


def mobilenet_v3_layers(
    size: Size,
    alpha: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    weights: WeightsArgument = None,
    seed: int = 0,
    *,
    minimalistic: bool = False,
    fixed_stem: bool = False,
    **options: Unpack[LayerOptions],
) -> list[Layer]:
    """The layers of :func:`mobilenet_v3_large` or :func:`mobilenet_v3_small`."""
    if not is_choice(size, get_args(Size)):
        raise ValueError(f"size was {size!r}, must be one of {', '.join(get_args(Size))}")
    alpha = check_alpha(alpha)
    classes = check_classes(classes)
    source = open_weights(weights, seed, naming_schemes(size, minimalistic))
    net = open_builder(resolution, source, options, epsilon=1e-3)
    swish: ActivationName = "relu" if minimalistic else "hard_swish"
    net.conv("stem", 3, stem_channels(STEM_CHANNELS, alpha, fixed_stem), stride=2, activation=swish)
    for block in blocks(stages(size, minimalistic)):
        add_block(net, block, round_to_eight(block.channels * alpha))
    net.conv("head", 1, round_to_eight(HEAD_CHANNELS[size] * alpha), activation=swish)
    net.pool()
    net.fully_connected("hidden", round_to_eight(HIDDEN_CHANNELS[size] * max(1.0, alpha)), swish)
    net.fully_connected("classifier", classes)
    return net.finish()


def stages(size: Size, minimalistic: bool) -> list[list[Stage]]:
    """The rows of the paper's table. An expansion is relative to the block's input, so that alpha carries through."""
    result: list[list[Stage]] = []
    before = STEM_CHANNELS
    for group in TABLES[size]:
        rows = []
        for kernel, expanded, channels, squeezed, activation, stride in group:
            rows.append(
                Stage(
                    expansion=expanded / before,
                    channels=channels,
                    repeats=1,
                    stride=stride,
                    kernel=3 if minimalistic else kernel,
                    activation="relu" if minimalistic else activation,
                    squeeze=SQUEEZE if squeezed and not minimalistic else 0.0,
                )
            )
            before = channels
        result.append(rows)
    return result


def naming_schemes(size: Size, minimalistic: bool) -> list[NamingScheme]:
    """torchvision's and timm's names, and how each trained its weights."""
    if not isinstance(minimalistic, bool):
        raise TypeError(f"minimalistic was {minimalistic!r}, must be True or False")
    table = stages(size, minimalistic)
    last = len(table)
    timm = timm_prefixes(table) | {
        "head": (f"blocks.{last}.0.conv", f"blocks.{last}.0.bn1"),
        "hidden": ("conv_head", None),
    }
    return [
        NamingScheme(
            name="torchvision",
            prefixes=_torchvision_prefixes(table),
            padding="torch",
            epsilon=1e-3,
            convention=TORCHVISION,
        ),
        NamingScheme(name="timm", prefixes=timm, padding="torch", epsilon=1e-5, convention=TORCHVISION),
    ]


def _torchvision_prefixes(table: Sequence[Sequence[Stage]]) -> Prefixes:
    """torchvision's names: a block is a sequence of what it has of expansion, depthwise, squeeze and projection."""
    prefixes: Prefixes = {
        "stem": ("features.0.0", "features.0.1"), "hidden": ("classifier.0", None), "classifier": ("classifier.3", None)
    }  # fmt: skip
    number = 0
    for block in blocks(table):
        number = block.number
        *first, project = parts_of(block)
        parts = [*first, *(["squeeze"] if block.row.squeeze else []), project]
        for place, part in enumerate(parts):
            module = f"features.{number}.block.{place}"
            if part == "squeeze":
                prefixes[f"block{number}.squeeze.reduce"] = (f"{module}.fc1", None)
                prefixes[f"block{number}.squeeze.expand"] = (f"{module}.fc2", None)
            else:
                prefixes[f"block{number}.{part}"] = (f"{module}.0", f"{module}.1")
    prefixes["head"] = (f"features.{number + 1}.0", f"features.{number + 1}.1")
    return prefixes


def _model(
    size: Size,
    alpha: float,
    resolution: int,
    classes: int,
    weights: WeightsArgument,
    seed: int,
    minimalistic: bool,
    fixed_stem: bool,
    options: ModelOptions,
) -> Model:
    schemes = naming_schemes(size, minimalistic)
    kind = f"{size}_minimalistic" if minimalistic else size
    return compile_family(
        mobilenet_v3_layers,
        schemes,
        f"mobilenet_v3_{kind}_{alpha}_{resolution}",
        weights,
        seed,
        options,
        size=size,
        alpha=alpha,
        resolution=resolution,
        classes=classes,
        minimalistic=minimalistic,
        fixed_stem=fixed_stem,
    )
