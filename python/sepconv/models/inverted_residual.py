"""The body that MobileNet V2 and EfficientNet-Lite share: inverted residual blocks, and timm's names for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sepconv.models.builder import NetworkBuilder

Prefixes = dict[str, tuple[str, str | None]]


@dataclass(frozen=True)
class Stage:
    """A row of the papers' tables: ``repeats`` blocks, of which the first has the stride."""

    expansion: int
    channels: int
    repeats: int
    stride: int
    kernel: int = 3


@dataclass(frozen=True)
class Block:
    """One block of a stage, by its number in the network (from 1), its stage's and its place there (from 0)."""

    number: int
    stage: int
    place: int
    expansion: int
    channels: int
    stride: int
    kernel: int


def blocks(stages: Sequence[Stage]) -> Iterator[Block]:
    """The blocks of all stages in order."""
    number = 0
    for index, stage in enumerate(stages):
        for place in range(stage.repeats):
            number += 1
            stride = stage.stride if place == 0 else 1
            yield Block(number, index, place, stage.expansion, stage.channels, stride, stage.kernel)


def add_block(net: NetworkBuilder, block: Block, channels: int) -> None:
    """Expand, depthwise, project to ``channels`` without activation; a sum with the input where the shapes allow it."""
    name, shortcut, shape = f"block{block.number}", net.last, net.shape
    if block.expansion != 1:
        net.conv(f"{name}.expand", 1, shape[2] * block.expansion)
    net.depthwise(f"{name}.depthwise", block.kernel, block.stride)
    net.conv(f"{name}.project", 1, channels, activation="none")
    if block.stride == 1 and channels == shape[2]:
        net.add(f"{name}.add", shortcut)


def timm_prefixes(stages: Sequence[Stage]) -> Prefixes:
    """timm's names: a block without expansion calls its projection conv_pw, any other its expansion."""
    prefixes: Prefixes = {
        "stem": ("conv_stem", "bn1"), "head": ("conv_head", "bn2"), "classifier": ("classifier", None)
    }  # fmt: skip
    for block in blocks(stages):
        parts = ["depthwise", "project"] if block.expansion == 1 else ["expand", "depthwise", "project"]
        convs = ["conv_dw", "conv_pw"] if block.expansion == 1 else ["conv_pw", "conv_dw", "conv_pwl"]
        for place, (part, conv) in enumerate(zip(parts, convs, strict=True), start=1):
            block_name = f"blocks.{block.stage}.{block.place}"
            prefixes[f"block{block.number}.{part}"] = (f"{block_name}.{conv}", f"{block_name}.bn{place}")
    return prefixes
