"""Every depthwise and separable convolution of MobileNet V1 and V2 at 224×224, and a table of what was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sepconv.bench.networks import Network, OperatorName, operator
from sepconv.graph import DepthwiseConv2d

# Of the input: height and width, channels, stride; of separable ones also the output's channels.
_V1 = [
    (112, 32, 1, 64), (112, 64, 2, 128), (56, 128, 1, 128), (56, 128, 2, 256), (28, 256, 1, 256), (28, 256, 2, 512),
    (14, 512, 1, 512), (14, 512, 2, 1024), (7, 1024, 1, 1024),
]  # fmt: skip
_V2 = [
    (112, 32, 1, 16), (112, 96, 2, 24), (56, 144, 1, 24), (56, 144, 2, 32), (28, 192, 1, 32), (28, 192, 2, 64),
    (14, 384, 1, 64), (14, 384, 1, 96), (14, 576, 1, 96), (14, 576, 2, 160), (7, 960, 1, 160), (7, 960, 1, 320),
]  # fmt: skip
CONTENDERS = ("sepconv_packing", "torch", "torch_contiguous", "litert", "onnxruntime", "openvino")
TORCH = ("torch", "torch_contiguous")
HEADERS = (
    "operator", "threads", "sepconv", "packing included", "torch channels_last", "torch contiguous", "LiteRT",
    "onnxruntime", "OpenVINO", "torch ÷ sepconv", "torch ÷ packing included",
)  # fmt: skip


def mobilenet_operators() -> list[Network]:
    """The distinct ones, depthwise first, without activations.

    A zero on every side, as torch's MobileNets have: TensorFlow's padding at stride 2, which its operator lacks, would
    have torch copy the image first.
    """
    depthwise = list(dict.fromkeys(("depthwise", (h, h, c), s) for h, c, s, _ in (*_V1, *_V2)))
    separable = [("separable", (h, h, c, n), s) for h, c, s, n in (*_V1, *_V2)]

    def networks(kind: OperatorName, shapes: Sequence[tuple[str, tuple[int, ...], int]]) -> Iterator[Network]:
        for _, shape, stride in shapes:
            network = operator(kind, shape, stride=(stride, stride))
            layers = [_padded(layer) if isinstance(layer, DepthwiseConv2d) else layer for layer in network.layers]
            yield dataclasses.replace(network, layers=tuple(layers))

    return [*networks("depthwise", depthwise), *networks("separable", separable)]


def _padded(layer: DepthwiseConv2d) -> DepthwiseConv2d:
    return dataclasses.replace(layer, padding=((1, 1), (1, 1)))


def rows(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A row an operator and number of threads: microseconds, the 25th percentile and the minimum."""
    table = []
    for result in results:
        timed = {row["kind"]: row["milliseconds"] for row in result["contenders"] if "milliseconds" in row}
        cells = [_cell(timed.get(kind)) for kind in ("sepconv", *CONTENDERS)]
        ratios = [ratio(result, kind) for kind in ("sepconv", "sepconv_packing")]
        shown = ["–" if r is None else f"{r:.2f}×" if r > 1 else f"{r:.2f}× (loses)" for r in ratios]
        table.append([result["network"], str(result["threads"]), *cells, *shown])
    return table


def ratio(result: dict[str, Any], kind: str) -> float | None:
    """The faster torch's 25th percentile over that of ``kind``; None where one was not measured."""
    timed = {row["kind"]: row["milliseconds"]["p25"] for row in result["contenders"] if "milliseconds" in row}
    torch = [timed[name] for name in TORCH if name in timed]
    return min(torch) / timed[kind] if torch and kind in timed else None


def sentences(results: Sequence[dict[str, Any]]) -> list[str]:
    """How many of them beat torch; and whom the table has no column for."""
    every = [row for result in results for row in result["contenders"]]
    kinds = dict.fromkeys(row["kind"] for row in every)
    torch = _torch({row["kind"] for row in every if "milliseconds" in row})
    lines = [f"{kind}: in --json alone" for kind in kinds if kind not in ("sepconv", *CONTENDERS)]
    for kind, words in (("sepconv", "with prepared weights"), ("sepconv_packing", "packing included")):
        ratios = [r for result in results if (r := ratio(result, kind)) is not None]
        if ratios:
            faster = sum(r > 1 for r in ratios)
            lines.append(
                f"{words}: faster than {torch} on {faster} of {len(ratios)}, "
                f"{min(ratios):.2f} to {max(ratios):.2f} times as fast"
            )
    return lines


def _torch(kinds: Collection[str]) -> str:
    """Whom the ratios are over."""
    measured = [HEADERS[3 + CONTENDERS.index(kind)] for kind in TORCH if kind in kinds]
    return measured[0] if len(measured) == 1 else "the faster of torch's two layouts"


def _cell(times: dict[str, float] | None) -> str:
    return "–" if times is None else f"{1e3 * times['p25']:.1f} ({1e3 * times['minimum']:.1f})"
