"""The body that MobileNet V2 and V3, MnasNet and EfficientNet-Lite share: inverted residual blocks, and their names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sepconv.graph import ActivationName
from sepconv.models.builder import NetworkBuilder, round_to_eight

Prefixes = dict[str, tuple[str, str | None]]


@dataclass(frozen=True)
class Stage:
    """A row of the papers' tables: ``repeats`` blocks, of which the first has the stride.

    squeeze: the width of the squeeze-and-excitation between depthwise and projection, as a share of the expanded
        channels (rounded to eight), or of the block's input where ``squeeze_input``; 0 for none.
    gate: the activation of its factors.
    """

    expansion: float
    channels: int
    repeats: int
    stride: int
    kernel: int = 3
    activation: ActivationName = "relu6"
    squeeze: float = 0.0
    squeeze_input: bool = False
    gate: ActivationName = "hard_sigmoid"


@dataclass(frozen=True)
class Block:
    """One block of a stage, by its number in the network (from 1), its stage's and its place there (from 0)."""

    number: int
    stage: int
    place: int
    stride: int
    row: Stage

    @property
    def expansion(self) -> float:
        return self.row.expansion

    @property
    def channels(self) -> int:
        return self.row.channels


def blocks(stages: Sequence[Stage | Sequence[Stage]]) -> Iterator[Block]:
    """The blocks of all stages in order. A stage may be of several rows."""
    number = 0
    for index, stage in enumerate(stages):
        place = 0
        for row in (stage,) if isinstance(stage, Stage) else stage:
            for repeat in range(row.repeats):
                number += 1
                yield Block(number, index, place, row.stride if repeat == 0 else 1, row)
                place += 1


def add_block(net: NetworkBuilder, block: Block, channels: int, *, shortcut: bool = True) -> None:
    """Expand, depthwise, project to ``channels`` without activation; a sum with the input where the shapes allow it."""
    name, row, x, shape = f"block{block.number}", block.row, net.last, net.shape
    if row.expansion != 1:
        net.conv(f"{name}.expand", 1, round_to_eight(shape[2] * row.expansion), activation=row.activation)
    net.depthwise(f"{name}.depthwise", row.kernel, block.stride, row.activation)
    if row.squeeze:
        width = round(shape[2] * row.squeeze) if row.squeeze_input else round_to_eight(net.shape[2] * row.squeeze)
        net.squeeze_and_excite(f"{name}.squeeze", width, row.gate)
    net.conv(f"{name}.project", 1, channels, activation="none")
    if shortcut and block.stride == 1 and channels == shape[2]:
        net.add(f"{name}.add", x)


def parts_of(block: Block) -> list[str]:
    """The block's layers that have weights, in order, those of the squeeze-and-excitation aside."""
    return ["depthwise", "project"] if block.expansion == 1 else ["expand", "depthwise", "project"]


def timm_prefixes(stages: Sequence[Stage | Sequence[Stage]]) -> Prefixes:
    """timm's names: a block without expansion calls its projection conv_pw, any other its expansion."""
    prefixes: Prefixes = {
        "stem": ("conv_stem", "bn1"), "head": ("conv_head", "bn2"), "classifier": ("classifier", None)
    }  # fmt: skip
    for block in blocks(stages):
        convs = ["conv_dw", "conv_pw"] if block.expansion == 1 else ["conv_pw", "conv_dw", "conv_pwl"]
        block_name = f"blocks.{block.stage}.{block.place}"
        for place, (part, conv) in enumerate(zip(parts_of(block), convs, strict=True), start=1):
            prefixes[f"block{block.number}.{part}"] = (f"{block_name}.{conv}", f"{block_name}.bn{place}")
        if block.row.squeeze:
            prefixes[f"block{block.number}.squeeze.reduce"] = (f"{block_name}.se.conv_reduce", None)
            prefixes[f"block{block.number}.squeeze.expand"] = (f"{block_name}.se.conv_expand", None)
    return prefixes
