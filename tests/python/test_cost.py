"""Costs: every figure of the MobileNets paper, and known figures of other networks."""

from __future__ import annotations

import pytest

from sepconv import cost
from sepconv.cost_tables import PAPER_NETWORKS, PAPER_SHARES, format_cost_tables
from sepconv.graph import Input, Layer
from sepconv.models import efficientnet_lite0_layers, mobilenet_v1_layers, mobilenet_v2_layers
from sepconv.models.mobilenet_v1 import Variant
from sepconv.table import format_table


@pytest.mark.parametrize(
    "alpha, resolution, variant, macs, params",
    [
        (1.0, 224, "separable", 569, 4.2),
        (0.75, 224, "separable", 325, 2.6),
        (0.5, 224, "separable", 149, 1.3),
        (0.25, 224, "separable", 41, 0.5),
        (1.0, 192, "separable", 418, 4.2),
        (1.0, 128, "separable", 186, 4.2),
        (1.0, 224, "shallow", 307, 2.9),
    ],
)
def test_the_papers_networks(alpha: float, resolution: int, variant: Variant, macs: int, params: float) -> None:
    ours = cost(mobilenet_v1_layers(alpha, resolution, variant=variant))
    assert round(ours.macs / 1e6) == macs
    assert round(ours.params / 1e6, 1) == params
    assert round(ours.weights / 1e6, 1) == params


def test_the_papers_290_is_cut_off() -> None:
    ours = cost(mobilenet_v1_layers(rho=160 / 224))
    assert int(ours.macs / 1e6) == 290
    assert round(ours.params / 1e6, 1) == 4.2


def test_the_papers_4866_leaves_the_classifier_out() -> None:
    ours = cost(mobilenet_v1_layers(variant="full"))
    assert round((ours.macs - ours.layers[-1].macs) / 1e6) == 4866
    assert ours.macs == 4_867_293_184
    assert round(ours.params / 1e6, 1) == 29.3


@pytest.mark.parametrize(
    "kind, macs, weights",
    [
        ("convolution 1x1", 94.86, 74.59),
        ("depthwise 3x3", 3.06, 1.06),
        ("convolution 3x3", 1.91, 0.02),  # the paper prints 1.19; its other shares leave 1.9
        ("fully connected", 0.18, 24.33),
    ],
)
def test_the_papers_shares(kind: str, macs: float, weights: float) -> None:
    share = cost(mobilenet_v1_layers()).by_type()[kind]
    assert (round(100 * share.macs, 2), round(100 * share.weights, 2)) == (macs, weights)


def test_shares_add_up() -> None:
    shares = cost(mobilenet_v1_layers()).by_type()
    assert list(shares) == list(PAPER_SHARES)  # most multiply-adds first, as in the paper
    assert sum(share.macs for share in shares.values()) == pytest.approx(1)
    assert sum(share.weights for share in shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "layers, params, macs",
    [
        (mobilenet_v1_layers(), 4_231_976, 568_740_352),  # as Keras and timm count
        (mobilenet_v2_layers(), 3_504_872, 300_774_272),  # as torchvision counts
        (efficientnet_lite0_layers(), 4_652_008, 385_187_552),  # as timm counts
    ],
    ids=["mobilenet_v1", "mobilenet_v2", "efficientnet_lite0"],
)
def test_known_totals(layers: list[Layer], params: int, macs: int) -> None:
    ours = cost(layers)
    assert (ours.params, ours.macs) == (params, macs)


@pytest.mark.parametrize("block, channels, size", [(2, 128, 56), (8, 512, 14), (13, 1024, 7)])
def test_separable_over_full_is_the_papers_ratio(block: int, channels: int, size: int) -> None:
    separable = {layer.name: layer for layer in cost(mobilenet_v1_layers()).layers}
    full = {layer.name: layer for layer in cost(mobilenet_v1_layers(variant="full")).layers}
    pointwise = separable[f"block{block}.pointwise"]
    assert pointwise.output_shape == (size, size, channels)
    ratio = (separable[f"block{block}.depthwise"].macs + pointwise.macs) / full[f"block{block}.conv"].macs
    assert ratio == pytest.approx(1 / channels + 1 / 9)


def test_bytes_are_weights_and_activations_in_float32() -> None:
    layers = {layer.name: layer for layer in cost(mobilenet_v1_layers(resolution=32)).layers}
    assert layers["input"].bytes == 0
    assert layers["stem"].bytes == 4 * (3 * 3 * 3 * 32 + 32 * 32 * 3 + 16 * 16 * 32)
    assert layers["classifier"].bytes == 4 * (1024 * 1000 + 1024 + 1000)
    add = next(layer for layer in cost(mobilenet_v2_layers(resolution=32)).layers if layer.type == "add")
    assert add.bytes == 4 * 3 * 8 * 8 * 24


def test_totals_are_the_layers_sums() -> None:
    ours = cost(mobilenet_v2_layers(resolution=64))
    for field in ("macs", "params", "weights", "bytes"):
        assert getattr(ours, field) == sum(getattr(layer, field) for layer in ours.layers) > 0


def test_a_network_without_weights_costs_no_multiply_adds() -> None:
    ours = cost([Input(name="x", shape=(2, 2, 1))])
    assert (ours.macs, ours.params, ours.bytes, ours.by_type()) == (0, 0, 0, {})


def test_cost_as_a_table() -> None:
    lines = str(cost(mobilenet_v1_layers())).splitlines()
    assert lines[0].split() == ["layer", "type", "output", "multiply-adds", "parameters", "bytes"]
    assert lines[3].split() == ["stem", "convolution", "3x3", "112x112x32", "10,838,016", "928", "2,211,200"]
    assert lines[-1].split()[:3] == ["total", "568,740,352", "4,231,976"]


def test_cost_tables_show_every_figure_of_the_paper() -> None:
    words = format_cost_tables().split()
    for alpha, resolution, variant, macs, params in PAPER_NETWORKS:
        assert {f"{alpha}-{resolution}", str(macs), str(params)} <= set(words), variant
    for macs_share, weights_share in PAPER_SHARES.values():
        assert {str(macs_share), str(weights_share)} <= set(words)
    assert {"568.74", "325.40", "149.50", "41.03", "418.12", "290.68", "186.40", "4867.29", "307.32"} <= set(words)
    assert {"94.86%", "3.06%", "1.91%", "0.18%", "74.59%", "1.06%", "0.02%", "24.33%"} <= set(words)


def test_format_table() -> None:
    assert (
        format_table(("a", "bcd"), [("xyz", 1), (), ("u",)], align="<") == "a    bcd\n---  ---\nxyz    1\n---  ---\nu"
    )
    with pytest.raises(ValueError, match="a row had 2 cells, must have at most 1"):
        format_table(("a",), [(1, 2)])
    with pytest.raises(ValueError, match="align was '\\^', must be"):
        format_table(("a",), [], align="^")
