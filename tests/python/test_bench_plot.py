"""The pictures of ``sepconv bench`` and ``profile``: what is drawn, and that nothing is cut off."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="needs matplotlib (extra bench)")

from sepconv import _core
from sepconv.bench import peaks, plot, profile


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be saved, laid out."""
    found: list[Any] = []

    def keep(figure: Any, path: object, dpi: int) -> None:
        figure.draw_without_rendering()
        found.append(figure)

    monkeypatch.setattr(plot, "save_figure", keep)
    return found


def result(network: str, threads: int, names: Sequence[str] = ("sepconv avx2", "torch_contiguous avx2")) -> Any:
    times = {"milliseconds": {"p25": 1.0}, "ratio": {"value": 1.0}}
    contenders = [{"name": name, "kind": name.split()[0], **times} for name in names]
    return {"network": network, "threads": threads, "batch": 1, "cold": False, "contenders": contenders}


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_titles_fit_their_panels_and_a_panel_without_a_result_is_empty(
    count: int, tmp_path: Path, figures: list[Any]
) -> None:
    name = "conv 3x5 15x14x3→32 dilation 2x2 valid silu" if count > 1 else "x" * 150
    plot.save_bars(tmp_path / "bars.png", [result(name, threads + 1) for threads in range(count)], "caption")
    (figure,) = figures
    for threads, axes in enumerate(figure.axes, 1):
        title = axes.get_title(loc="left")
        assert axes.axison == (threads <= count)
        if axes.axison:
            assert title.replace("\n", " " if count > 1 else "").endswith(f", {threads} thread{'s' * (threads > 1)}")
            (drawn,) = (text for text in axes.get_children() if getattr(text, "get_text", str)() == title)
            box = drawn.get_window_extent()
            assert box.x1 <= axes.bbox.x1 + 1
            assert box.y1 <= figure.bbox.y1
    assert len(figure.axes) == count + count % 2 * (count > 1)


def test_bars_tell_the_conditions_and_are_called_as_in_tables(tmp_path: Path, figures: list[Any]) -> None:
    plot.save_bars(tmp_path / "bars.png", [{**result("x", 1), "batch": 8, "cold": True}], "caption")
    (axes,) = figures[0].axes
    assert axes.get_title(loc="left") == "x, 1 thread, batch 8, caches cold"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["sepconv avx2", "torch, contiguous avx2"]


def test_the_roofline_draws_each_kind_of_step_and_calls_it_by_its_name(tmp_path: Path, figures: list[Any]) -> None:
    kernels = {
        "depthwise": "depthwise_3x3_s1_f32__avx512", "gemm": "gemm_f32_14x32__avx512", "softmax": "softmax_f32__avx512",
        "conv": "conv_f32_14x32__avx512", "max pool": "max_pool_f32__avx512", "add": "add_f32__avx512",
        "global average": "global_average_f32__avx512", "average pool": "average_pool_f32__avx512",
        "layer norm": "layer_norm_f32__avx512", "prelu": "prelu_f32__avx512",
    }  # fmt: skip
    isa = _core.isa()
    levels = {"L1": 100e9, "L2": 50e9, "L3": 20e9, "DRAM": 10e9}
    machine = peaks.Peaks(1, 1, isa, {isa: 100e9}, levels, {"L1": 32 << 10, "L2": 1 << 20, "L3": 16 << 20})
    steps = [
        profile.StepProfile((name,), (kernel,), (1, 1, 1), 1.0, 1.0, 1_000_000, 1000 * number, 0.5, "L1")
        for number, (name, kernel) in enumerate(kernels.items(), 1)
    ]
    plot.save_roofline(tmp_path / "roofline.png", profile.Profile("x", isa, 1, 1, 1, tuple(steps), machine), "caption")
    axes = figures[0].axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(kernels)
    assert len(axes.collections) == len(kernels)
